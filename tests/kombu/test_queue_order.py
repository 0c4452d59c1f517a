"""Several queues on one channel: who is served next, and several channels on one connection."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kombu.exam import Broker, Inbox, PumpFactory


def consume(
    broker: Broker, pump: PumpFactory, names: list[str], count: int, prefetch: int, **settings: Any
) -> list[str]:
    """Consume ``count`` messages from several queues; returns the queue of each, in order."""
    connection = broker.connection(**settings)
    inbox = Inbox()
    broker.consumer(connection, names, inbox, prefetch_count=prefetch)
    pump(connection).until(inbox.has(count))
    connection.release()
    return [message.payload for message in inbox.messages[:count]]


def fill(broker: Broker, names: list[str], count: int) -> None:
    for name in names:
        broker.send(name, *[name] * count)


def test_round_robin_serves_every_queue_in_turn(broker: Broker, pump: PumpFactory) -> None:
    names = ["a", "b", "c"]
    fill(broker, names, 20)

    order = consume(broker, pump, names, 30, prefetch=1)

    for start in range(0, 30, 6):
        window = order[start : start + 6]
        assert {name: window.count(name) for name in names} == {"a": 2, "b": 2, "c": 2}, order


@pytest.mark.real_server("fakeredis takes 10 ms and more for a command: too slow for so many")
@pytest.mark.parametrize("prefetch", [0, 4, 8])
def test_round_robin_starves_no_queue_when_claiming_in_batches(
    broker: Broker, pump: PumpFactory, prefetch: int
) -> None:
    names = ["a", "b", "c"]
    fill(broker, names, 150)

    order = consume(broker, pump, names, 300, prefetch=prefetch)

    for name in names:
        assert 50 <= order.count(name) <= 150, {name: order.count(name) for name in names}


@pytest.mark.real_server("fakeredis takes 10 ms and more for a command: too slow for so many")
def test_a_quiet_queue_is_served_beside_a_busy_one(broker: Broker, pump: PumpFactory) -> None:
    fill(broker, ["busy"], 200)
    connection = broker.connection()
    inbox = Inbox()
    broker.consumer(connection, ["busy", "quiet"], inbox, prefetch_count=4)
    running = pump(connection)
    running.until(inbox.has(20))

    broker.send("quiet", "quiet")
    running.until(lambda: "quiet" in inbox.bodies)

    assert inbox.bodies.index("quiet") < 150


@pytest.mark.parametrize("prefetch", [1, 4])
def test_sorted_serves_the_first_by_name_as_long_as_it_has_messages(
    broker: Broker, pump: PumpFactory, prefetch: int
) -> None:
    fill(broker, ["c", "a", "b"], 8)

    options = {"queue_order_strategy": "sorted"}
    order = consume(broker, pump, ["c", "a", "b"], 24, prefetch, transport_options=options)

    assert order == ["a"] * 8 + ["b"] * 8 + ["c"] * 8


@pytest.mark.parametrize("prefetch", [1, 4])
def test_priority_serves_the_first_declared_as_long_as_it_has_messages(
    broker: Broker, pump: PumpFactory, prefetch: int
) -> None:
    fill(broker, ["c", "a", "b"], 8)

    options = {"queue_order_strategy": "priority"}
    order = consume(broker, pump, ["c", "a", "b"], 24, prefetch, transport_options=options)

    assert order == ["c"] * 8 + ["a"] * 8 + ["b"] * 8


def test_under_priority_a_message_for_the_first_queue_overtakes(
    broker: Broker, pump: PumpFactory
) -> None:
    fill(broker, ["low"], 10)
    connection = broker.connection(transport_options={"queue_order_strategy": "priority"})
    inbox = Inbox(ack=False)
    broker.consumer(connection, ["high", "low"], inbox, prefetch_count=1)
    running = pump(connection)
    running.until(inbox.has(1))
    broker.send("high", "high")

    for count in range(1, 4):
        inbox.messages[-1].ack()
        running.until(inbox.has(count + 1))

    assert inbox.bodies == ["low", "high", "low", "low"]


def test_every_channel_gets_the_messages_of_its_queue(broker: Broker, pump: PumpFactory) -> None:
    connection = broker.connection()
    inboxes = {name: Inbox() for name in ("a", "b", "c", "d")}
    for name, inbox in inboxes.items():
        broker.consumer(connection.channel(), name, inbox)
    running = pump(connection)
    for number in range(10):
        for name in inboxes:
            broker.send(name, [name, number])

    running.until(lambda: all(inbox.count >= 10 for inbox in inboxes.values()))

    for name, inbox in inboxes.items():
        assert inbox.bodies == [[name, number] for number in range(10)]


def test_closing_one_channel_leaves_the_others_running(broker: Broker, pump: PumpFactory) -> None:
    connection = broker.connection()
    first, second = connection.channel(), connection.channel()
    doomed, kept = Inbox(ack=False), Inbox()
    broker.consumer(first, "a", doomed)
    broker.consumer(second, "b", kept)
    running = pump(connection)
    broker.send("a", "one")
    running.until(doomed.has(1))

    first.close()
    broker.send("a", "two")
    broker.send("b", "three")
    running.until(kept.has(1))
    running.run(0.1)

    assert doomed.count == 1
    assert kept.bodies == ["three"]
    assert sorted(broker.get_all("a")) == ["one", "two"]


def test_channels_come_and_go(broker: Broker, pump: PumpFactory) -> None:
    """No socket, queue or consumer of a closed channel gets in the way of the next one."""
    connection = broker.connection()
    for number in range(10):
        channel = connection.channel()
        inbox = Inbox()
        broker.consumer(channel, "q", inbox, prefetch_count=1)
        running = pump(connection)
        broker.send("q", number)
        running.until(inbox.has(1))
        assert inbox.bodies == [number]
        channel.close()

    assert broker.get_all("q") == []
