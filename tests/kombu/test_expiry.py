"""Queues with ``x-expires`` vanish when nobody uses them, and only then."""

from __future__ import annotations

import time

import pytest
from kombu import Exchange, Queue

from phonon_kombu.errors import ConfigurationError
from tests.kombu.exam import Broker, DrainPump, Inbox, PumpFactory
from tests.servers import wait_for

NAME = "short-lived"
EXPIRES_SECONDS = 0.8


def make_queue() -> Queue:
    return Queue(NAME, expires=EXPIRES_SECONDS)


def test_an_idle_queue_vanishes_with_its_messages(broker: Broker) -> None:
    broker.send("lasting", "stays")
    broker.send(make_queue(), 1, 2, 3)
    broker.send(make_queue(), 4, priority=9)
    assert broker.size(NAME) == 4

    wait_for(lambda: not broker.exists(NAME), 10, message="the queue did not vanish")

    assert broker.get_all(NAME) == []
    wait_for(lambda: broker.key_names(b"short-lived") == [], 10, message="keys were left behind")
    assert broker.get_all("lasting") == ["stays"]


def test_the_queue_argument_does_the_same(broker: Broker) -> None:
    broker.send(Queue(NAME, queue_arguments={"x-expires": 300}), 1)

    wait_for(lambda: broker.key_names(b"short-lived") == [], 10, message="the queue did not vanish")


def test_a_queue_in_use_does_not_vanish(broker: Broker) -> None:
    broker.send(make_queue(), *range(8))

    deadline = time.monotonic() + 2 * EXPIRES_SECONDS
    sent, received = 8, []
    with broker.connection() as connection:
        channel = connection.default_channel
        make_queue()(channel).declare()
        while time.monotonic() < deadline:
            message = channel.basic_get(NAME)
            received.append(message.payload)
            message.ack()
            broker.send(make_queue(), sent)
            sent += 1

    assert received + broker.get_all(NAME) == list(range(sent))


def test_a_consumed_queue_keeps_its_binding(broker: Broker, pump: PumpFactory) -> None:
    exchange = Exchange("x", type="direct")
    queue = Queue(NAME, exchange, routing_key="k", expires=EXPIRES_SECONDS)
    connection = broker.connection()
    inbox = Inbox()
    broker.consumer(connection, queue, inbox)
    running = pump(connection)
    running.run(2 * EXPIRES_SECONDS)

    with broker.connection() as sender:
        sender.Producer(exchange=exchange).publish("late", routing_key="k")
    running.until(inbox.has(1))

    assert inbox.bodies == ["late"]


def test_what_a_consumer_holds_does_not_vanish(broker: Broker, pump: PumpFactory) -> None:
    broker.send(make_queue(), "long work")
    connection = broker.connection()
    inbox = Inbox(ack=False)
    broker.consumer(connection, make_queue(), inbox, prefetch_count=1)
    running = pump(connection)
    running.until(inbox.has(1))
    running.run(2 * EXPIRES_SECONDS)

    inbox.messages[0].requeue()
    running.until(inbox.has(2))

    assert inbox.bodies == ["long work", "long work"]


@pytest.mark.phonon_only("on stock only the connection that declared a queue lets it expire")
def test_a_queue_that_others_publish_to_still_vanishes(broker: Broker) -> None:
    peer = broker.peer()  # its start may take longer than the queue lives
    peer("publish", body="warm", routing_key="elsewhere")
    with broker.connection() as connection:
        make_queue()(connection.default_channel).declare()

    peer("publish", body="a reply that nobody waits for", routing_key=NAME)
    assert broker.size(NAME) == 1

    wait_for(lambda: broker.key_names(b"short-lived") == [], 10, message="the queue leaked")


@pytest.mark.phonon_only("stock keeps other keys")
def test_nothing_is_left_of_a_queue_whatever_was_done(broker: Broker) -> None:
    ends = ("stall", "ack", "requeue", "reject", "hold", "consume", "delay")
    specs = {end: Queue(f"{NAME}.{end}", expires=EXPIRES_SECONDS) for end in ends}
    with broker.connection() as connection:
        channel = connection.default_channel
        for end, spec in specs.items():
            spec(channel).declare()
            headers = {"x-delay": 60_000} if end == "delay" else {}
            connection.Producer().publish("x", routing_key=spec.name, headers=headers)
            if end == "consume":
                inbox = Inbox()
                with broker.consumer(channel, spec, inbox):
                    DrainPump(connection).until(inbox.has(1))
            elif (message := channel.basic_get(spec.name)) is not None and end != "hold":
                if end == "stall":
                    channel.basic_reject(message.delivery_tag, requeue="look at it")
                else:
                    getattr(message, end)()
        wait_for(lambda: broker.key_names(NAME.encode()) == [], 10, message="keys are left")
        assert len(broker.client.smembers("feeds")) > 1

        def only_this() -> bool:
            Queue("alive", expires=60)(channel).declare()
            return set(broker.client.smembers("feeds")) == {b"alive", b"lasting"}

        broker.send("lasting", "stays")
        wait_for(only_this, 10, message="names are left")


