"""Reject, requeue, and what goes back when a channel, a connection or a process ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kombu import Connection, Message, Queue

from phonon_kombu.store.keys import QueueKeys
from phonon_kombu.thoonk import Thoonk
from tests.kombu.exam import Broker, DrainPump, Inbox, PumpFactory
from tests.servers import wait_for


def deliveries(message: Message) -> int:
    """Return what the message says about failed deliveries before this one."""
    return int(message.headers.get("x-delivery-count", 0))


def is_redelivered(message: Message) -> bool:
    return bool(message.headers.get("redelivered") or message.delivery_info.get("redelivered"))


def test_a_rejected_message_is_gone(broker: Broker, pump: PumpFactory) -> None:
    broker.send("q", 1, 2)
    connection = broker.connection()
    inbox = Inbox(ack=False, on_message=lambda message: message.reject())
    broker.consumer(connection, "q", inbox)

    pump(connection).until(inbox.has(2))
    connection.release()

    assert inbox.bodies == [1, 2]
    assert broker.get_all("q") == []


def test_a_requeued_message_comes_again_marked(broker: Broker, pump: PumpFactory) -> None:
    broker.send("q", {"x": "✓"}, headers={"own": "header"}, correlation_id="c")
    connection = broker.connection()
    inbox = Inbox(ack=False)
    broker.consumer(connection, "q", inbox)
    running = pump(connection)
    running.until(inbox.has(1))

    inbox.messages[0].requeue()
    running.until(inbox.has(2))
    inbox.messages[1].ack()
    connection.release()

    first, second = inbox.messages
    assert not is_redelivered(first)
    assert is_redelivered(second)
    assert second.payload == {"x": "✓"}
    assert second.headers["own"] == "header"
    assert second.properties["correlation_id"] == "c"
    assert broker.get_all("q") == []


@pytest.mark.phonon_only("stock tells nobody")
@pytest.mark.parametrize("options", [{}, {"global_keyprefix": "p.", "hash_tags": False}])
def test_listeners_hear_of_a_requeue(
    broker: Broker, pump: PumpFactory, options: dict[str, Any]
) -> None:
    """Once for each; of messages that go back unharmed when a channel ends nothing is told."""
    told: list[tuple[str, str]] = []
    named = {"prefix": options.get("global_keyprefix", ""), "hash_tags": not options}
    with Thoonk(broker.url, **named) as thoonk:  # type: ignore[arg-type]
        thoonk.register_handler("cancel", lambda feed, id: told.append((feed, id)))
        connection = broker.connection(transport_options=options)
        connection.Producer().publish("x", routing_key="q", declare=[Queue("q")])
        inbox = Inbox(ack=False)
        broker.consumer(connection, "q", inbox)
        running = pump(connection)
        running.until(inbox.has(1))
        inbox.messages[0].requeue()
        running.until(inbox.has(2))
        wait_for(lambda: len(told) == 1)
        connection.release()
        job = thoonk.job("q")
        claimed = job.get(timeout=10)
        job.cancel(claimed.id)
        wait_for(lambda: len(told) == 2)
    assert told == [("q", claimed.id)] * 2


@pytest.mark.phonon_only("stock keeps no count")
def test_before_a_failed_message_is_delivered_all_acknowledgements_have_arrived(
    broker: Broker, pump: PumpFactory
) -> None:
    """It may kill the process: what was done before it must not be done again, and not be counted
    as another failure of its neighbours."""
    broker.send("q", *range(4))
    connection = broker.connection()
    left: list[int] = []

    def fail_once(message: Message) -> None:
        if deliveries(message):
            left.append(broker.client.hlen(QueueKeys("q").items))
            message.ack()

    inbox = Inbox(ack=False, on_message=fail_once)
    broker.consumer(connection, "q", inbox)
    running = pump(connection)
    running.until(inbox.has(4))
    for message in reversed(inbox.messages):
        message.requeue()
    running.until(inbox.has(8))
    connection.release()

    assert inbox.bodies[4:] == [0, 1, 2, 3]
    assert left == [4, 3, 2, 1]


@pytest.mark.phonon_only("stock keeps no count")
def test_failed_deliveries_are_counted(broker: Broker, pump: PumpFactory) -> None:
    broker.send("q", "again and again")
    connection = broker.connection()
    inbox = Inbox(ack=False, on_message=lambda message: message.requeue())
    broker.consumer(connection, "q", inbox, prefetch_count=1)

    pump(connection).until(inbox.has(5))

    assert [deliveries(message) for message in inbox.messages[:5]] == [0, 1, 2, 3, 4]
    assert [is_redelivered(message) for message in inbox.messages[:3]] == [False, True, True]


@pytest.mark.phonon_only("stock puts it at the back")
def test_a_requeued_message_is_the_next_one(broker: Broker) -> None:
    broker.send("q", 1, 2, 3)
    with broker.connection() as connection:
        channel = connection.default_channel
        first = channel.basic_get("q")
        first.requeue()
        again = channel.basic_get("q")
        assert again.payload == 1
        second = channel.basic_get("q")
        assert second.payload == 2
        second.requeue()
        again.requeue()

    assert broker.get_all("q") == [1, 2, 3]


@pytest.mark.parametrize("reject", ["requeue", "reject"])
def test_several_requeued_one_by_one_keep_their_order(broker: Broker, reject: str) -> None:
    broker.send("q", *range(6), priority=3)
    if broker.is_phonon:
        broker.send("q", "fresh", priority=3)
    with broker.connection() as connection:
        channel = connection.default_channel
        for message in [channel.basic_get("q") for _ in range(6)]:
            if reject == "requeue":
                message.requeue()
            else:
                channel.basic_reject(message.delivery_tag, requeue=True)
        fresh = ["fresh"] if broker.is_phonon else []
        assert broker.get_all("q") == [*range(6), *fresh]


@pytest.mark.phonon_only("stock puts them at the back")
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
@pytest.mark.parametrize("late", [0, 1, 2, 4])
def test_requeued_and_restored_at_the_end_stand_in_the_order_of_delivery(
    broker: Broker, pump: PumpFactory, order: tuple[int, ...], late: int
) -> None:
    """Whichever of them a consumer gives back itself, and leaves to the closing channel."""
    broker.send("q", *range(8))
    connection = broker.connection()
    inbox = Inbox(ack=False)
    consumer = broker.consumer(connection, "q", inbox, prefetch_count=6)
    pump(connection).until(inbox.has(6))
    consumer.cancel()

    for number in order[late:]:
        inbox.messages[number].requeue()
    connection.release()

    assert broker.get_all("q") == list(range(8))


@pytest.mark.phonon_only("stock puts them at the back")
def test_requeued_ones_that_another_took_do_not_hold_up_the_others(broker: Broker) -> None:
    broker.send("q", *range(5))
    with broker.connection() as connection, broker.connection() as other:
        channel = connection.default_channel
        first, second, third = (channel.basic_get("q") for _ in range(3))
        first.requeue()
        second.requeue()
        taken = other.default_channel.basic_get("q")
        assert taken.payload == 0
        third.requeue()

        assert broker.get_all("q") == [1, 2, 3, 4]


@pytest.mark.phonon_only("stock puts it at the back")
def test_a_requeue_between_many_deliveries(broker: Broker, pump: PumpFactory) -> None:
    broker.send("q", *range(10))
    connection = broker.connection()
    inbox = Inbox(ack=False)
    broker.consumer(connection, "q", inbox, prefetch_count=4)
    running = pump(connection)
    running.until(inbox.has(4))

    inbox.messages[2].requeue()
    running.until(inbox.has(5))

    assert inbox.bodies == [0, 1, 2, 3, 2]


@pytest.mark.phonon_only("stock acknowledges that one only")
def test_acknowledging_all_up_to_one(broker: Broker) -> None:
    broker.send("q", *range(5))
    with broker.connection() as connection:
        channel = connection.default_channel
        messages = [channel.basic_get("q") for _ in range(4)]
        messages[2].ack(multiple=True)

    assert broker.get_all("q") == [3, 4]


def test_recover_gives_everything_back(broker: Broker) -> None:
    broker.send("q", *range(5))
    with broker.connection() as connection:
        channel = connection.default_channel
        for _ in range(3):
            channel.basic_get("q")
        channel.basic_recover(requeue=True)
        assert broker.size("q") == 5

    assert sorted(broker.get_all("q")) == list(range(5))


ENDINGS: dict[str, Callable[[Connection], None]] = {
    "channel.close": lambda connection: connection.default_channel.close(),
    "connection.close": lambda connection: connection.close(),
    "connection.release": lambda connection: connection.release(),
    "connection.collect": lambda connection: connection.collect(),
}


@pytest.mark.parametrize("ending", sorted(ENDINGS.keys() - {"connection.collect"}))
def test_a_message_in_hand_goes_back(broker: Broker, ending: str) -> None:
    broker.send("q", "only")
    connection = broker.connection()
    inbox = Inbox(ack=False)
    broker.consumer(connection, "q", inbox)
    DrainPump(connection).until(inbox.has(1))

    ENDINGS[ending](connection)

    (message,) = broker.take("q", 1)
    assert message.payload == "only"
    assert is_redelivered(message)


@pytest.mark.phonon_only("stock gives them back in reverse order")
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("prefetch", [0, 3, 5])
def test_messages_in_hand_go_back_to_the_front_in_order(
    broker: Broker, pump: PumpFactory, ending: str, prefetch: int
) -> None:
    broker.send("q", *range(10))
    connection = broker.connection()
    inbox = Inbox(ack=False)
    broker.consumer(connection, "q", inbox, prefetch_count=prefetch)
    pump(connection).until(inbox.has(3))
    seen = inbox.count
    inbox.messages[1].ack()

    ENDINGS[ending](connection)
    wait_for(lambda: broker.size("q") == 9, message="not all came back")

    messages = broker.take("q", 9)
    assert [message.payload for message in messages] == [0, *range(2, 10)]
    marks = {message.payload: is_redelivered(message) for message in messages}
    assert all(marks[n] for n in range(seen) if n != 1)
    assert not any(marks[n] for n in range(seen, 10))


def test_what_was_acknowledged_does_not_come_back(broker: Broker, pump: PumpFactory) -> None:
    broker.send("q", *range(10))
    connection = broker.connection()
    inbox = Inbox()
    broker.consumer(connection, "q", inbox, prefetch_count=4)
    pump(connection).until(inbox.has(10))

    connection.release()

    assert broker.get_all("q") == []


@pytest.mark.parametrize("priority", [0, 9])
def test_a_process_that_ends_without_closing_gives_back_what_it_holds(
    broker: Broker, priority: int
) -> None:
    broker.send("q", *range(5), priority=priority)
    peer = broker.peer()
    assert peer("hold", queue="q", count=3) == [0, 1, 2]
    assert broker.size("q") == 2

    assert peer.leave() == 0

    assert sorted(broker.get_all("q")) == list(range(5))


@pytest.mark.phonon_only("stock gives them back in reverse order")
def test_a_process_that_ends_gives_back_in_order(broker: Broker) -> None:
    broker.send("q", *range(5))
    peer = broker.peer()
    peer("hold", queue="q", count=3)

    peer.leave()

    assert broker.get_all("q") == list(range(5))
