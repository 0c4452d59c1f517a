"""Threads, forked children, and many consumers of one queue."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import redis
from kombu import Connection, Exchange, Queue

from phonon_kombu.transport import channel
from tests.kombu.exam import Broker, DrainPump, Inbox, PumpFactory
from tests.kombu.peer import ROOT
from tests.servers import wait_for

# Threads -------------------------------------------------------------------------------------


def run_threads(count: int, work: Callable[[int], Any]) -> None:
    """Run ``work(number)`` in several threads; raises the first error of any of them."""
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.real_server("fakeredis takes 10 ms and more for a command: too slow for so many")
@pytest.mark.parametrize("channels", ["one channel", "a channel each"])
@pytest.mark.parametrize("exchange", ["", "x"])
def test_threads_publish_over_one_connection(broker: Broker, channels: str, exchange: str) -> None:
    connection = broker.connection()
    queue = Queue("q", Exchange(exchange), routing_key="q") if exchange else Queue("q")
    queue(connection.default_channel).declare()

    def publish(thread: int) -> None:
        shared = channels == "one channel"
        channel = connection.default_channel if shared else connection.channel()
        producer = connection.Producer(channel, exchange=queue.exchange)
        for number in range(200):
            producer.publish([thread, number], routing_key="q", headers={"thread": thread})

    run_threads(3, publish)

    bodies = broker.get_all("q")
    assert sorted(bodies) == [[thread, number] for thread in range(3) for number in range(200)]


@pytest.mark.real_server("fakeredis takes 10 ms and more for a command: too slow for so many")
def test_threads_publish_while_the_connection_consumes(broker: Broker, pump: PumpFactory) -> None:
    connection = broker.connection()
    inbox = Inbox()
    broker.consumer(connection, "q", inbox, prefetch_count=8)
    running = pump(connection)

    def publish(thread: int) -> None:
        producer = connection.Producer()
        for number in range(100):
            producer.publish([thread, number], routing_key="q")

    threads = [threading.Thread(target=publish, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    running.until(inbox.has(200), 30)
    for thread in threads:
        thread.join()

    assert sorted(inbox.bodies) == [[t, n] for t in range(2) for n in range(100)]


# Forked children -----------------------------------------------------------------------------


def in_a_forked_child(work: Callable[[], Any], exit_code: int = 0) -> None:
    """Run ``work`` in a child made by fork that ends as multiprocessing's children end."""
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(30)
    if child.is_alive():
        child.kill()
        child.join()
        raise AssertionError("the child hangs")
    assert child.exitcode == exit_code


def test_a_child_publishes_over_an_inherited_connection(broker: Broker) -> None:
    connection = broker.connection()
    producer = connection.Producer(routing_key="q")
    producer.publish("parent before", declare=[Queue("q")])

    in_a_forked_child(lambda: [producer.publish(["child", n]) for n in range(50)])
    for number in range(50):
        producer.publish(["parent", number])

    bodies = broker.get_all("q")
    assert bodies[0] == "parent before"
    assert sorted(bodies[1:]) == [[who, n] for who in ("child", "parent") for n in range(50)]


@pytest.mark.real_server("fakeredis takes 10 ms and more for a command: too slow for so many")
def test_parent_and_child_publish_at_the_same_time(broker: Broker) -> None:
    connection = broker.connection()
    producer = connection.Producer(routing_key="q")
    producer.publish("start", declare=[Queue("q")])
    child = multiprocessing.get_context("fork").Process(
        target=lambda: [producer.publish(["child", n]) for n in range(150)]
    )
    child.start()
    for number in range(150):
        producer.publish(["parent", number])
    child.join(30)

    assert child.exitcode == 0
    bodies = broker.get_all("q")
    assert sorted(bodies[1:]) == [[who, n] for who in ("child", "parent") for n in range(150)]


def test_a_child_does_not_give_back_what_its_parent_holds(
    broker: Broker, pump: PumpFactory
) -> None:
    broker.send("q", *range(6))
    connection = broker.connection()
    inbox = Inbox(ack=False)
    broker.consumer(connection, "q", inbox, prefetch_count=4)
    running = pump(connection)
    running.until(inbox.has(4))

    in_a_forked_child(lambda: None)
    assert broker.size("q") == 2
    for message in list(inbox.messages):
        message.ack()
    running.until(inbox.has(6))
    for message in inbox.messages[4:]:
        message.ack()
    connection.release()

    assert inbox.bodies == [0, 1, 2, 3, 4, 5]
    assert broker.get_all("q") == []


def test_a_child_consumes_by_a_clone_while_the_parent_goes_on(
    broker: Broker, pump: PumpFactory
) -> None:
    connection = broker.connection()
    inbox = Inbox()
    broker.consumer(connection, "parent's", inbox)
    running = pump(connection)
    broker.send("parent's", 1)
    running.until(inbox.has(1))
    broker.send("child's", "x")

    def consume() -> None:
        got = Inbox()
        with connection.clone() as own:
            broker.consumer(own, "child's", got)
            DrainPump(own).until(got.has(1))
        assert got.bodies == ["x"]

    in_a_forked_child(consume)
    broker.send("parent's", 2)
    running.until(inbox.has(2))

    assert inbox.bodies == [1, 2]
    assert broker.get_all("child's") == []


