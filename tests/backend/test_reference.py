"""References: the grid of their operations, and processes that die while they hold."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from time import monotonic, perf_counter, sleep
from typing import Any

import pytest
import redis

from phonon_kombu.errors import Closing, ConfigurationError, NotHeld, NotStalled
from phonon_kombu.phonon import watch as watching
from phonon_kombu.phonon.connections import Connections
from phonon_kombu.phonon.reference import Reference
from phonon_kombu.store.scripts import load, names
from tests.servers import start_server, wait_for

#: This process may have another heart at the same server, whose beats a test has flushed away.
PREFIX = "references:"

#: Operation -> state of the holder -> the state that it becomes, or what refuses.
GRID: dict[str, dict[str, Any]] = {
    "hold": {"absent": "held", "held": "held", "held elsewhere": "held", "stalled": "stalled"},
    "finish": {"absent": NotHeld, "held": "absent", "held elsewhere": NotHeld, "stalled": NotHeld},
    "cancel": {"absent": NotHeld, "held": "absent", "held elsewhere": NotHeld, "stalled": NotHeld},
    "stall": {
        "absent": NotHeld, "held": "stalled", "held elsewhere": NotHeld, "stalled": "stalled",
    },
    "retry": {
        "absent": NotStalled, "held": NotStalled, "held elsewhere": NotStalled, "stalled": "held",
    },
    "maintain": {
        "absent": "absent", "held": "held", "held elsewhere": "absent", "stalled": "stalled",
    },
}  # fmt: skip


@pytest.fixture
def url(redis_db: str) -> str:
    return f"phonon://{redis_db}"


@pytest.fixture
def made(url: str) -> Iterator[Connections]:
    with Connections(url, prefix=PREFIX) as connections:
        yield connections


def test_the_grid_names_all_scripts() -> None:
    scripts = {name.partition("/")[2] for name in names() if name.startswith("reference/")}
    assert scripts == (set(GRID) - {"maintain"}) | {"recover", "lease", "close"}
    for operation in set(GRID) - {"maintain"}:
        refusals = {one.__name__.upper() for one in GRID[operation].values() if one in
                    (NotHeld, NotStalled)}  # fmt: skip
        assert load(f"reference/{operation}").errors - {"CLOSING"} == refusals


def state_of(reference: Reference, client: redis.Redis) -> str:
    keys = reference._keys
    if client.hexists(keys.stalled, reference.holder):
        return "stalled"
    return "held" if client.hexists(keys.holders, reference.holder) else "absent"


@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize(
    ("operation", "state"), [(op, state) for op, cells in GRID.items() for state in cells]
)
def test_cell(
    made: Connections, redis_client: redis.Redis, operation: str, state: str, others: int
) -> None:
    for n in range(others):
        Reference("x", holder=f"other {n}", connections=made).hold()
    reference = Reference("x", holder="me", connections=made)
    if state != "absent":
        reference.hold()
    if state == "stalled":
        reference.stall("because")
    if state == "held elsewhere":  # on a node that is dead
        redis_client.hset(reference._keys.holders, "me", "0" * 16)
    args = ("because",) if operation == "stall" else ()
    expected = GRID[operation][state]
    if isinstance(expected, str):
        getattr(reference, operation)(*args)
        assert state_of(reference, redis_client) == expected
        gone = expected == "absent"
        assert reference.count() == others + (not gone)
    else:
        with pytest.raises(expected):
            getattr(reference, operation)(*args)
        assert reference.count() == others + (state != "absent")


def test_the_last_one_out(made: Connections) -> None:
    called: list[tuple[int, int]] = []

    def last(reference: Reference) -> None:
        called.append((reference.count(), reference.times_modified()))
        with pytest.raises(Closing):
            Reference("x", connections=made).hold()

    references = [Reference("x", last, connections=made) for _ in range(3)]
    assert [one.hold() for one in references] == [1, 2, 3]
    assert [references[0].finish(), references[1].cancel()] == [False, False]
    assert not called
    assert references[2].finish()
    assert called == [(0, 2)]
    # The resource is free, and begins anew.
    assert (references[0].hold(), references[0].times_modified()) == (1, 0)


def test_a_block_that_fails_cancels(made: Connections) -> None:
    called: list[int] = []
    with (
        pytest.raises(ZeroDivisionError),
        Reference("x", lambda one: called.append(one.times_modified()), connections=made),
    ):
        _ = 1 / 0
    assert called == [0]


def test_many_threads_and_one_last(made: Connections) -> None:
    called: list[int] = []
    barrier = threading.Barrier(8)

    def work() -> None:
        with Reference("x", lambda one: called.append(one.times_modified()), connections=made):
            barrier.wait(20)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert called == [8]


def test_a_stalled_holder_is_the_last(made: Connections) -> None:
    called: list[int] = []
    stuck = Reference("x", holder="stuck", connections=made)
    stuck.hold()
    stuck.stall("no paper")
    reference = Reference("x", lambda one: called.append(1), connections=made)
    reference.hold()
    assert not reference.finish()
    assert not reference.maintain()
    assert reference.stalled() == {"stuck": "no paper"}
    again = Reference("x", lambda one: called.append(2), holder="stuck", connections=made)
    again.retry()
    assert again.finish()
    assert called == [2]


def test_a_lease_must_be_positive(made: Connections) -> None:
    with pytest.raises(ConfigurationError):
        Reference("x", lease_seconds=0, connections=made)


@pytest.mark.parametrize("names", [(None, "h"), (7, "h"), ("x", 7), ("x", 0)])
def test_names_that_are_none(made: Connections, names: tuple[Any, Any]) -> None:
    name, holder = names
    with pytest.raises(ConfigurationError, match="is no name"):
        Reference(name, holder=holder, connections=made)


def hold_for_ever(url: str, ready: Any) -> None:
    """A process that holds until it is killed."""
    connections = Connections(url, prefix=PREFIX)
    Reference("dies", connections=connections).hold()
    ready.set()
    threading.Event().wait()


def die_as_the_last(url: str, ready: Any) -> None:
    """A process that is killed in its callback."""

    def last(reference: Reference) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    reference = Reference(
        "dies", last, lease_seconds=1, connections=Connections(url, prefix=PREFIX)
    )
    reference.hold()
    ready.set()
    reference.finish()


@pytest.mark.parametrize("program", [hold_for_ever, die_as_the_last])
def test_a_process_dies_and_another_is_last(url: str, made: Connections, program: Any) -> None:
    """What the dead held is given back; whoever left before it is the last one out then, once."""
    called = threading.Event()
    calls: list[int] = []

    def last(reference: Reference) -> None:
        calls.append(reference.times_modified())
        called.set()

    context = multiprocessing.get_context("spawn")
    # A name of its own: this process still looks after what earlier tests have left.
    mine = Reference("dies", last, connections=made)
    ready = context.Event()
    mine.hold()
    process = context.Process(target=program, args=(url, ready), daemon=True)
    process.start()
    assert ready.wait(60)
    if program is hold_for_ever:
        assert mine.count() == 2
        assert not mine.finish()
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
    else:
        wait_for(lambda: mine.count() == 1, 20)
        mine.finish()  # it may be the last one out, if the other has left before
    process.join(20)
    assert called.wait(20)
    wait_for(lambda: mine.count() == 0 and mine.times_modified() == 0)
    assert len(calls) == 1


class Thing:
    """Looked at once, and that is all."""

    name = "thing"
    owes = False

    def __init__(self) -> None:
        self.seen = threading.Event()

    def maintain(self) -> bool:
        self.seen.set()
        return True


class Nowhere:
    identity = ("nowhere",)


def test_nothing_is_left_to_a_thread_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is to be looked after while the thread which does that is about to end."""
    monkeypatch.setattr(watching, "WATCH_SECONDS", 0.0)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        until = monotonic() + 3
        while monotonic() < until:
            thing = Thing()
            watching.watch(thing, Nowhere())
            assert thing.seen.wait(10)
            at = perf_counter() + random.random() * 2e-4
            while perf_counter() < at:
                pass
    finally:
        sys.setswitchinterval(interval)


