"""Unique messages: ``x-deduplication-id``."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from phonon_kombu.errors import ConfigurationError
from phonon_kombu.thoonk import Thoonk
from tests.kombu.exam import Broker
from tests.servers import wait_for

pytestmark = pytest.mark.phonon_only("stock queues every message")


def send(broker: Broker, body: Any, name: str = "n", **headers: Any) -> None:
    broker.send("q", body, headers={"x-deduplication-id": name, **headers})


def duplicates(broker: Broker) -> int:
    return Thoonk(broker.url).job("q").stats().duplicates


def test_one_of_a_name_at_a_time(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "phonon_kombu.transport"):
        for body in range(3):
            send(broker, body)
    send(broker, "other", name="m")
    assert duplicates(broker) == 2
    assert "Left out a duplicate" in caplog.text
    assert broker.get_all("q") == [0, "other"]
    wait_for(lambda: Thoonk(broker.url).job("q").stats().claimed == 0)
    send(broker, "free again")
    assert broker.get_all("q") == ["free again"]


def test_also_while_it_is_in_hand_or_scheduled(broker: Broker) -> None:
    send(broker, "first", **{"x-delay": 50})
    send(broker, "second")
    wait_for(lambda: time.sleep(0.06) or True)
    with broker.connection() as connection:
        message = connection.default_channel.basic_get("q")
        assert message.payload == "first"
        send(broker, "third")
        message.requeue()
    assert broker.get_all("q") == ["first"]
    assert duplicates(broker) == 2


def test_a_lifetime_outlives_the_job(broker: Broker) -> None:
    ttl = {"x-deduplication-ttl": 700}
    send(broker, "first", **ttl)
    assert broker.get_all("q") == ["first"]
    send(broker, "second", **ttl)
    assert broker.get_all("q") == []
    wait_for(lambda: time.sleep(0.75) or True)
    send(broker, "third", **ttl)
    assert broker.get_all("q") == ["third"]


def test_the_property_does_the_same(broker: Broker) -> None:
    for body in range(2):
        broker.send("q", body, **{"x-deduplication-id": "n", "x-deduplication-ttl": 60_000})
    assert broker.get_all("q") == [0]


def test_a_retry_succeeds_its_task(broker: Broker) -> None:
    """It is published before the first is acknowledged, with the headers that this came with."""
    headers = {"task": "t", "id": "the-task", "x-deduplication-id": "n"}
    broker.send("q", "first", headers=headers)
    with broker.connection() as connection:
        message = connection.default_channel.basic_get("q")
        broker.send("q", "retry", headers=dict(message.headers))
        message.ack()
    send(broker, "another")
    assert broker.get_all("q") == ["retry"]
    assert duplicates(broker) == 1


@pytest.mark.parametrize("ttl", [0, -1, "long", True])
def test_a_lifetime_that_makes_no_sense(broker: Broker, ttl: Any) -> None:
    with pytest.raises(ConfigurationError, match="x-deduplication-ttl"):
        send(broker, 1, **{"x-deduplication-ttl": ttl})


def test_unique_in_a_batch(broker: Broker) -> None:
    with broker.connection() as connection:
        producer = connection.Producer()
        with producer.batch():
            for n in range(5):
                producer.publish(n, routing_key="q", headers={"x-deduplication-id": "n"})
    assert broker.get_all("q") == [0]


def test_ids_that_have_ended_are_forgotten(broker: Broker) -> None:
    """Memory is bounded by what is unique at the time: later puts sweep."""
    for n in range(60):
        send(broker, n, name=f"n{n}", **{"x-deduplication-ttl": 20})
    broker.get_all("q")
    wait_for(lambda: time.sleep(0.03) or True)
    for n in range(8):
        send(broker, n, name=f"m{n}")
    assert broker.client.hlen("feed.unique:{q}") == 8
    assert broker.client.zcard("feed.unique_ends:{q}") == 8


def test_from_python(broker: Broker) -> None:
    job = Thoonk(broker.url).job("jobs")
    first = job.put("a", dedup_id="n", dedup_ttl_seconds=60)
    assert job.put("b", dedup_id="n") == first
    job.retract(first)
    assert job.put("c", dedup_id="n") == first
    assert job.stats().duplicates == 2 and job.get_ids() == []
