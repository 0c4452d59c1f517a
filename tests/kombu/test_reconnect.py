"""Connections break and servers restart: consumers and producers go on, messages stay."""

from __future__ import annotations

import contextlib
import time

import pytest
from kombu import Connection, Exchange, Queue

from phonon_kombu.transport.conversation import IDLE_SECONDS
from tests.kombu.exam import Broker, Inbox, PumpFactory
from tests.kombu.worker import Worker, drop
from tests.servers import RedisServer, start_server, wait_for

RETRY = {"max_retries": 20, "interval_start": 0.1, "interval_step": 0, "interval_max": 0.1}
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def own_server() -> RedisServer:
    """Instead of the default: a server that keeps its data when it restarts."""
    server = start_server(*DURABLE)
    yield server
    server.stop()


def kill_connections(broker: Broker) -> int:
    """Have the server drop every other connection; returns how many there were."""
    return sum(
        int(broker.client.client_kill_filter(_type=kind, skipme=True))
        for kind in ("normal", "pubsub")
    )


def publish_with_retry(connection: Connection, queue: str, *bodies: object) -> None:
    producer = connection.Producer()
    for body in bodies:
        producer.publish(
            body, routing_key=queue, declare=[Queue(queue)], retry=True, retry_policy=RETRY
        )


@pytest.mark.real_server("fakeredis does not break the connection at CLIENT KILL")
def test_an_idle_consumer_survives_the_loss_of_its_connection(
    broker: Broker, pump: PumpFactory
) -> None:
    inbox = Inbox()
    worker = Worker(broker, pump, ["q"], inbox)
    for number in range(4):
        for _ in range(3):
            worker.step()
        assert kill_connections(broker) > 0
        broker.send("q", number)
        worker.until(inbox.has(number + 1))

    assert inbox.bodies == [0, 1, 2, 3]


@pytest.mark.phonon_only("stock's next BRPOP goes out on the socket that is closed")
@pytest.mark.real_server("fakeredis does not break the connection at CLIENT KILL")
def test_a_connection_that_was_closed_while_nobody_looked_is_made_anew(broker: Broker) -> None:
    """As in a pool of connections between two remote control commands."""
    with broker.connection() as connection:
        channel = connection.default_channel
        for number in range(3):
            inbox = Inbox()
            broker.send("q", number)
            with connection.Consumer([Queue("q")], channel=channel, on_message=inbox):
                connection.drain_events(timeout=10)
            assert inbox.bodies == [number]
            assert kill_connections(broker) > 0
            time.sleep(IDLE_SECONDS * 1.1)


@pytest.mark.real_server("fakeredis does not break the connection at CLIENT KILL")
def test_fanout_survives_the_loss_of_the_connection(broker: Broker, pump: PumpFactory) -> None:
    inbox = Inbox()
    news = Exchange("news", type="fanout")
    worker = Worker(broker, pump, [Queue("a", news), "q"], inbox)
    worker.until(lambda: broker.client.pubsub_numpat())
    kill_connections(broker)
    wait_for(lambda: not broker.client.pubsub_numpat())
    # Subscribed anew over a new connection, not by redis-py over the one that is about to go.
    worker.until(lambda: worker.errors and broker.client.pubsub_numpat())

    with broker.connection() as sender:
        sender.Producer(exchange=news).publish("news")
    broker.send("q", "letter")
    worker.until(inbox.has(2))

    assert sorted(inbox.bodies) == ["letter", "news"]


@pytest.mark.real_server("fakeredis does not break the connection at CLIENT KILL")
def test_a_producer_survives_the_loss_of_its_connection(broker: Broker) -> None:
    with broker.connection() as connection:
        for number in range(5):
            publish_with_retry(connection, "q", number)
            assert kill_connections(broker) > 0

    assert broker.get_all("q") == [0, 1, 2, 3, 4]


@pytest.mark.real_server("fakeredis does not break the connection at CLIENT KILL")
@pytest.mark.phonon_only("stock cannot give back messages after collect(): AttributeError")
def test_messages_in_hand_come_again_after_the_loss_of_the_connection(
    broker: Broker, pump: PumpFactory
) -> None:
    broker.send("q", *range(6))
    inbox = Inbox(ack=False)
    worker = Worker(broker, pump, ["q"], inbox, prefetch_count=3)
    worker.until(inbox.has(3))

    kill_connections(broker)
    worker.reconnect()
    worker.until(inbox.has(6))
    assert inbox.bodies == [0, 1, 2, 0, 1, 2]
    for message in inbox.messages[3:6]:
        assert message.headers["redelivered"]
        message.ack()
    worker.until(inbox.has(9))

    assert inbox.bodies[6:] == [3, 4, 5]


@pytest.mark.real_server("fakeredis does not break the connection at CLIENT KILL")
@pytest.mark.phonon_only("stock loses the message that is on its way when the connection breaks")
def test_nothing_is_lost_when_connections_break_again_and_again(
    broker: Broker, pump: PumpFactory
) -> None:
    total = 200
    inbox = Inbox()
    worker = Worker(broker, pump, ["q"], inbox, prefetch_count=8)
    sender = broker.connection()
    next_kill = time.monotonic()
    for number in range(total):
        publish_with_retry(sender, "q", number)
        worker.step()
        if time.monotonic() >= next_kill:
            kill_connections(broker)
            next_kill = time.monotonic() + 0.1
    worker.until(lambda: set(inbox.bodies) == set(range(total)), 30)

    assert len(worker.errors) > 0
    seen = set()
    for message in inbox.messages:
        assert message.payload not in seen or message.headers.get("redelivered")
        seen.add(message.payload)


