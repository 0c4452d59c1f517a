"""Priorities: 0 first by default, ten exact levels on phonon, four steps on stock."""

from __future__ import annotations

import random
from typing import Any

import pytest
from kombu import Queue

from tests.kombu.exam import Broker, DrainPump, Inbox, PumpFactory

LEVELS = range(10)
HIGHEST_FIRST = {"priority_order": "highest_first"}


def level(broker: Broker, priority: int) -> int:
    """Return the level that a priority counts as."""
    return priority if broker.is_phonon else priority // 3 * 3


def send_shuffled(broker: Broker, **settings: Any) -> list[tuple[int, int]]:
    """Publish messages of every priority in mixed order; returns (priority, number) as sent."""
    priorities = [*LEVELS] * 4
    random.Random(7).shuffle(priorities)
    sent = [(priority, number) for number, priority in enumerate(priorities)]
    with broker.connection(**settings) as connection:
        for priority, number in sent:
            connection.Producer().publish(
                [priority, number], routing_key="q", declare=[Queue("q")], priority=priority
            )
    return sent


def received(messages: list[Any]) -> list[tuple[int, int]]:
    return [tuple(message.payload) for message in messages]


def test_the_lowest_number_comes_first(broker: Broker) -> None:
    sent = send_shuffled(broker)

    # Within a level in the order of publishing: sorted() is stable.
    expected = sorted(sent, key=lambda item: level(broker, item[0]))
    assert received(broker.take("q", len(sent))) == expected


def test_by_either_loop_and_in_batches(broker: Broker, pump: PumpFactory) -> None:
    sent = send_shuffled(broker)
    connection = broker.connection()
    inbox = Inbox()
    broker.consumer(connection, "q", inbox)

    pump(connection).until(inbox.has(len(sent)))

    expected = sorted(sent, key=lambda item: level(broker, item[0]))
    assert received(inbox.messages) == expected


def test_get_follows_the_same_order(broker: Broker) -> None:
    sent = send_shuffled(broker)

    expected = sorted(sent, key=lambda item: level(broker, item[0]))
    assert [tuple(body) for body in broker.get_all("q")] == expected


@pytest.mark.phonon_only("stock has one order only")
def test_the_highest_number_comes_first_if_so_configured(broker: Broker) -> None:
    sent = send_shuffled(broker, transport_options=HIGHEST_FIRST)

    messages = broker.take("q", len(sent), transport_options=HIGHEST_FIRST)
    assert received(messages) == sorted(sent, key=lambda item: -item[0])


def test_all_ten_levels_as_priority_steps(broker: Broker) -> None:
    options = {"priority_steps": list(LEVELS)}
    sent = send_shuffled(broker, transport_options=options)

    messages = broker.take("q", len(sent), transport_options=options)
    assert received(messages) == sorted(sent, key=lambda item: item[0])


@pytest.mark.parametrize(("given", "counts_as"), [(-5, 0), (15, 9), (None, 0)])
def test_a_priority_out_of_range_is_moved_into_it(
    broker: Broker, given: int | None, counts_as: int
) -> None:
    with broker.connection() as connection:
        producer = connection.Producer(routing_key="q")
        Queue("q")(connection.default_channel).declare()
        producer.publish("after", priority=9)
        producer.publish("odd", priority=given)
        producer.publish("before", priority=0)
        producer.publish("last", priority=9)

    order = broker.get_all("q")
    assert order == (
        ["before", "after", "odd", "last"] if counts_as == 9 else ["odd", "before", "after", "last"]
    )


def test_an_urgent_message_overtakes_those_that_wait(broker: Broker, pump: PumpFactory) -> None:
    broker.send("q", *range(5), priority=9)
    connection = broker.connection()
    inbox = Inbox(ack=False)
    broker.consumer(connection, "q", inbox, prefetch_count=1)
    running = pump(connection)
    running.until(inbox.has(1))

    broker.send("q", "urgent", priority=0)
    for count in range(1, 6):
        inbox.messages[-1].ack()
        running.until(inbox.has(count + 1))

    assert inbox.bodies == [0, "urgent", 1, 2, 3, 4]


@pytest.mark.phonon_only("stock puts a requeued message at the back of its level")
def test_a_requeued_message_returns_to_the_front_of_its_level(broker: Broker) -> None:
    broker.send("q", "five", priority=5)
    broker.send("q", "also five", priority=5)
    with broker.connection() as connection:
        inbox = Inbox(ack=False)
        broker.consumer(connection, "q", inbox, prefetch_count=1)
        pump = DrainPump(connection)
        pump.until(inbox.has(1))
        broker.send("q", "one", priority=1)
        inbox.messages[0].requeue()
        pump.until(inbox.has(2))
        inbox.messages[1].ack()
        pump.until(inbox.has(3))
        inbox.messages[2].ack()
        pump.until(inbox.has(4))
        inbox.messages[3].ack()

    assert inbox.bodies == ["five", "one", "five", "also five"]