def look_twice(monkeypatch: pytest.MonkeyPatch, at_first: Callable[[Thing], None]) -> None:
    """Watch a thing that does this when it is looked at first, and wait for a second look."""
    monkeypatch.setattr(watching, "WATCH_SECONDS", 0.0)
    looks: list[int] = []
    thing = Thing()

    def look() -> bool:
        looks.append(1)
        if len(looks) == 1:
            at_first(thing)
        return True

    thing.maintain = look  # type: ignore[method-assign]
    watching.watch(thing, Nowhere())
    wait_for(lambda: len(looks) == 2)


def test_left_again_while_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found free, and at this moment used and left to others anew: it is looked at again."""
    look_twice(monkeypatch, lambda thing: watching.watch(thing, Nowhere()))


@pytest.mark.parametrize("error", [SystemExit, ZeroDivisionError])
def test_a_callback_that_fails_is_called_again(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """Whatever it raises, the thread goes on."""

    def fail(thing: Thing) -> None:
        raise error

    look_twice(monkeypatch, fail)


def test_a_silent_server_holds_up_nobody_elsewhere(made: Connections) -> None:
    called = threading.Event()
    with start_server() as silent, Connections(silent.url("phonon")) as there:
        for n in range(2):
            Reference(str(n), connections=there).hold()
            leaving = Reference(str(n), lambda one: None, connections=there)
            leaving.hold()
            leaving.finish()
        silent.pause()
        sleep(2 * watching.WATCH_SECONDS)  # it is in the midst of a look there
        other = Reference("here", connections=made)
        other.hold()
        mine = Reference("here", lambda one: called.set(), connections=made)
        mine.hold()
        assert not mine.finish()
        # As if its process had died.
        made.hosts[0].link.command(b"HSET", mine._keys.holders, other.holder.encode(), b"0" * 16)
        assert called.wait(10)
        silent.resume()


def leave_to_others(made: Connections, times: int = 1) -> None:
    Reference("x", connections=made).hold()
    for _ in range(times):
        leaving = Reference("x", lambda one: None, connections=made)
        leaving.hold()
        assert not leaving.finish()


def test_one_look_for_all_of_one_name(made: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task of a process may use the same resource and leave it to others."""
    looks: list[Reference] = []
    look = Reference.maintain

    def counted(one: Reference) -> bool:
        if one._connections is made:
            looks.append(one)
        return look(one)

    monkeypatch.setattr(Reference, "maintain", counted)
    leave_to_others(made, times=20)
    looks.clear()
    wait_for(lambda: len({*looks}) < len(looks), message="nobody looks again")
    assert len({*looks}) <= 2  # it may have been in the midst of a look at the last but one


def test_a_forked_child_looks_after_what_is_its_own(made: Connections) -> None:
    """And not after what its parent has left to others: one callback would be called twice."""
    leave_to_others(made)
    context = multiprocessing.get_context("fork")
    seen = context.Queue()

    def child() -> None:
        before = len(watching._watched)
        called = threading.Event()
        with Connections(made.hosts[0].name, prefix=PREFIX) as own:
            other = Reference("y", connections=own)
            other.hold()
            mine = Reference("y", lambda one: called.set(), connections=own)
            mine.hold()
            mine.finish()
            own.hosts[0].link.command(b"HSET", mine._keys.holders, other.holder.encode(), b"0" * 16)
            seen.put((before, called.wait(20)))

    process = context.Process(target=child)
    process.start()
    assert seen.get(timeout=30) == (0, True)
    process.join(20)
