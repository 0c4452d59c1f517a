"""Locks between threads, tasks and processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from phonon_kombu.errors import AlreadyLocked, ConfigurationError, LockError, LockLost
from phonon_kombu.phonon.connections import Connections
from phonon_kombu.phonon.lock import Lock
from tests.servers import wait_for

from . import peers


@pytest.fixture
def made(url: str) -> Iterator[Connections]:
    """Connections to an empty database."""
    with Connections(url) as connections:
        yield connections


def in_thread(function: Any) -> Any:
    """What a function returns, or raises, in another thread."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(function())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    return outcome[0]


def test_one_holder_at_a_time(made: Connections) -> None:
    lock, other = Lock("x", connections=made), Lock("x", connections=made)
    assert not lock.locked()
    with lock:
        assert lock.locked() and lock.owned() and not other.owned()
        assert not other.acquire(blocking=False)
        assert not lock.acquire(blocking=False), "it is not re-entrant unless asked"
        assert Lock("y", connections=made).acquire(blocking=False)
        assert 29 < lock.remaining_seconds() <= 30
    assert not lock.locked() and lock.remaining_seconds() == 0
    assert other.acquire(blocking=False)


def test_waiting_for_it(made: Connections) -> None:
    lock, other = Lock("x", connections=made), Lock("x", connections=made)
    assert lock.acquire()
    began = time.monotonic()
    assert not other.acquire(timeout_seconds=0.3)
    assert time.monotonic() - began >= 0.3
    with (
        pytest.raises(AlreadyLocked, match="'x' was not free for"),
        Lock("x", timeout_seconds=0.1, connections=made),
    ):
        pass
    waiting = threading.Thread(target=other.acquire)
    waiting.start()
    lock.release()
    waiting.join(20)
    assert not waiting.is_alive() and other.locked()


def test_only_the_holder_releases_it(made: Connections, redis_client: redis.Redis) -> None:
    lock = Lock("x", connections=made)
    with lock:
        for call in (Lock("x", connections=made).release, Lock("x", connections=made).extend):
            with pytest.raises(LockError):
                call()
        assert isinstance(in_thread(lock.release), LockError)
        assert lock.owned()
    with pytest.raises(LockError):
        lock.release()


def test_a_lock_ends_by_itself(made: Connections) -> None:
    """In seconds: phonon took them for milliseconds."""
    lock = Lock("x", ttl_seconds=0.4, connections=made)
    began = time.monotonic()
    assert lock.acquire()
    other = Lock("x", connections=made)
    assert other.acquire(timeout_seconds=20)
    assert time.monotonic() - began >= 0.39
    for call in (lock.extend, lock.release):
        with pytest.raises(LockLost):
            call()
    assert other.owned(), "the late release has not taken it from the other"


def test_extending_it(made: Connections) -> None:
    lock = Lock("x", ttl_seconds=5, connections=made)
    assert lock.acquire()
    lock.extend(100)
    assert lock.remaining_seconds() > 90
    lock.extend()
    assert lock.remaining_seconds() <= 5
    lock.extend(0.0001)
    wait_for(lambda: not lock.locked())
    with pytest.raises(LockLost):
        lock.extend()


def test_re_entrant_if_asked(made: Connections) -> None:
    lock = Lock("x", reentrant=True, connections=made)
    again = Lock("x", reentrant=True, connections=made)
    with lock:
        with lock, again:
            assert again.owned()
        assert lock.owned()
        assert in_thread(lambda: again.acquire(blocking=False)) is False
    assert not lock.locked()
    with pytest.raises(LockError):
        again.release()


def test_re_entered_too_late(made: Connections, redis_client: redis.Redis) -> None:
    lock = Lock("x", reentrant=True, connections=made)
    assert lock.acquire()
    redis_client.flushall()
    with pytest.raises(LockLost):
        lock.acquire()


def test_an_error_within_is_not_hidden(made: Connections, redis_client: redis.Redis) -> None:
    with pytest.raises(ZeroDivisionError), Lock("x", connections=made):
        redis_client.flushall()
        _ = 1 / 0
    with pytest.raises(LockLost), Lock("x", connections=made):
        redis_client.flushall()


@pytest.mark.parametrize("ttl", [0, -1, True, "5", 1e12, float("nan")])
def test_times_that_make_no_sense(made: Connections, ttl: Any) -> None:
    with pytest.raises(ConfigurationError):
        Lock("x", ttl_seconds=ttl, connections=made)


def test_a_name_that_is_none(made: Connections) -> None:
    with pytest.raises(ConfigurationError, match="None is no name"):
        Lock(None, connections=made)  # type: ignore[arg-type]


def test_tasks_of_one_loop(made: Connections) -> None:
    """Tasks exclude each other, and the loop goes on while one waits."""
    inside: list[int] = []

    async def work(me: int) -> None:
        async with Lock("x", connections=made):
            inside.append(me)
            before = len(inside)
            await asyncio.sleep(0.01)
            assert len(inside) == before

    async def main() -> None:
        await asyncio.gather(*(work(n) for n in range(5)))
        async with Lock("x", connections=made):
            with pytest.raises(AlreadyLocked):
                async with Lock("x", timeout_seconds=0.05, connections=made):
                    pass

    asyncio.run(asyncio.wait_for(main(), 60))
    assert sorted(inside) == list(range(5))


def test_processes_count_under_a_lock(made: Connections, url: str, redis_client: Any) -> None:
    """Read, wait, write: without the lock most would be lost."""
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=peers.count_locked, args=(url, "x", "counter", 40)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert int(redis_client.get("counter")) == 120


def test_the_lock_of_a_killed_process(made: Connections, url: str) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=peers.hold_for_ever, args=(url, "x", 2.0))
    process.start()
    lock = Lock("x", connections=made)
    wait_for(lock.locked, 60)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    assert lock.acquire(timeout_seconds=20)
