"""What is done by id costs the same however many jobs are queued."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import Celery

from phonon_kombu.control import Operator
from tests.control.holder import holding
from tests.servers import RedisServer, server_name, start_server

#: Commands that take no more than O(log n) time, as they are used here (a page's ZRANGE and
#: ZRANGEBYSCORE are cut to a slice).
CHEAP = {
    "evalsha", "script|load", "hget", "hset", "hdel", "hexists", "hlen", "hmget", "hsetnx",
    "hincrby", "sadd", "srem", "sismember", "scard", "sscan", "zadd", "zrem", "zscore", "zmscore",
    "zcard", "zrank", "llen", "zrange", "zrangebyscore", "lpush", "rpush", "rpop", "exists", "get",
    "time", "incr", "pttl", "del", "publish", "smembers", "config|resetstat", "info",
    "config", "script",  # as Redis 6.2 counts them
    "multi", "exec", "setex", "subscribe", "unsubscribe",  # of the result backend
}  # fmt: skip


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    """A server of these tests' own: nobody else's commands are counted."""
    server = start_server()
    yield server
    server.stop()


#: What the heartbeat of a process that holds jobs says at times.
HEART = {"client|list", "client|id", "client", "hgetall", "set", "pexpire", "bzpopmin"}

QUEUED = 100_000


def work(app: Celery, operator: Operator) -> None:
    """Everything that an operator does by id, and a page of each kind."""
    ids = [app.tasks["shop.add"].apply_async((1, 1), task_id=f"t{n}").id for n in range(6)]
    operator.status()
    for task_id in ids:
        operator.get(task_id)
    operator.stall(*ids[:3])
    operator.retry(ids[0])
    operator.retract(ids[1])
    app.control.revoke(ids[2:4])
    operator.page("shop", limit=5)
    operator.page("shop", state="stalled")
    operator.page("shop", state="ready", cursor=operator.page("shop", limit=5).cursor, limit=5)
    operator.page("shop", older_than_seconds=0, limit=5)
    operator.retract(ids[0], ids[4], ids[5])


def used(client: redis.Redis, act: Callable[[], Any]) -> dict[str, int]:
    """The commands that are executed by `act`, also those in scripts."""
    client.config_resetstat()
    act()
    stats = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): entry["calls"] for name, entry in stats.items()}


@pytest.mark.skipif(server_name() == "fakeredis", reason="it counts no commands")
def test_the_commands_are_the_same_in_a_long_queue(
    app: Celery, operator: Operator, redis_client: redis.Redis
) -> None:
    work(app, operator)  # connects, loads scripts
    script = operator.job("shop")._script("job/append")

    def fill(first: int, count: int) -> None:
        for start in range(first, first + count, 5000):
            operator.link.send(
                [(script, (b"q%d" % n, b"{}\n[]", b"")) for n in range(start, start + 5000)]
            )

    fill(0, 5000)
    before = used(redis_client, lambda: work(app, operator))
    fill(5000, QUEUED)
    after = used(redis_client, lambda: work(app, operator))

    assert set(after) <= CHEAP
    assert {name: n for name, n in after.items() if n != before.get(name)} == {}


@pytest.mark.skipif(server_name() == "fakeredis", reason="it counts no commands")
def test_a_claimed_job_in_a_long_queue(
    app: Celery, operator: Operator, redis_client: redis.Redis
) -> None:
    result = app.tasks["shop.add"].delay(1, 1)
    with holding(app, 1):
        script = operator.job("shop")._script("job/append")
        for start in range(0, QUEUED, 5000):
            operator.link.send(
                [(script, (b"q%d" % n, b"{}\n[]", b"")) for n in range(start, start + 5000)]
            )
        commands = used(redis_client, lambda: (operator.get(result.id), operator.cancel(result.id)))
    assert set(commands) <= CHEAP | HEART and sum(commands.values()) < 500
