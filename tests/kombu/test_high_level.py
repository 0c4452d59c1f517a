"""What programs use on top of channels: simple queues, pools, mixins and helpers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from queue import Empty
from typing import Any

import pytest
from kombu import Connection, Message, Queue, eventloop, pools
from kombu.common import itermessages
from kombu.exceptions import ConnectionLimitExceeded
from kombu.mixins import ConsumerMixin, ConsumerProducerMixin

from tests.kombu.exam import Broker, Inbox
from tests.servers import wait_for

# Simple queues -------------------------------------------------------------------------------


def test_a_simple_queue(broker: Broker) -> None:
    with broker.connection() as connection:
        queue = connection.SimpleQueue("simple")
        for body in ({"a": 1}, "text", [3]):
            queue.put(body)
        assert queue.qsize() == len(queue) == 3

        received = []
        while len(received) < 3:
            message = queue.get(timeout=5)
            received.append(message.payload)
            message.ack()
        assert received == [{"a": 1}, "text", [3]]

        with pytest.raises(queue.Empty):
            queue.get_nowait()
        start = time.monotonic()
        with pytest.raises(queue.Empty):
            queue.get(timeout=0.2)
        assert 0.15 < time.monotonic() - start < 1
        queue.close()


def test_a_simple_queue_blocks_until_there_is_a_message(broker: Broker) -> None:
    with broker.connection() as connection, broker.connection() as other:
        queue = connection.SimpleQueue("simple")
        timer = threading.Timer(0.3, lambda: other.SimpleQueue("simple").put("late"))
        timer.start()
        try:
            message = queue.get(block=True, timeout=10)
        finally:
            timer.join()
        assert message.payload == "late"
        message.ack()


def test_clearing_a_simple_queue(broker: Broker) -> None:
    with broker.connection() as connection:
        queue = connection.SimpleQueue("simple")
        for number in range(4):
            queue.put(number)
        assert queue.clear() == 4
        with pytest.raises(Empty):
            queue.get_nowait()


def test_a_simple_queue_gives_back_what_was_not_acknowledged(broker: Broker) -> None:
    with broker.connection() as connection:
        queue = connection.SimpleQueue("simple")
        queue.put("work")
        queue.get(timeout=5)
        queue.close()

    with broker.connection() as connection:
        message = connection.SimpleQueue("simple").get(timeout=5)
        assert message.payload == "work"
        message.ack()


def test_a_simple_buffer_needs_no_acknowledgement(broker: Broker) -> None:
    with broker.connection() as connection:
        buffer = connection.SimpleBuffer("buffer")
        buffer.put("gone once read")
        assert buffer.get(timeout=5).payload == "gone once read"
        buffer.close()

    assert broker.get_all("buffer") == []


# Pools ---------------------------------------------------------------------------------------


@pytest.fixture
def fresh_pools() -> Iterator[None]:
    """kombu's global pools, emptied afterwards."""
    yield
    pools.reset()


@pytest.mark.usefixtures("fresh_pools")
def test_producer_pools(broker: Broker) -> None:
    connection = broker.connection()
    for number in range(20):
        with pools.producers[connection].acquire(block=True) as producer:
            producer.publish(number, routing_key="q", declare=[Queue("q")])

    assert broker.get_all("q") == list(range(20))


