"""Queue arguments that limit: length, age, rate; and redeclaring."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import Any

import pytest
from kombu import Queue
from kombu.exceptions import OperationalError

from phonon_kombu.errors import ConfigurationError, QueueFull
from phonon_kombu.thoonk import Thoonk
from tests.kombu.exam import Broker, DrainPump, Inbox, PumpFactory
from tests.servers import wait_for

pytestmark = pytest.mark.phonon_only("stock knows no queue arguments")


def limited(**arguments: Any) -> Queue:
    """The queue q; underscores for the dashes of its arguments."""
    names = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
    return Queue("q", queue_arguments=names)


def declare(broker: Broker, queue: Queue) -> None:
    with broker.connection() as connection:
        queue(connection.default_channel).declare()


def test_drop_head_is_obeyed_by_who_never_declared(broker: Broker) -> None:
    declare(broker, limited(max_length=3))
    with broker.connection() as connection:
        producer = connection.Producer()
        for n in range(6):
            producer.publish(n, routing_key="q")
    assert broker.get_all("q") == [3, 4, 5]


def test_drop_head_in_a_batch(broker: Broker) -> None:
    declare(broker, limited(max_length=3))
    with broker.connection() as connection:
        producer = connection.Producer()
        with producer.batch():
            for n in range(6):
                producer.publish(n, routing_key="q")
    assert broker.get_all("q") == [3, 4, 5]


def test_the_least_urgent_go_first(broker: Broker) -> None:
    declare(broker, limited(max_length=2))
    for priority in (0, 9, 5, 0):
        broker.send("q", priority, priority=priority)
    assert broker.get_all("q") == [0, 0]


def test_reject_publish_has_a_name(broker: Broker) -> None:
    declare(broker, limited(max_length=2, overflow="reject-publish"))
    broker.send("q", 1, 2)
    with pytest.raises(QueueFull, match="x-max-length"):
        broker.send("q", 3)
    assert broker.get_all("q") == [1, 2]
    broker.send("q", 4)
    assert broker.get_all("q") == [4]


def test_what_is_in_hand_or_scheduled_does_not_count(broker: Broker) -> None:
    declare(broker, limited(max_length=1, overflow="reject-publish"))
    broker.send("q", "in hand")
    with broker.connection() as connection:
        message = connection.default_channel.basic_get("q")
        broker.send("q", "later", headers={"x-delay": 3_600_000})
        broker.send("q", "waits")
        with pytest.raises(QueueFull):
            broker.send("q", "one too many")
        message.ack()


def test_message_ttl_and_the_shorter_expiration(broker: Broker) -> None:
    declare(broker, limited(message_ttl=3000))
    broker.send("q", "short", expiration=0.1)
    broker.send("q", "long", expiration=60)
    broker.send("q", "default")
    time.sleep(0.15)
    assert Counter(broker.get_all("q")) == Counter(["long", "default"])
    declare(broker, limited(message_ttl=100))
    broker.send("q", "old")
    time.sleep(0.15)
    assert broker.get_all("q") == []


def test_a_delayed_message_ages_from_when_it_is_due(broker: Broker) -> None:
    declare(broker, limited(message_ttl=60_000))
    broker.send("q", "x", headers={"x-delay": 3_600_000})
    ((_, deadline),) = broker.client.zrange("feed.deadlines:{q}", 0, -1, withscores=True)
    assert 3600 + 50 < deadline / 1000 - time.time() < 3600 + 70


@pytest.mark.parametrize(
    "arguments",
    [
        {"message_ttl": -1},
        {"message_ttl": "soon"},
        {"max_length": -5},
        {"max_length": True},
        {"max_length_bytes": 1000},
        {"overflow": "explode"},
        {"expires": 0},
        {"rate_limit": "fast"},
        {"rate_limit": "0/s"},
        {"rate_limit": "5/d"},
        {"delivery_limit": 0},
        {"dead_letter_exchange": 5},
        {"dead_letter_routing_key": "k"},
    ],
)
def test_arguments_that_make_no_sense(broker: Broker, arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises((ConfigurationError, OperationalError), match="x-" + name.replace("_", "-")):
        declare(broker, limited(**arguments))
    assert not broker.exists("q")


def config(broker: Broker) -> dict[str, str]:
    return {k.decode(): v.decode() for k, v in broker.client.hgetall("feed.config:{q}").items()}


def test_redeclaring_replaces_and_without_arguments_leaves(broker: Broker) -> None:
    declare(broker, limited(max_length=3, message_ttl=1000, rate_limit="10/s", delivery_limit=4))
    assert config(broker) == {
        "type": "job", "max_length": "3", "message_ttl": "1000", "rate_interval": "100.000000",
        "rate_burst": "1", "max_deliveries": "4", "rules": "1",
    }  # fmt: skip
    declare(broker, Queue("q"))
    assert "max_length" in config(broker)
    declare(broker, limited(message_ttl=5000))
    assert config(broker) == {"type": "job", "message_ttl": "5000", "rules": "1"}
    declare(broker, limited(rate_limit=5))
    assert config(broker) == {"type": "job", "rate_interval": "200.000000", "rate_burst": "1"}


def test_kombus_own_names_of_arguments(broker: Broker) -> None:
    declare(broker, Queue("q", max_length=7, message_ttl=2.5, expires=60))
    assert config(broker) == {
        "type": "job", "max_length": "7", "message_ttl": "2500", "expires": "60000", "rules": "1",
    }  # fmt: skip


def test_who_declares_without_a_lifetime_keeps_it_alive_too(broker: Broker) -> None:
    declare(broker, limited(expires=700))
    with broker.connection() as connection:
        broker.consumer(connection, "q")
        DrainPump(connection).run(1.5)
        assert broker.exists("q")
    wait_for(lambda: not broker.exists("q"), 10, message="it outlives its consumers")


def test_rate_limit_over_two_consumers(
    broker: Broker, pump: PumpFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    declare(broker, limited(rate_limit="50/s"))
    broker.send("q", *range(200))
    first, second = broker.connection(), broker.connection()
    at: list[float] = []
    inbox = Inbox(on_message=lambda m: at.append(time.monotonic()))
    for connection in (first, second):
        broker.consumer(connection, "q", inbox, prefetch_count=8)
    other = DrainPump(second)
    running = pump(first)
    until = time.monotonic() + 15
    while len(at) < 100 and time.monotonic() < until:
        running.step(0.02)
        other.step(0.02)
    seconds = at[99] - at[0]
    with capsys.disabled():
        print(f"\n100 messages at 50/s took {seconds:.2f} s")
    # 5 may go at once, at the beginning.
    assert seconds > 94 / 50 - 0.1
    assert seconds < 6


@pytest.mark.real_server("fakeredis counts no commands")
def test_a_reached_rate_limit_keeps_nobody_busy(broker: Broker) -> None:
    declare(broker, limited(rate_limit="2/s"))
    broker.send("q", *range(20))
    with broker.connection() as connection:
        inbox = Inbox()
        broker.consumer(connection, "q", inbox, prefetch_count=4)
        pump = DrainPump(connection)
        pump.until(inbox.has(1))
        calls = broker.client.info("commandstats")["cmdstat_evalsha"]["calls"]
        pump.run(2.0)
        calls = broker.client.info("commandstats")["cmdstat_evalsha"]["calls"] - calls
    assert 3 <= inbox.count <= 6
    assert calls <= 25, f"{calls} scripts for {inbox.count} messages"


def test_basic_get_obeys_the_rate(broker: Broker) -> None:
    declare(broker, limited(rate_limit="60/h"))
    broker.send("q", 1, 2)
    assert broker.get_all("q") == [1]
    assert Thoonk(broker.url).job("q").stats().ready == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"rate_limit": 10**12},
        {"rate_limit": "100000000000/s"},
        {"rate_limit": "0." + "0" * 300 + "1/h"},
        {"rate_limit": math.nan},
        {"rate_limit": math.inf},
        {"expires": 2**70},
        {"expires": math.inf},
        {"message_ttl": 2**70},
        {"max_length": 2**70},
        {"delivery_limit": 2**70},
        {"consumer_timeout": 2**70},
        {"message_ttl": "x" * 1000},
    ],
    ids=lambda arguments: str(arguments)[:40],
)
def test_arguments_that_redis_cannot_hold(broker: Broker, arguments: dict[str, Any]) -> None:
    (name,) = arguments
    wanted = "x-" + name.replace("_", "-")
    with pytest.raises((ConfigurationError, OperationalError), match=wanted) as caught:
        declare(broker, limited(**arguments))
    assert len(str(caught.value)) < 300
    assert not broker.exists("q")


@pytest.mark.parametrize(
    "arguments",
    [
        {"rate_limit": 10**9},
        {"rate_limit": 1e9},
        {"expires": 10**15},
        {"message_ttl": 10**15},
        {"max_length": 10**15},
        {"delivery_limit": 10**15},
        {"consumer_timeout": 10**15},
    ],
    ids=str,
)
def test_the_largest_arguments(broker: Broker, arguments: dict[str, Any]) -> None:
    queue = limited(**arguments)
    broker.send(queue, 1, 2)
    with broker.connection() as connection:
        channel = connection.default_channel
        message = channel.basic_get("q")
        assert message.payload == 1
        message.requeue()
    assert broker.get_all(queue) == [1, 2]


def test_an_argument_that_is_nearly_one_of_ours_is_said_once(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    for arguments in ({"msg_ttl": 5}, {"msg_ttl": 6}, {"something_else": 1, "max_priority": 9}):
        declare(broker, limited(**arguments))
    said = [r.message for r in caplog.records if "did you mean" in r.message.lower()]
    assert len(said) == 1
    assert "x-msg-ttl" in said[0] and "'x-message-ttl'" in said[0] and "'q'" in said[0]