def test_a_child_that_is_killed_does_not_disturb_its_parent(broker: Broker) -> None:
    connection = broker.connection()
    producer = connection.Producer(routing_key="q")
    producer.publish(1, declare=[Queue("q")])

    in_a_forked_child(lambda: (producer.publish(2), os.kill(os.getpid(), 9)), exit_code=-9)
    producer.publish(3)

    assert broker.get_all("q") == [1, 2, 3]


def test_a_child_that_exits_does_not_give_back_what_its_parent_holds(broker: Broker) -> None:
    """The child ends as a program ends, with all that is registered to be done at exit."""
    broker.send("q", *range(5))
    peer = broker.peer()
    peer("hold", queue="q", count=2)

    assert peer("fork_a_child_that_exits") == 0
    assert broker.size("q") == 3
    peer("ack_all")
    peer.leave()

    assert broker.get_all("q") == [2, 3, 4]


@pytest.mark.phonon_only("stock's child gives back what its parent works on: it runs twice")
@pytest.mark.parametrize("how", ["collect", "release"])
def test_a_child_may_close_the_connection_that_it_inherited(
    broker: Broker, pump: PumpFactory, how: str
) -> None:
    broker.send("q", *range(4))
    connection = broker.connection()
    inbox = Inbox(ack=False)
    broker.consumer(connection, "q", inbox, prefetch_count=2)
    running = pump(connection)
    running.until(inbox.has(2))

    in_a_forked_child(getattr(connection, how))
    assert broker.size("q") == 2
    for message in inbox.messages[:2]:
        message.ack()
    running.until(inbox.has(4))

    assert inbox.bodies == [0, 1, 2, 3]


@pytest.mark.phonon_only("stock's child takes what its parent is waiting for")
def test_a_child_consumes_over_an_inherited_connection(broker: Broker, pump: PumpFactory) -> None:
    """What it acknowledges is done, what it holds at its end is given back, and of its parent's
    messages it says nothing."""
    broker.send("q", 0)
    connection = broker.connection()
    inbox = Inbox(ack=False)
    broker.consumer(connection, "q", inbox, prefetch_count=1)
    running = pump(connection)
    running.until(inbox.has(1))
    (held,) = broker.client.zrange("feed.claimed:{q}", 0, -1)
    broker.send("q", 1, 2)

    def child() -> None:
        inbox.messages[0].ack()
        own = DrainPump(connection)
        own.until(inbox.has(2))
        inbox.messages[1].ack()
        # Nothing is claimed meanwhile: the acknowledgement leaves by itself.
        wait_for(lambda: broker.client.get("feed.finishes:{q}") == b"1", 10)
        own.until(inbox.has(3))
        channel._at_exit()

    in_a_forked_child(child)
    assert broker.client.zrange("feed.claimed:{q}", 0, -1) == [held]
    assert broker.size("q") == 1
    inbox.messages[0].ack()
    running.until(inbox.has(2))
    assert inbox.bodies == [0, 2]


# Many consumers ------------------------------------------------------------------------------


@pytest.mark.real_server("fakeredis takes 10 ms and more for a command: too slow for so many")
def test_thirty_consumers_get_each_of_2000_messages_once(broker: Broker) -> None:
    """Three processes of ten consumers each, every one with a connection of its own."""
    total = 2_000
    program = "from tests.kombu.test_processes import consume_by_ten; consume_by_ten()"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, broker.url, broker.server.url("redis", 15)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        with broker.connection() as connection:
            producer = connection.Producer(routing_key="q")
            with producer.batch():
                for number in range(total):
                    producer.publish(number, declare=[Queue("q")])
        arrivals = broker.server.client(15)
        wait_for(lambda: int(arrivals.get("arrived") or 0) >= total, 50)
        outputs = [process.communicate(timeout=50)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()

    counts = Counter(int(word) for output in outputs for word in output.split())
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(counts) == list(range(total))
    assert set(counts.values()) == {1}
    assert broker.get_all("q") == []
    assert min(len(output.split()) for output in outputs) > 0, "a process got nothing"


def consume_by_ten() -> None:
    """Ten threads consume until the input ends; prints the numbers that they got."""
    url, arrivals = sys.argv[1], redis.Redis.from_url(sys.argv[2])
    inboxes = [Inbox(on_message=lambda message: arrivals.incr("arrived")) for _ in range(10)]
    all_wait = threading.Barrier(10, action=lambda: print("ready", flush=True))
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()

    def consume(number: int) -> None:
        with Connection(url) as connection:
            inbox = inboxes[number]
            with connection.Consumer(Queue("q"), on_message=inbox, prefetch_count=5):
                all_wait.wait(30)
                DrainPump(connection).until(stop.is_set, 50)

    run_threads(10, consume)
    print(*[body for inbox in inboxes for body in inbox.bodies])