@pytest.mark.usefixtures("fresh_pools")
def test_producers_of_a_pool_in_threads(broker: Broker) -> None:
    pool = broker.connection().Pool(4)

    def publish(thread: int) -> None:
        for number in range(25):
            with pool.acquire(block=True) as connection:
                connection.Producer().publish([thread, number], routing_key="q")

    threads = [threading.Thread(target=publish, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.force_close_all()

    bodies = broker.get_all("q")
    assert sorted(bodies) == [[thread, number] for thread in range(6) for number in range(25)]
    for thread in range(6):
        assert [n for t, n in bodies if t == thread] == list(range(25))


def test_a_connection_pool_has_a_limit(broker: Broker) -> None:
    pool = broker.connection().Pool(1)
    with pool.acquire() as connection:
        connection.connect()
        with pytest.raises(ConnectionLimitExceeded):
            pool.acquire()
    pool.force_close_all()


def test_a_channel_pool(broker: Broker) -> None:
    connection = broker.connection()
    pool = connection.ChannelPool(2)
    with pool.acquire() as first, pool.acquire() as second:
        assert first.channel_id != second.channel_id
        connection.Producer(first).publish("x", routing_key="q", declare=[Queue("q")])

    assert broker.get_all("q") == ["x"]


# Mixins and helpers --------------------------------------------------------------------------


class Echo(ConsumerProducerMixin):
    """Answers every message to the queue that it names in ``reply_to``."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def get_consumers(self, Consumer: Any, channel: Any) -> list[Any]:
        return [Consumer(Queue("rpc"), on_message=self.answer, prefetch_count=2)]

    def answer(self, message: Message) -> None:
        self.producer.publish(
            message.payload * 2, routing_key=message.properties["reply_to"],
            correlation_id=message.properties["correlation_id"],
        )  # fmt: skip
        message.ack()


def test_remote_calls_by_a_consumer_producer_mixin(broker: Broker) -> None:
    echo = Echo(broker.connection())
    thread = threading.Thread(target=echo.run, daemon=True)
    thread.start()
    broker.send("rpc", 1, "x", [0], reply_to="answers", correlation_id="c")
    try:
        answers = broker.take("answers", 3)
    finally:
        echo.should_stop = True
        thread.join(10)

    assert [message.payload for message in answers] == [2, "xx", [0, 0]]
    assert {message.properties["correlation_id"] for message in answers} == {"c"}
    assert not thread.is_alive()


class Collector(ConsumerMixin):
    """Collects what arrives, and notes every new connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.inbox = Inbox()
        self.connected = 0

    def get_consumers(self, Consumer: Any, channel: Any) -> list[Any]:
        return [Consumer([Queue("a"), Queue("b")], on_message=self.inbox)]

    def on_consume_ready(self, *args: Any, **kwargs: Any) -> None:
        self.connected += 1


@pytest.mark.real_server("fakeredis does not break the connection at CLIENT KILL")
def test_a_consumer_mixin_survives_the_loss_of_its_connection(broker: Broker) -> None:
    collector = Collector(broker.connection())
    thread = threading.Thread(target=collector.run, daemon=True)
    thread.start()
    try:
        wait_for(lambda: collector.connected == 1)
        broker.send("a", 1)
        wait_for(collector.inbox.has(1))
        broker.client.client_kill_filter(_type="normal", skipme=True)
        broker.send("b", 2)
        wait_for(collector.inbox.has(2), 20)
    finally:
        collector.should_stop = True
        thread.join(10)

    assert collector.inbox.bodies == [1, 2]
    assert not thread.is_alive()


def test_eventloop_and_itermessages(broker: Broker) -> None:
    broker.send("q", 1, 2, 3)
    connection = broker.connection()
    inbox = Inbox()
    broker.consumer(connection, "q", inbox)
    for _ in eventloop(connection, limit=3, timeout=1, ignore_timeouts=True):
        pass
    assert inbox.bodies == [1, 2, 3]

    broker.send("r", "x", "y")
    with broker.connection() as other:
        found = itermessages(other, other.default_channel, Queue("r"), limit=2, no_ack=True)
        assert [body for body, _ in found] == ["x", "y"]


def test_autoretry_and_ensure(broker: Broker) -> None:
    connection = broker.connection()
    calls = []

    def work(channel: Any) -> int:
        calls.append(channel)
        if len(calls) == 1:
            raise ConnectionResetError("the first time")
        return int(Queue("q", channel=channel).queue_declare().message_count)

    broker.send("q", 1)
    result, _ = connection.autoretry(work, channel=connection.default_channel)()

    assert result == 1
    assert len(calls) == 2
