"""What a message costs the server: calls of scripts, and commands in them. Numbers to keep."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from kombu import Queue

from phonon_kombu.store.keys import queue_keys
from tests.kombu.exam import Broker, DrainPump, Inbox

pytestmark = [
    pytest.mark.phonon_only("these are our promises"),
    pytest.mark.real_server("fakeredis counts no commands"),
]

MESSAGES = 100

#: Scripts that a heartbeat of an earlier test may run meanwhile.
NOISE = 5


def commands(broker: Broker, act: Callable[[], Any]) -> Counter[str]:
    """How often the server carried out each command meanwhile, in scripts too."""

    def counts() -> Counter[str]:
        found = broker.client.info("commandstats")
        return Counter({name[8:]: entry["calls"] for name, entry in found.items()})

    before = counts()
    act()
    spent = counts() - before
    del spent["info"]
    return spent


def publish(broker: Broker, **properties: Any) -> Counter[str]:
    with broker.connection() as connection:
        producer = connection.Producer()
        producer.publish("warm", routing_key="q", **properties)
        return commands(
            broker,
            lambda: [producer.publish(n, routing_key="q", **properties) for n in range(MESSAGES)],
        )


def test_a_plain_publish(broker: Broker) -> None:
    spent = publish(broker)
    assert MESSAGES <= spent.pop("evalsha") <= MESSAGES + NOISE
    # TIME, HEXISTS, HSETNX, ZADD, INCR, LPUSH, PTTL; a queue that is not empty has its wake.
    assert spent.total() <= 7 * MESSAGES + 10 * NOISE, spent


def test_a_publish_with_a_priority(broker: Broker) -> None:
    spent = publish(broker, priority=5)
    assert MESSAGES <= spent.pop("evalsha") <= MESSAGES + NOISE
    assert spent.total() <= 9 * MESSAGES + 10 * NOISE, spent


def test_a_delayed_publish(broker: Broker) -> None:
    spent = publish(broker, headers={"x-delay": 3_600_000})
    assert MESSAGES <= spent.pop("evalsha") <= MESSAGES + NOISE
    assert spent.total() <= 9 * MESSAGES + 10 * NOISE, spent


def test_a_queue_with_rules_costs_one_more_trip_once(broker: Broker) -> None:
    with broker.connection() as connection:
        Queue("q", queue_arguments={"x-max-length": 10})(connection.default_channel).declare()
    with broker.connection() as connection:
        producer = connection.Producer()
        spent = commands(
            broker, lambda: [producer.publish(n, routing_key="q") for n in range(MESSAGES)]
        )
    assert spent["evalsha"] <= MESSAGES + 3


@pytest.mark.parametrize(("prefetch", "trips"), [(64, 3), (8, 14), (1, 102)])
def test_consuming(broker: Broker, prefetch: int, trips: int) -> None:
    """One claim for as many as the consumer may hold, which finishes the last ones too."""
    broker.send("q", *range(MESSAGES))
    with broker.connection() as connection:
        inbox = Inbox()
        pump = DrainPump(connection)
        broker.consumer(connection, "other", Inbox(), prefetch_count=1)
        pump.run(0.1)
        broker.consumer(connection, "q", inbox, prefetch_count=prefetch)
        spent = commands(broker, lambda: pump.until(inbox.has(MESSAGES)))
    assert spent["evalsha"] <= trips + NOISE, spent
    inside = spent.total() - spent["evalsha"]
    # 16 in one that finishes and claims; PING, BZPOPMIN and EXISTS of an idle consumer.
    assert inside <= 16 * (trips + NOISE), spent


def test_the_next_messages_come_while_slow_work_is_done(broker: Broker) -> None:
    """A round trip is not waited for where the work takes longer; the test above is of no work."""
    broker.send("q", *range(12))
    ready = queue_keys("q").ids
    waiting: list[int] = []

    def work(message: Any) -> None:
        time.sleep(0.02)
        waiting.append(broker.client.llen(ready))

    with broker.connection() as connection:
        inbox = Inbox(on_message=work)
        broker.consumer(connection, "q", inbox, prefetch_count=4)
        DrainPump(connection).until(inbox.has(12))
    # At the last of the first four the next two have been claimed.
    assert waiting[0] == 8 and waiting[3] == 6
