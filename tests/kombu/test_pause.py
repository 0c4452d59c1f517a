"""A paused queue: nobody is given a message, nobody is kept busy, resume starts at once."""

from __future__ import annotations

import time
from typing import Any

import pytest
from kombu import Queue

from phonon_kombu.errors import NotFound
from phonon_kombu.thoonk import Thoonk
from tests.kombu.exam import Broker, DrainPump, Inbox, PumpFactory
from tests.servers import wait_for

pytestmark = pytest.mark.phonon_only("stock has no way to pause a queue")


def feed(broker: Broker, name: str = "q") -> Any:
    """The queue, as an operator has it in hand."""
    return Thoonk(broker.url).job(name)


def test_a_paused_queue_delivers_nothing_until_resumed(broker: Broker, pump: PumpFactory) -> None:
    broker.send("q", "before")
    job = feed(broker)
    assert job.pause() and job.paused and job.stats().paused
    assert not job.pause()
    connection = broker.connection()
    consumer = broker.consumer(connection, ["q", "other"])
    broker.send("q", "during")
    broker.send("other", "passes")
    pump(connection).until(lambda: consumer.on_message.count)
    assert consumer.on_message.bodies == ["passes"]
    assert connection.default_channel.basic_get("q") is None
    assert broker.size("q") == 2

    assert job.resume() and not job.paused
    pump(connection).until(consumer.on_message.has(3))
    assert consumer.on_message.bodies == ["passes", "before", "during"]


def test_what_is_in_hand_runs_to_its_end(broker: Broker) -> None:
    broker.send("q", "x", "y")
    connection = broker.connection()
    inbox = Inbox(ack=False)
    broker.consumer(connection, "q", inbox, prefetch_count=1)
    pump = DrainPump(connection)
    pump.until(inbox.has(1))
    job = feed(broker)
    job.pause()
    inbox.messages[0].ack()
    wait_for(lambda: job.stats().claimed == 0, message="the acknowledgement does not count")
    assert job.stats().ready == 1
    assert inbox.bodies == ["x"]


def test_resume_wakes_an_idle_consumer_at_once(broker: Broker) -> None:
    """It waits for a wake; the next look of its own would come after an hour."""
    connection = broker.connection(transport_options={"polling_interval": 3600})
    broker.send("q", "x")
    job = feed(broker)
    job.pause()
    consumer = broker.consumer(connection, "q")
    pump = DrainPump(connection)
    waiter = connection.default_channel.waiter
    pump.until(lambda: waiter.waiting)
    job.resume()
    started = time.monotonic()
    pump.until(consumer.on_message.has(1), 10)
    assert time.monotonic() - started < 5


@pytest.mark.real_server("fakeredis counts no commands")
def test_waiting_at_a_paused_queue_costs_nothing(broker: Broker) -> None:
    """Messages are there, and more come: no consumer claims in a circle (thousands of times)."""
    broker.send("q", *range(50))
    job = feed(broker)
    job.pause()
    connection = broker.connection(transport_options={"polling_interval": 3600})
    broker.consumer(connection, "q")
    pump = DrainPump(connection)
    pump.until(lambda: connection.default_channel.waiter.waiting)
    calls = broker.client.info("commandstats")["cmdstat_evalsha"]["calls"]
    pump.run(1.0)
    assert broker.client.info("commandstats")["cmdstat_evalsha"]["calls"] - calls <= 20


def test_a_queue_that_does_not_exist_is_not_paused(broker: Broker) -> None:
    broker.send("q", "x")
    job = feed(broker)
    with broker.connection() as connection:
        connection.default_channel.queue_delete("q")
    for switch in (job.pause, job.resume):
        with pytest.raises(NotFound, match="no queue named 'q'"):
            switch()
    assert not broker.exists("q")


def test_declaring_again_does_not_resume_and_deleting_does(broker: Broker) -> None:
    broker.send("q", "x")
    job = feed(broker)
    job.pause()
    with broker.connection() as connection:
        Queue("q", channel=connection).declare()
        assert job.paused
        connection.default_channel.queue_delete("q")
        assert not job.paused