@pytest.mark.phonon_only("stock does not bind it again before its binding is swept")
def test_a_queue_that_has_expired_is_bound_when_it_is_declared_again(broker: Broker) -> None:
    exchange = Exchange("x", type="direct")
    with broker.connection() as connection:
        queue = Queue(NAME, exchange, routing_key="k", expires=EXPIRES_SECONDS)
        queue(connection.default_channel).declare()
        wait_for(lambda: not broker.client.exists(f"feed.config:{{{NAME}}}"), 10)
        queue(connection.default_channel).declare()
        connection.Producer(exchange=exchange).publish("again", routing_key="k")
        assert connection.default_channel.basic_get(NAME) is not None


@pytest.mark.phonon_only("stock keeps what it has bound")
def test_a_process_forgets_the_queues_that_it_deletes(broker: Broker) -> None:
    """One for each call that waits for a reply, say."""
    exchange = Exchange("x", type="direct")
    with broker.connection() as connection:
        channel = connection.channel()
        for number in range(5):
            queue = Queue(f"r{number}", exchange, routing_key=f"r{number}", expires=60)
            queue = queue(channel)
            queue.declare()
            connection.Producer(channel, exchange).publish("x", routing_key=queue.name)
            channel.basic_get(queue.name).ack()
            queue.delete()
        assert not channel.state.exchanges["x"].get("table") and not channel.state.bindings
        assert not (channel._expires or channel._ruled or channel.waiter.claimed_queues)
        # One that expires is forgotten when others are declared.
        Queue("short", expires=0.2)(channel).declare()
        wait_for(lambda: not broker.client.exists("feed.config:{short}"), 10)
        for number in range(2):
            Queue(f"next{number}", expires=60)(channel).declare()
        assert set(channel._expires) == {"next0", "next1"}


@pytest.mark.phonon_only("stock delivers messages however old they are")
def test_a_message_that_has_expired_is_not_delivered(broker: Broker, pump: PumpFactory) -> None:
    broker.send("q", "brief", expiration=0.2)
    broker.send("q", "lasting", expiration=60)
    broker.send("q", "unlimited")
    connection = broker.connection()
    broker.consumer(connection, "other")
    running = pump(connection)
    running.run(0.3)

    inbox = Inbox()
    broker.consumer(connection, "q", inbox)
    running.until(inbox.has(2))
    running.run(0.1)

    assert inbox.bodies == ["lasting", "unlimited"]


def test_a_message_in_hand_does_not_expire(broker: Broker) -> None:
    broker.send("q", "taken in time", expiration=0.3)
    with broker.connection() as connection:
        message = connection.default_channel.basic_get("q")
        DrainPump(connection).run(0.4)
        assert message.payload == "taken in time"
        message.ack()

    assert broker.get_all("q") == []


@pytest.mark.phonon_only("stock knows no expiration")
@pytest.mark.parametrize(
    "expiration",
    ["x", "x" * 1000, "nan", "inf", "1e400", [5], True, 10**16],
    ids=lambda v: str(v)[:8],
)
def test_an_expiration_that_makes_no_sense(broker: Broker, expiration: object) -> None:
    """As a property of the message; `Producer.publish(expiration=...)` is kombu's arithmetic."""
    with broker.connection() as connection:
        channel = connection.default_channel
        message = channel.prepare_message("x", properties={"expiration": expiration})
        with pytest.raises(ConfigurationError, match=r"expiration.*milliseconds") as caught:
            channel.basic_publish(message, "", "q")
    assert len(str(caught.value)) < 250
    assert broker.get_all("q") == []


@pytest.mark.phonon_only("stock knows no expiration")
@pytest.mark.parametrize("expiration", [60_000, "60000", "60000.5", 10**15, None])
def test_an_expiration_as_a_property(broker: Broker, expiration: object) -> None:
    with broker.connection() as connection:
        channel = connection.default_channel
        message = channel.prepare_message("x", properties={"expiration": expiration})
        channel.basic_publish(message, "", "q")
    assert len(broker.get_all("q")) == 1
