"""Waiting for work: woken by a put, by a time that comes, by a look; and the end of patience."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ProcessPoolExecutor
from statistics import median
from typing import Any

import pytest
import redis

from phonon_kombu.phonon.heart import LOOK_SECONDS
from phonon_kombu.thoonk import Empty, Thoonk, base
from tests.servers import RedisServer, wait_for

from . import peers
from .lossy import LossyLine


@pytest.mark.parametrize("kind", ["job", "queue"])
def test_a_put_in_another_process_wakes(
    thoonk: Thoonk,
    url: str,
    processes: ProcessPoolExecutor,
    kind: str,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within milliseconds, long before the next look."""
    monkeypatch.setattr(base, "POLL_SECONDS", 30)
    feed: Any = getattr(thoonk, kind)("feed")
    count = 15
    putting = processes.submit(peers.put_stamps, url, "feed", kind, count, 0.05)
    delays = []
    for _ in range(count):
        found = feed.get(timeout=20)
        delays.append(time.time() - float(found.item if kind == "job" else found))
    putting.result(10)
    assert median(delays) < (0.05 if not redis_server.is_fake else 0.5)


@pytest.mark.parametrize("kind", ["job", "queue"])
def test_timeout(thoonk: Thoonk, kind: str) -> None:
    """Neither early nor much too late; 0 does not wait."""
    feed: Any = getattr(thoonk, kind)("feed")
    for timeout in (0, 0.3, 1.0):
        started = time.monotonic()
        with pytest.raises(Empty, match="'feed'"):
            feed.get(timeout=timeout)
        waited = time.monotonic() - started
        assert timeout <= waited < timeout + 3


def test_a_job_that_a_foreign_client_puts_is_found_within_a_second(
    thoonk: Thoonk, redis_client: redis.Redis
) -> None:
    """Put as Thoonk's contract says, while we wait: it leaves no wake."""
    job = thoonk.job("feed")
    found: list[float] = []

    def wait() -> None:
        assert job.get(timeout=20).item == "foreign"
        found.append(time.monotonic())

    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(0.2)
    put_at = time.monotonic()
    with redis_client.pipeline() as pipe:
        pipe.lpush("feed.ids:{feed}", "f1")
        pipe.incr("feed.publishes:{feed}")
        pipe.hset("feed.items:{feed}", "f1", "foreign")
        pipe.zadd("feed.published:{feed}", {"f1": int(time.time() * 1000)})
        pipe.execute()
    waiting.join(20)
    assert base.POLL_SECONDS < 1
    assert found and found[0] - put_at < base.POLL_SECONDS + 1


def test_an_item_that_a_foreign_client_puts_is_found_within_a_second(
    thoonk: Thoonk, redis_client: redis.Redis
) -> None:
    queue = thoonk.queue("feed")
    found: list[float] = []

    def wait() -> None:
        assert queue.get(timeout=20) == "foreign"
        found.append(time.monotonic())

    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(0.2)
    put_at = time.monotonic()
    redis_client.lpush("feed.ids:{feed}", "f1")
    redis_client.hset("feed.items:{feed}", "f1", "foreign")
    waiting.join(20)
    assert found and found[0] - put_at < base.POLL_SECONDS + 1


@pytest.mark.parametrize("kind", ["job", "queue"])
def test_a_burst_wakes_all_who_are_needed(
    thoonk: Thoonk, far: Thoonk, line: LossyLine, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Each of ten waiting threads gets one of ten jobs, without a look for itself."""
    monkeypatch.setattr(base, "POLL_SECONDS", 60)
    feed: Any = getattr(far, kind)("feed")
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(feed.get(timeout=20))) for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    wait_for(lambda: line.waits == 10, 10)
    for number in range(10):
        getattr(thoonk, kind)("feed").put(str(number))
    for thread in threads:
        thread.join(20)
    items = [entry.item if kind == "job" else entry for entry in found]
    assert sorted(items) == [str(number) for number in range(10)]


@pytest.mark.parametrize("kind", ["job", "queue"])
def test_whoever_takes_one_wakes_another_for_the_rest(
    thoonk: Thoonk,
    far: Thoonk,
    line: LossyLine,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """Several puts leave one wake."""
    monkeypatch.setattr(base, "POLL_SECONDS", 60)
    feed: Any = getattr(far, kind)("feed")
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(feed.get(timeout=20)))
    waiting.start()
    wait_for(lambda: line.waits == 1, 10)
    with redis_client.pipeline() as pipe:
        pipe.hset("feed.items:{feed}", mapping={"a": "item a", "b": "item b"})
        pipe.lpush("feed.ids:{feed}", "a", "b")
        pipe.execute()
    taken = getattr(thoonk, kind)("feed").get(timeout=0)
    waiting.join(10)
    items = [entry.item if kind == "job" else entry for entry in (taken, *found)]
    assert items == ["item a", "item b"]


def test_waiting_asks_the_server_little(far: Thoonk, line: LossyLine) -> None:
    """An idle wait costs one wait and one look in a poll interval."""
    job = far.job("feed")
    with pytest.raises(Empty):
        job.get(timeout=0.1)
    before = line.requests
    with pytest.raises(Empty):
        job.get(timeout=3)
    # If other processes are there, the heart may be the one to look after them.
    looks = 3 * (3 / LOOK_SECONDS + 2)
    assert 0 < line.requests - before <= 2 * (3 / base.POLL_SECONDS + 2) + looks
