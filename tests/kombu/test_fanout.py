"""Fanout exchanges (PUB/SUB): a copy for every queue that is being consumed, nothing stored."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue
from kombu.pidbox import Mailbox

from tests.kombu.exam import Broker, DrainPump, Inbox, PumpFactory

NEWS = Exchange("news", type="fanout")


def publish(connection: Connection, body: Any, key: str = "") -> None:
    connection.Producer(exchange=NEWS).publish(body, routing_key=key)


def listen(broker: Broker, name: str, key: str = "") -> tuple[DrainPump, Inbox]:
    """Consume a queue bound to NEWS over a connection of its own, until it is subscribed."""
    connection = broker.connection()
    inbox = Inbox()
    broker.consumer(connection, Queue(name, NEWS, routing_key=key), inbox)
    pump = DrainPump(connection)
    before = subscriptions(broker)
    pump.until(lambda: subscriptions(broker) > before)
    return pump, inbox


def subscriptions(broker: Broker) -> int:
    """Return how many subscriptions Redis knows of, over all its clients."""
    clients: Any = broker.client.client_list()
    return sum(int(client["sub"]) + int(client["psub"]) for client in clients)


@pytest.mark.real_server("fakeredis's CLIENT LIST does not count subscriptions")
def test_every_queue_gets_a_copy(broker: Broker) -> None:
    listeners = [listen(broker, name) for name in ("a", "b", "c")]

    with broker.connection() as connection:
        for number in range(5):
            publish(connection, number)
    for pump, inbox in listeners:
        pump.until(inbox.has(5))
        pump.run(0.1)

    assert [inbox.bodies for _, inbox in listeners] == [list(range(5))] * 3


@pytest.mark.real_server("fakeredis's CLIENT LIST does not count subscriptions")
def test_another_process_publishes(broker: Broker) -> None:
    pump, inbox = listen(broker, "a")

    broker.peer()("publish", body="from afar", exchange="news", type="fanout")
    pump.until(inbox.has(1))

    assert inbox.bodies == ["from afar"]


def test_nothing_is_kept_for_those_who_do_not_listen(broker: Broker) -> None:
    with broker.connection() as connection:
        Queue("absent", NEWS)(connection.default_channel).declare()
        publish(connection, "unheard")

    assert broker.size("absent") == 0
    assert broker.get_all("absent") == []


@pytest.mark.real_server("fakeredis's CLIENT LIST does not count subscriptions")
def test_routing_keys_select_among_the_subscribers(broker: Broker) -> None:
    workers, worker_inbox = listen(broker, "workers", "worker.#")
    everything, all_inbox = listen(broker, "everything", "#")

    with broker.connection() as connection:
        for key in ("worker.online", "task.sent", "worker.heartbeat"):
            publish(connection, key, key)
    everything.until(all_inbox.has(3))
    workers.until(worker_inbox.has(2))
    workers.run(0.1)

    assert all_inbox.bodies == ["worker.online", "task.sent", "worker.heartbeat"]
    assert worker_inbox.bodies == ["worker.online", "worker.heartbeat"]


def subscribed_pump(broker: Broker, pump: PumpFactory, connection: Connection) -> Any:
    running = pump(connection)
    running.until(lambda: broker.client.pubsub_numpat())
    return running


def test_fanout_and_direct_queues_on_one_channel(broker: Broker, pump: PumpFactory) -> None:
    connection = broker.connection()
    inbox = Inbox()
    broker.consumer(connection, [Queue("plain"), Queue("a", NEWS)], inbox)
    running = subscribed_pump(broker, pump, connection)

    with broker.connection() as sender:
        publish(sender, "to all")
    broker.send("plain", "to one")
    running.until(inbox.has(2))
    running.run(0.1)

    assert sorted(inbox.bodies) == ["to all", "to one"]


def test_acknowledging_and_rejecting_a_broadcast(broker: Broker, pump: PumpFactory) -> None:
    connection = broker.connection()
    inbox = Inbox(ack=False)
    broker.consumer(connection, Queue("a", NEWS), inbox, prefetch_count=2)
    running = subscribed_pump(broker, pump, connection)

    with broker.connection() as sender:
        for number in range(4):
            publish(sender, number)
            running.until(inbox.has(number + 1))
            message = inbox.messages[-1]
            message.ack() if number % 2 else message.reject()

    assert inbox.bodies == [0, 1, 2, 3]


def test_no_copy_after_cancel(broker: Broker, pump: PumpFactory) -> None:
    connection = broker.connection()
    inbox = Inbox()
    consumer = broker.consumer(connection, [Queue("plain"), Queue("a", NEWS)], inbox)
    running = subscribed_pump(broker, pump, connection)
    consumer.cancel_by_queue("a")
    running.until(lambda: not broker.client.pubsub_numpat())

    with broker.connection() as sender:
        publish(sender, "too late")
    broker.send("plain", "still here")
    running.until(inbox.has(1))
    running.run(0.1)

    assert inbox.bodies == ["still here"]


@pytest.mark.phonon_only("stock delivers to the queue bound last on a channel, and not to others")
def test_two_queues_of_one_exchange_on_one_channel(broker: Broker, pump: PumpFactory) -> None:
    connection = broker.connection()
    inboxes = [Inbox(), Inbox()]
    for number, inbox in enumerate(inboxes):
        broker.consumer(connection, Queue(f"q{number}", NEWS), inbox)
    running = subscribed_pump(broker, pump, connection)

    with broker.connection() as sender:
        publish(sender, "to both")
    running.until(lambda: all(inbox.count for inbox in inboxes))
    running.run(0.1)

    assert [inbox.bodies for inbox in inboxes] == [["to both"], ["to both"]]


@pytest.mark.phonon_only("stock polls no queue whose name any connection ever bound to a fanout")
def test_a_name_once_used_for_a_fanout_queue_serves_for_a_plain_one(
    broker: Broker, pump: PumpFactory
) -> None:
    with broker.connection() as connection:
        broker.consumer(connection, Queue("a", NEWS))
        DrainPump(connection).until(lambda: broker.client.pubsub_numpat())
    inbox = Inbox()
    connection = broker.connection()
    broker.consumer(connection, "a", inbox)
    broker.send("a", "plain")

    pump(connection).until(inbox.has(1))

    assert inbox.bodies == ["plain"]


def test_databases_do_not_hear_each_other(broker: Broker, pump: PumpFactory) -> None:
    connection = broker.connection()
    inbox = Inbox()
    broker.consumer(connection, Queue("a", NEWS), inbox)
    running = subscribed_pump(broker, pump, connection)

    with broker.connection(url=broker.server.url(broker.scheme, 5)) as stranger:
        publish(stranger, "from database 5")
    with broker.connection() as sender:
        publish(sender, "from database 0")
    running.until(inbox.has(1))
    running.run(0.1)

    assert inbox.bodies == ["from database 0"]


def test_a_mailbox_asks_a_node_and_gets_its_answer(broker: Broker, pump: PumpFactory) -> None:
    """Celery's remote control: a broadcast, answered through a direct exchange."""
    mailbox = Mailbox("exam", type="fanout")
    connection = broker.connection()
    node = mailbox(connection).Node("node1", state=7, channel=connection.default_channel)
    node.handlers["times"] = lambda state, by: state * by
    node.listen()
    running = subscribed_pump(broker, pump, connection)
    done = threading.Event()
    thread = threading.Thread(target=lambda: running.until(done.is_set, 30))
    thread.start()
    try:
        asker = mailbox(broker.connection())
        answers = [
            asker.multi_call("times", {"by": number}, timeout=10, limit=1) for number in (2, 3)
        ]
    finally:
        done.set()
        thread.join()

    assert answers == [[{"node1": 14}], [{"node1": 21}]]
