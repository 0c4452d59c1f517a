"""Prefetch: never more messages in hand than allowed, and every free place is used."""

from __future__ import annotations

import random
import threading
from collections import deque

import pytest
from kombu import Message

from tests.kombu.exam import Broker, DrainPump, Inbox, Pump, PumpFactory

SETTLE_SECONDS = 0.15


@pytest.mark.parametrize("prefetch", [1, 2, 8])
def test_never_more_than_the_prefetch_count(
    broker: Broker, pump: PumpFactory, prefetch: int
) -> None:
    broker.send("q", *range(prefetch + 6))
    connection = broker.connection()
    inbox = Inbox(ack=False)
    broker.consumer(connection, "q", inbox, prefetch_count=prefetch)
    running = pump(connection)

    running.until(inbox.has(prefetch))
    running.run(SETTLE_SECONDS)
    assert inbox.bodies == list(range(prefetch))

    inbox.messages[0].ack()
    running.until(inbox.has(prefetch + 1))
    running.run(SETTLE_SECONDS)
    assert inbox.count == prefetch + 1

    for message in inbox.messages[1:4]:
        message.ack()
    running.until(inbox.has(prefetch + min(4, prefetch + 1)))
    running.run(SETTLE_SECONDS)
    assert inbox.count == prefetch + min(4, prefetch + 1)


@pytest.mark.real_server("fakeredis takes 10 ms and more for a command: too slow for so many")
def test_a_random_walk_of_acknowledgements(broker: Broker, pump: PumpFactory) -> None:
    """Acknowledge in any order: the prefetch count is kept, everything arrives once, in order."""
    total, prefetch = 150, 5
    broker.send("q", *range(total))
    connection = broker.connection()
    in_hand: list[Message] = []
    most = 0

    def on_message(message: Message) -> None:
        nonlocal most
        in_hand.append(message)
        most = max(most, len(in_hand))

    inbox = Inbox(ack=False, on_message=on_message)
    broker.consumer(connection, "q", inbox, prefetch_count=prefetch)
    running = pump(connection)
    dice = random.Random(3)
    while inbox.count < total or in_hand:
        running.until(lambda: len(in_hand) == min(prefetch, total - inbox.count + len(in_hand)))
        for _ in range(dice.randint(1, len(in_hand))):
            in_hand.pop(dice.randrange(len(in_hand))).ack()

    assert most == prefetch
    assert inbox.bodies == list(range(total))
    connection.release()
    assert broker.get_all("q") == []


def test_no_limit_means_all_of_them(broker: Broker, pump: PumpFactory) -> None:
    broker.send("q", *range(120))
    connection = broker.connection()
    inbox = Inbox(ack=False)
    broker.consumer(connection, "q", inbox, prefetch_count=0)

    pump(connection).until(inbox.has(120))

    assert inbox.bodies == list(range(120))


def test_what_exceeds_the_prefetch_count_is_left_for_others(
    broker: Broker, pump: PumpFactory
) -> None:
    broker.send("q", *range(20))
    connection = broker.connection()
    inbox = Inbox(ack=False)
    broker.consumer(connection, "q", inbox, prefetch_count=8)
    running = pump(connection)
    running.until(inbox.has(8))
    running.run(SETTLE_SECONDS)

    assert broker.size("q") == 12
    assert broker.get_all("q") == list(range(8, 20))
    assert inbox.bodies == list(range(8))


def test_a_slow_consumer_claims_no_more_than_it_may_hold(broker: Broker) -> None:
    """Stop draining in the middle of a batch: others can have all but the prefetch count."""
    broker.send("q", *range(20))
    connection = broker.connection()
    inbox = Inbox(ack=False)
    broker.consumer(connection, "q", inbox, prefetch_count=8)
    DrainPump(connection).until(inbox.has(1))

    others = broker.get_all("q")

    assert len(others) >= 12
    assert others == list(range(20 - len(others), 20))


