"""References whose last one out dies, loses a reply or its patience, at each step of its end."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from phonon_kombu.errors import Closing, NotHeld
from phonon_kombu.phonon import watch as watching
from phonon_kombu.phonon.connections import Connections
from phonon_kombu.phonon.reference import Reference
from phonon_kombu.store.client import load_scripts
from phonon_kombu.store.scripts import load
from tests.servers import RedisServer, wait_for
from tests.thoonk.lossy import LossyLine

LEASE_SECONDS = 0.2


@pytest.fixture
def made(url: str) -> Iterator[Connections]:
    with Connections(url) as found:
        yield found


@pytest.fixture
def line(redis_server: RedisServer) -> Iterator[LossyLine]:
    lossy = LossyLine(redis_server.port)
    yield lossy
    lossy.close()


def die(*args: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at(step: str, reference: Reference, dead: Reference | None = None) -> None:
    """In a process of its own: be the last one out, and die at a step."""
    run = reference._run

    def run_or_die(script: str, *args: bytes) -> Any:
        if script == step == "reference/close":
            die()
        reply = run(script, *args)
        if script == step:
            die()
        return reply

    reference._run = run_or_die  # type: ignore[method-assign]
    if step == "left":
        reference._complete = die  # type: ignore[method-assign]
    if step == "on_last":
        reference.on_last = die
    if dead is None:
        reference.hold()
        reference.finish()
    else:
        reference.maintain()


@pytest.mark.parametrize(
    "step", ["left", "on_last", "reference/close", "reference/recover", "reference/lease"]
)
def test_killed_at(url: str, made: Connections, redis_client: redis.Redis, step: str) -> None:
    """Whoever comes to hold when the lease has ended does first what the dead one has not done."""
    calls: list[int] = []
    name = f"killed at {step}"

    def program() -> None:
        with Connections(url) as own:
            dying = Reference(name, print, lease_seconds=LEASE_SECONDS, connections=own)
            if step == "reference/recover":
                # It gives back what another dead one has held.
                redis_client.hset(dying._keys.holders, "dead", "0" * 16)
            elif step == "reference/lease":
                # It takes over from another dead one.
                redis_client.hset(dying._keys.about, mapping={"closer": "dead", "until": 1})
            dead = dying if step in ("reference/recover", "reference/lease") else None
            kill_at(step, dying, dead)

    process = multiprocessing.get_context("fork").Process(target=program)
    process.start()
    process.join(20)
    assert process.exitcode == -signal.SIGKILL

    mine = Reference(
        name, lambda one: calls.append(one.times_modified()), lease_seconds=9, connections=made
    )
    wait_for(lambda: now_ms(redis_client) > int(redis_client.hget(mine._keys.about, "until") or 0))
    with pytest.raises(Closing):
        # One that does not know what is to be done leaves it to those who do.
        Reference(name, connections=made).hold()
    assert mine.hold() == 1
    modified = 0 if step in ("reference/recover", "reference/lease") else 1
    assert calls == [modified]
    assert mine.finish()
    assert calls == [modified, 1]
    assert not redis_client.exists(mine._keys.about, mine._keys.holders)


def now_ms(client: redis.Redis) -> int:
    seconds, micros = client.time()  # type: ignore[misc]
    return int(seconds) * 1000 + int(micros) // 1000


def held(reference: Reference) -> int:
    try:
        return reference.hold()
    except Closing:
        return 0


def test_with_nothing_to_do_it_is_free_at_once(made: Connections) -> None:
    """There is no step at which its process could die and leave it closed."""
    reference = Reference("x", connections=made)
    reference._complete = lambda: None  # type: ignore[method-assign]
    for _ in range(2):
        assert reference.hold() == 1
        assert reference.finish()


@pytest.mark.parametrize("lost", [1, 2, 3])
@pytest.mark.parametrize("script", ["finish", "close"])
def test_replies_that_are_lost(
    monkeypatch: pytest.MonkeyPatch, line: LossyLine, script: str, lost: int
) -> None:
    """The last one out that is not told so calls on_last all the same, and once."""
    monkeypatch.setattr(watching, "WATCH_SECONDS", 0.02)
    calls: list[int] = []
    with Connections(f"127.0.0.1:{line.port}") as made:
        load_scripts(made.hosts[0].link, [load(f"reference/{script}")])  # NOSCRIPT is no loss
        one = Reference("lost", lambda one: calls.append(1), connections=made)
        one.hold()
        line.lose(load(f"reference/{script}").sha.encode(), lost)
        try:
            assert one.finish()
        except (redis.ConnectionError, OSError):
            assert lost > 1
        wait_for(lambda: line.lost >= min(lost, 2) and held(one))
        assert calls == [1]
        line.lose(b"", 0)
        assert one.finish()
        assert calls == [1, 1]


def test_replies_that_are_lost_twice(line: LossyLine) -> None:
    """The first end was done, and not heard of; of the second, too, nothing is heard."""
    calls: list[int] = []
    with Connections(f"127.0.0.1:{line.port}") as made:
        load_scripts(made.hosts[0].link, [load("reference/close"), load("reference/finish")])
        one = Reference("twice", lambda one: calls.append(1), lease_seconds=0.3, connections=made)
        for script in ("close", "finish"):
            one.hold()
            line.lose(load(f"reference/{script}").sha.encode(), 2)
            with contextlib.suppress(redis.ConnectionError, OSError):
                one.finish()
        wait_for(lambda: len(calls) == 2, message="it is not called")


def test_on_last_is_not_called_while_it_is_called(
    monkeypatch: pytest.MonkeyPatch, made: Connections
) -> None:
    """One object is used again, while it looks after what it has left to others before."""
    monkeypatch.setattr(watching, "WATCH_SECONDS", 0.0)
    calls: list[int] = []
    looks = threading.Semaphore(0)

    def last(reference: Reference) -> None:
        calls.append(1)
        with pytest.raises(Closing):
            reference.hold()
        with pytest.raises(NotHeld):
            reference.finish()
        assert not reference.maintain()
        for _ in range(3):
            assert looks.acquire(timeout=10)

    other = Reference("x", connections=made)
    mine = Reference("x", last, connections=made)
    look = mine.maintain

    def maintain() -> bool:
        looks.release()
        return look()

    mine.maintain = maintain  # type: ignore[method-assign]
    other.hold(), mine.hold()
    assert not mine.finish()
    mine.hold()
    assert not other.finish()
    assert mine.finish()
    assert calls == [1]


def test_a_forked_child_holds_in_its_own_name(made: Connections, url: str) -> None:
    """A reference that is made before the fork is two holders afterwards."""
    reference = Reference("x", connections=made)
    reference.hold()

    def child() -> None:
        assert reference.hold() == 2
        assert not reference.finish()

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(20)
    assert process.exitcode == 0
    assert reference.finish()
