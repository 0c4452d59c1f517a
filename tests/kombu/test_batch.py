"""``Producer.batch()``: many messages in few round trips."""

from __future__ import annotations

import pytest
from kombu import Connection, Exchange, Queue

from phonon_kombu.transport.batch import BatchPublishError
from tests.kombu.exam import Broker, Inbox, PumpFactory, tune_in
from tests.servers import wait_for
from tests.thoonk.lossy import LossyLine


@pytest.fixture
def connection(broker: Broker) -> Connection:
    """A connection with the queue ``q`` declared."""
    connection = broker.connection()
    Queue("q", channel=connection.default_channel).declare()
    return connection


@pytest.mark.real_server("fakeredis takes 10 ms and more for a command: too slow for so many")
def test_a_batch_arrives_whole_and_in_order(broker: Broker, connection: Connection) -> None:
    producer = connection.Producer(routing_key="q")
    with producer.batch():
        for number in range(250):
            producer.publish(number)

    assert broker.get_all("q") == list(range(250))


def test_a_batch_is_sent_at_its_end_or_when_full(broker: Broker, connection: Connection) -> None:
    producer = connection.Producer(routing_key="q")
    with producer.batch(max_size=10) as batch:
        for number in range(9):
            producer.publish(number)
        assert broker.size("q") == 0
        producer.publish(9)
        # Nothing says that publish() waits until the full batch has arrived.
        wait_for(lambda: broker.size("q") == 10, 5)
        producer.publish(10)
        batch.flush()
        assert broker.size("q") == 11
        producer.publish(11)

    assert broker.get_all("q") == list(range(12))


@pytest.mark.phonon_only("stock waits for the reply to each part of a batch")
@pytest.mark.parametrize("exchange", ["", "direct"])
def test_a_batch_whose_connection_broke_fails_itself_and_no_other(
    broker: Broker, exchange: str
) -> None:
    """Its second part left without waiting for the reply, and somebody else hears of the break."""
    line = LossyLine(broker.server.port)
    try:
        connection = broker.connection(url=f"phonon://127.0.0.1:{line.port}/0")
        spec = Queue("q", Exchange(exchange, "direct") if exchange else None, routing_key="q")
        spec(connection.default_channel).declare()
        channel = connection.default_channel
        batch = channel.create_publish_batch(2)
        line.lose(b"broken")
        for body in ("broken", "too"):
            batch.publish(
                channel.prepare_message(body, 0, "text/plain", "utf-8"),
                exchange=exchange, routing_key="q",
            )  # fmt: skip
        channel.basic_publish(
            channel.prepare_message("whole", 0, "text/plain", "utf-8"), exchange, "q"
        )

        with pytest.raises(BatchPublishError):
            batch.flush()
        with pytest.raises(BatchPublishError):
            batch.flush()
    finally:
        line.close()

    # What was carried out before the break is there; it is the batch's to say that it is unsure.
    assert broker.get_all("q") in (["whole"], ["broken", "too", "whole"])


@pytest.mark.phonon_only("stock publishes without scripts")
def test_a_full_batch_is_sent_to_a_server_that_has_forgotten_the_scripts(
    broker: Broker, connection: Connection
) -> None:
    """A server that was just started knows none either."""
    producer = connection.Producer(routing_key="q")
    producer.publish(0)
    broker.client.script_flush()
    with producer.batch(max_size=10):
        for number in range(1, 11):
            producer.publish(number)
        wait_for(lambda: broker.size("q") == 11, 5)

    assert broker.get_all("q") == list(range(11))


def test_a_batch_that_fails_is_dropped(broker: Broker, connection: Connection) -> None:
    producer = connection.Producer(routing_key="q")
    with pytest.raises(ZeroDivisionError), producer.batch():
        producer.publish("dropped")
        raise ZeroDivisionError

    producer.publish("kept")
    assert broker.get_all("q") == ["kept"]


def test_a_batch_to_named_exchanges(
    broker: Broker, connection: Connection, pump: PumpFactory
) -> None:
    direct, topic = Exchange("d", type="direct"), Exchange("t", type="topic")
    news = Exchange("news", type="fanout")
    listener = broker.connection()
    inbox = Inbox()
    queues = [Queue("one", direct, "k"), Queue("two", topic, "k.#"), Queue("three", topic, "#")]
    for queue in queues:
        queue(connection.default_channel).declare()
    broker.consumer(listener, Queue("heard", news), inbox)
    running = pump(listener)
    tune_in(broker, news, (running, inbox))
    producer = connection.Producer()
    with producer.batch():
        for number in range(5):
            producer.publish(number, exchange=direct, routing_key="k", declare=[direct])
            producer.publish(number, exchange=topic, routing_key="k.x", declare=[topic])
            producer.publish(number, exchange=news, declare=[news])
    running.until(inbox.has(5))

    assert [broker.get_all(q.name) for q in queues] == [list(range(5))] * 3
    assert inbox.bodies == list(range(5))


def test_a_batch_keeps_priorities_and_headers(broker: Broker, connection: Connection) -> None:
    producer = connection.Producer(routing_key="q")
    with producer.batch():
        producer.publish("later", priority=9, headers={"n": 1})
        producer.publish("first", priority=0, headers={"n": 2})

    messages = broker.take("q", 2)
    assert [m.payload for m in messages] == ["first", "later"]
    assert [m.headers["n"] for m in messages] == [2, 1]