def test_the_prefetch_count_changes_while_running(broker: Broker, pump: PumpFactory) -> None:
    broker.send("q", *range(30))
    connection = broker.connection()
    inbox = Inbox(ack=False)
    consumer = broker.consumer(connection, "q", inbox, prefetch_count=1)
    running = pump(connection)
    running.until(inbox.has(1))

    consumer.qos(prefetch_count=6)
    running.until(inbox.has(6))
    running.run(SETTLE_SECONDS)
    assert inbox.count == 6

    consumer.qos(prefetch_count=2)
    for message in inbox.messages[:4]:
        message.ack()
    running.run(SETTLE_SECONDS)
    assert inbox.count == 6, "two are still in hand: there is no free place yet"
    inbox.messages[4].ack()
    running.until(inbox.has(7))
    running.run(SETTLE_SECONDS)
    assert inbox.count == 7

    consumer.qos(prefetch_count=0)
    running.until(inbox.has(30))
    assert inbox.bodies == list(range(30))


def test_the_prefetch_count_changes_inside_a_callback(broker: Broker, pump: PumpFactory) -> None:
    broker.send("q", *range(10))
    connection = broker.connection()
    inbox = Inbox(ack=False)
    consumer = broker.consumer(connection, "q", inbox, prefetch_count=8)
    inbox.on_message = lambda message: inbox.count == 3 and consumer.qos(prefetch_count=3)
    running = pump(connection)

    running.until(inbox.has(3))
    running.run(SETTLE_SECONDS)
    assert inbox.bodies == [0, 1, 2]

    for message in inbox.messages[:3]:
        message.ack()
    running.until(inbox.has(6))
    running.run(SETTLE_SECONDS)
    assert inbox.bodies == [0, 1, 2, 3, 4, 5]


def test_consumers_of_one_channel_share_its_prefetch_count(
    broker: Broker, pump: PumpFactory
) -> None:
    for name in ("a", "b"):
        broker.send(name, *range(5))
    connection = broker.connection()
    inbox = Inbox(ack=False)
    broker.consumer(connection, ["a", "b"], inbox, prefetch_count=3)
    running = pump(connection)

    running.until(inbox.has(3))
    running.run(SETTLE_SECONDS)
    assert inbox.count == 3

    for message in inbox.messages[:2]:
        message.ack()
    running.until(inbox.has(5))
    running.run(SETTLE_SECONDS)
    assert inbox.count == 5


def test_channels_have_prefetch_counts_of_their_own(broker: Broker, pump: PumpFactory) -> None:
    for name in ("a", "b"):
        broker.send(name, *range(12))
    connection = broker.connection()
    small, large = Inbox(ack=False), Inbox(ack=False)
    broker.consumer(connection.channel(), "a", small, prefetch_count=1)
    broker.consumer(connection.channel(), "b", large, prefetch_count=8)
    running = pump(connection)

    running.until(lambda: small.count >= 1 and large.count >= 8)
    running.run(SETTLE_SECONDS)
    assert (small.count, large.count) == (1, 8)

    small.messages[0].ack()
    running.until(small.has(2))
    running.run(SETTLE_SECONDS)
    assert (small.count, large.count) == (2, 8)


def test_acknowledgements_from_another_thread(broker: Broker, pump: PumpFactory) -> None:
    """As in Celery's thread pool: the loop delivers, a worker thread acknowledges."""
    broker.send("q", *range(60))
    connection = broker.connection()
    todo: deque[Message] = deque()
    arrived, stop = threading.Semaphore(0), threading.Event()

    def on_message(message: Message) -> None:
        todo.append(message)
        arrived.release()

    def work() -> None:
        while not stop.is_set():
            if arrived.acquire(timeout=0.1):
                todo.popleft().ack()

    inbox = Inbox(ack=False, on_message=on_message)
    broker.consumer(connection, "q", inbox, prefetch_count=2)
    running: Pump = pump(connection)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        running.until(lambda: inbox.count == 60 and not todo, 30)
    finally:
        stop.set()
        thread.join()
    connection.release()

    assert inbox.bodies == list(range(60))
    assert broker.get_all("q") == []