@pytest.mark.real_server("fakeredis keeps nothing over a restart")
def test_messages_outlive_a_restart(own_broker: Broker, pump: PumpFactory) -> None:
    own_broker.send("q", 1, 2)
    inbox = Inbox()
    worker = Worker(own_broker, pump, ["other"], inbox)
    for _ in range(3):
        worker.step()

    own_broker.server.restart()
    worker.queues = ["q", "other"]
    worker.reconnect()
    worker.until(inbox.has(2))
    with own_broker.connection() as sender:
        publish_with_retry(sender, "other", 3)
    worker.until(inbox.has(3))

    assert inbox.bodies == [1, 2, 3]


@pytest.mark.real_server("fakeredis keeps nothing over a restart")
@pytest.mark.phonon_only("stock cannot give back messages after collect(): AttributeError")
@pytest.mark.parametrize("prefetch", [3, 4])
def test_messages_in_hand_outlive_a_restart(
    own_broker: Broker, pump: PumpFactory, prefetch: int
) -> None:
    """With prefetch 3 nothing is asked of the server meanwhile, with 4 a wait breaks."""
    own_broker.send("q", *range(3))
    inbox = Inbox(ack=False)
    worker = Worker(own_broker, pump, ["q"], inbox, prefetch_count=prefetch)
    worker.until(inbox.has(3))

    own_broker.server.restart()
    inbox.ack = True
    for message in inbox.messages[:3]:
        with contextlib.suppress(*worker.connection.connection_errors):
            message.ack()
    own_broker.send("q", *range(3, 6))
    worker.until(lambda: set(inbox.bodies) == set(range(6)))
    worker.connection.release()

    assert all(message.headers.get("redelivered") for message in inbox.messages[3:-3])
    assert own_broker.get_all("q") == []


@pytest.mark.real_server("fakeredis cannot take up its port again at once")
def test_bindings_are_found_again_after_a_restart_that_lost_all_data(
    broker: Broker, pump: PumpFactory
) -> None:
    """The producer's connection, and what it knows of bindings, are older than the server."""
    with start_server() as server, Broker(broker.scheme, server) as own:
        exchange = Exchange("x", type="topic")
        queue = Queue("q", exchange, routing_key="k.*")
        inbox = Inbox()
        worker = Worker(own, pump, [queue], inbox)
        producer = own.connection().Producer(exchange=exchange)
        producer.publish(1, routing_key="k.a")
        worker.until(inbox.has(1))

        server.restart()
        worker.reconnect()
        producer.publish(2, routing_key="k.a", retry=True, retry_policy=RETRY)
        worker.until(inbox.has(2))

        assert inbox.bodies == [1, 2]


def test_publishing_while_the_server_is_down(own_broker: Broker) -> None:
    with own_broker.connection() as connection:
        producer = connection.Producer(routing_key="q")
        producer.publish(1, declare=[Queue("q")])
        own_broker.server.shut_down()
        with pytest.raises(connection.recoverable_connection_errors) as caught:
            producer.publish("lost, and said so")
        assert str(own_broker.server.port) in str(caught.value) or str(caught.value)
        own_broker.server.start()
        producer.publish(2, retry=True, retry_policy=RETRY)

    assert own_broker.get_all("q")[-1] == 2


@pytest.mark.phonon_only("stock raises AttributeError: 'NoneType' object has no attribute ...")
@pytest.mark.real_server("fakeredis keeps nothing over a restart")
@pytest.mark.parametrize("up_again", [False, True], ids=["down", "up-again"])
def test_closing_after_collect_with_messages_in_hand(
    own_broker: Broker, pump: PumpFactory, up_again: bool
) -> None:
    """The order in which Celery drops a connection: its worker must not end by an exception."""
    own_broker.send("q", *range(4))
    connection = own_broker.connection()
    inbox = Inbox(ack=False)
    own_broker.consumer(connection, "q", inbox, prefetch_count=2)
    running = pump(connection)
    running.until(inbox.has(2))
    own_broker.server.shut_down()
    with contextlib.suppress(*connection.connection_errors):
        running.run(0.3)
    if up_again:
        own_broker.server.start()

    running.forget_connection()
    connection.collect()
    connection.close()

    if not up_again:
        own_broker.server.start()
    messages = own_broker.take("q", 4)
    assert [message.payload for message in messages] == [0, 1, 2, 3]
    assert [bool(m.headers.get("redelivered")) for m in messages] == [True, True, False, False]


@pytest.mark.phonon_only("stock raises AttributeError from its closed channel")
def test_acknowledging_after_the_connection_was_dropped(broker: Broker) -> None:
    """As a task does that ends after its worker has connected again."""
    broker.send("q", "slow work")
    connection = broker.connection()
    message = connection.default_channel.basic_get("q")
    errors = connection.connection_errors
    drop(connection)
    again = broker.connection().default_channel.basic_get("q")
    assert again.payload == "slow work"

    try:
        message.ack()
    except errors as error:
        assert str(error)
    again.ack()

    assert broker.get_all("q") == []
