"""A cancelled consumer gets nothing more, and nothing that it did not get is lost."""

from __future__ import annotations

import pytest
from kombu import Message, Queue

from tests.kombu.exam import Broker, Inbox, PumpFactory

PREFETCH = [0, 1, 4, 20]
SETTLE_SECONDS = 0.15


def test_nothing_arrives_after_cancel(broker: Broker, pump: PumpFactory) -> None:
    connection = broker.connection()
    inbox = Inbox()
    consumer = broker.consumer(connection, "q", inbox)
    running = pump(connection)
    broker.send("q", 1, 2)
    running.until(inbox.has(2))

    consumer.cancel()
    running.run(SETTLE_SECONDS)
    broker.send("q", 3, 4)
    running.run(SETTLE_SECONDS)

    assert inbox.bodies == [1, 2]
    assert broker.get_all("q") == [3, 4]


@pytest.mark.parametrize("prefetch", PREFETCH)
def test_cancel_in_the_middle_of_a_delivery(
    broker: Broker, pump: PumpFactory, prefetch: int
) -> None:
    broker.send("q", *range(12))
    connection = broker.connection()
    inbox = Inbox()
    consumer = broker.consumer(connection, "q", inbox, prefetch_count=prefetch)
    inbox.on_message = lambda message: inbox.count == 3 and consumer.cancel()
    running = pump(connection)

    running.until(inbox.has(3))
    running.run(SETTLE_SECONDS)

    assert inbox.bodies == [0, 1, 2]
    assert broker.get_all("q") == list(range(3, 12))


def test_messages_given_back_by_cancel_are_not_marked_redelivered(
    broker: Broker, pump: PumpFactory
) -> None:
    """No consumer has ever seen them."""
    broker.send("q", *range(6))
    connection = broker.connection()
    inbox = Inbox()
    consumer = broker.consumer(connection, "q", inbox, prefetch_count=6)
    inbox.on_message = lambda message: consumer.cancel()
    running = pump(connection)
    running.until(inbox.has(1))
    running.run(SETTLE_SECONDS)

    rest = broker.take("q", 5)

    assert [message.payload for message in rest] == [1, 2, 3, 4, 5]
    assert not any(message.headers.get("redelivered") for message in rest)
    assert not any(message.headers.get("x-delivery-count") for message in rest)


def test_a_message_in_hand_can_be_acknowledged_after_cancel(
    broker: Broker, pump: PumpFactory
) -> None:
    broker.send("q", *range(4))
    connection = broker.connection()
    inbox = Inbox(ack=False)
    consumer = broker.consumer(connection, "q", inbox, prefetch_count=2)
    running = pump(connection)
    running.until(inbox.has(2))

    consumer.cancel()
    inbox.messages[0].ack()
    inbox.messages[1].requeue()
    connection.release()

    assert sorted(broker.get_all("q")) == [1, 2, 3]


def test_cancelling_one_queue_leaves_the_others(broker: Broker, pump: PumpFactory) -> None:
    for name in ("a", "b"):
        broker.send(name, *[name] * 10)
    connection = broker.connection()
    inbox = Inbox()
    consumer = broker.consumer(connection, ["a", "b"], inbox, prefetch_count=8)
    inbox.on_message = lambda message: message.payload == "a" and consumer.cancel_by_queue("a")
    running = pump(connection)

    running.until(lambda: inbox.bodies.count("b") == 10)
    running.run(SETTLE_SECONDS)

    assert inbox.bodies.count("a") == 1
    assert broker.size("a") == 9
    assert broker.size("b") == 0
    assert not consumer.consuming_from("a")
    assert consumer.consuming_from("b")


def test_consume_again_after_cancel(broker: Broker, pump: PumpFactory) -> None:
    connection = broker.connection()
    inbox = Inbox()
    consumer = broker.consumer(connection, "q", inbox, prefetch_count=4)
    running = pump(connection)
    for number in range(5):
        broker.send("q", number)
        running.until(inbox.has(number + 1))
        consumer.cancel()
        running.run(0.02)
        consumer.consume()

    assert inbox.bodies == [0, 1, 2, 3, 4]


def test_add_a_queue_to_a_running_consumer(broker: Broker, pump: PumpFactory) -> None:
    """As Celery's ``add_consumer`` does, from inside a callback."""
    broker.send("a", "start")
    broker.send("b", "more")
    connection = broker.connection()
    inbox = Inbox()
    consumer = broker.consumer(connection, "a", inbox)

    def add(message: Message) -> None:
        if message.payload == "start":
            consumer.add_queue(Queue("b"))
            consumer.consume()

    inbox.on_message = add
    running = pump(connection)
    running.until(inbox.has(2))
    broker.send("a", "again")
    running.until(inbox.has(3))

    assert inbox.bodies == ["start", "more", "again"]


class CallbackError(Exception):
    """What the callback below raises."""


def fail(message: Message) -> None:
    message.ack()
    raise CallbackError


@pytest.mark.parametrize("prefetch", [0, 8])
def test_after_an_error_in_a_callback_the_rest_is_delivered(
    broker: Broker, pump: PumpFactory, prefetch: int
) -> None:
    broker.send("q", *range(10))
    connection = broker.connection()
    inbox = Inbox(on_message=fail)
    broker.consumer(connection, "q", inbox, prefetch_count=prefetch)
    running = pump(connection)

    with pytest.raises(CallbackError):
        running.until(inbox.has(1))
    inbox.on_message = None
    running.until(inbox.has(10))

    assert inbox.bodies == list(range(10))


@pytest.mark.parametrize("prefetch", [0, 8])
def test_after_an_error_in_a_callback_the_channel_can_be_closed(
    broker: Broker, pump: PumpFactory, prefetch: int
) -> None:
    broker.send("q", *range(10))
    connection = broker.connection()
    channel = connection.channel()
    inbox = Inbox(on_message=fail)
    broker.consumer(channel, "q", inbox, prefetch_count=prefetch)

    with pytest.raises(CallbackError):
        pump(connection).until(inbox.has(1))
    channel.close()

    assert broker.get_all("q") == list(range(1, 10))


@pytest.mark.phonon_only("stock waits for ever for a reply that it has read already")
@pytest.mark.parametrize("prefetch", [0, 8])
def test_closing_the_channel_inside_a_callback(
    broker: Broker, pump: PumpFactory, prefetch: int
) -> None:
    broker.send("q", *range(10))
    connection = broker.connection()
    channel, keeper = connection.channel(), connection.channel()
    inbox, other = Inbox(), Inbox()
    broker.consumer(channel, "q", inbox, prefetch_count=prefetch)
    broker.consumer(keeper, "other", other)

    def close(message: Message) -> None:
        message.ack()
        channel.close()

    inbox.on_message = close
    running = pump(connection)
    running.until(inbox.has(1))
    broker.send("other", "still here")
    running.until(other.has(1))

    assert inbox.bodies == [0]
    assert broker.get_all("q") == list(range(1, 10))
