"""Chords by their scripts: what an arrival costs the server, and that every key has an end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from phonon_kombu.phonon.fields import Layout, ListAppend, Sum
from phonon_kombu.store.phonon_keys import AggregateKeys, ChordKeys
from tests.lua.machine import HOUR_MS, Machine
from tests.servers import RedisServer

NOT_KEPT = ("",) * 5
LAYOUT = Layout({"n": Sum()})


@pytest.fixture
def lone(own_server: RedisServer) -> Iterator[Machine]:
    """A chord on a server of its own: nobody else's commands are counted."""
    machine = Machine(own_server)
    yield machine
    machine.close()


def arrive(m: Machine, id: str, index: int) -> Any:
    return m.run("chord/arrive", "g", id, index, "part", "", "A", HOUR_MS, 60, *NOT_KEPT)


def fold(m: Machine, id: str, index: int) -> Any:
    delta = LAYOUT.encode_delta({"n": 1})
    return m.run("chord/fold", "g", id, index, "A", HOUR_MS, 60, *NOT_KEPT, *delta)


def calls(m: Machine, act: Callable[[], Any]) -> Counter[str]:
    """How often each command was called within the scripts that `act` runs."""
    m.client.config_resetstat()
    act()
    stats = m.client.info("commandstats")
    found = Counter({name.partition("_")[2]: entry["calls"] for name, entry in stats.items()})
    for ours in ("evalsha", "script|load", "script", "info", "config|resetstat", "config"):
        del found[ours]
    return found


@pytest.mark.needs("commandstats")
@pytest.mark.parametrize(
    ("part", "waiting", "closing", "again"),
    [(arrive, 8, 11, 3), (fold, 12, 15, 3)],
    ids=["arrive", "fold"],
)
def test_commands_of_an_arrival(
    lone: Machine, part: Any, waiting: int, closing: int, again: int
) -> None:
    """Of the second of three parts, of the last, and of one that comes after the last."""
    fields = LAYOUT.keys("g", "", "chord", "chords")
    lone.keys = AggregateKeys("g", fields) if part is fold else ChordKeys("g")  # type: ignore[assignment]
    lone.run("chord/open", "g", "", 60, "size", 3, "unique", 1)
    assert part(lone, "a", 0) == [0, 1]
    found = [
        calls(lone, lambda: part(lone, "b", 1)),
        calls(lone, lambda: part(lone, "c", 2)),
        calls(lone, lambda: part(lone, "c", 2)),
    ]
    assert lone.client.hget(lone.keys.chord, "closer") == b"A"
    assert [one.total() for one in found] == [waiting, closing, again], found


LIFE_SECONDS = 60
MIXED = Layout({"n": Sum(), "names": ListAppend()})


def event(m: Machine, name: str, *args: Any) -> None:
    """Something that happens to the chord `g`: see the test below."""
    if name == "open":
        m.run("chord/open", "g", "", LIFE_SECONDS, "unique", *args)
    elif name == "grow":
        m.run("chord/grow", "x", LIFE_SECONDS)
    elif name == "size":
        m.run("chord/size", "g", *args)
    elif name == "lose":
        m.client.delete(m.keys.chord)  # type: ignore[attr-defined]
    elif name == "close":
        m.run("chord/close", "g", "A", LIFE_SECONDS)
    elif name == "lease":
        m.run("chord/lease", "g", "A", HOUR_MS)
    elif name in ("part", "failed"):
        id, index = args
        failed = "1" if name == "failed" else ""
        m.run("chord/arrive", "g", id, index, "part", failed, "A", HOUR_MS, LIFE_SECONDS, *NOT_KEPT)
    else:
        id, index, values = args
        delta = MIXED.encode_delta(values)
        m.run("chord/fold", "g", id, index, "A", HOUR_MS, LIFE_SECONDS, *NOT_KEPT, *delta)


@pytest.mark.parametrize(
    "events",
    [
        ["grow", ("part", "x", 0), ("part", "a", 0), ("size", 9), ("open", "1"), "grow"],
        [("open", "1"), "grow", ("part", "x", 0), ("part", "a", 0), ("size", 2), "lease", "close"],
        [("open", "1"), ("part", "a", 0), "grow", ("part", "x", 0), ("size", 9), "lose", "grow"],
        [("open", ""), ("part", "a", 0), ("failed", "b", 1), "grow", ("part", "x", 1), "close"],
        [
            ("open", "1"),
            ("fold", "a", 0, {}),
            ("fold", "b", 1, {"n": 1}),
            ("fold", "c", 2, {"names": ["c"]}),
            ("failed", "d", 3),
            "grow",
            ("fold", "x", 0, {"n": 1}),
            ("size", 5),
            "lose",
            ("fold", "e", 4, {"n": 1}),
        ],
        [("open", "1"), "grow", ("fold", "x", 0, {}), ("failed", "a", 0), ("fold", "b", 1, {})],
    ],
    ids=lambda events: " ".join(e if isinstance(e, str) else e[0] for e in events),
)
def test_every_key_of_a_chord_has_an_end(machine: Machine, events: list[Any]) -> None:
    """In whatever order its parts come, and if it is never closed."""
    fields = MIXED.keys("g", "", "chord", "chords")
    machine.keys = AggregateKeys("g", fields)  # type: ignore[assignment]
    indexes = {machine.keys.opened, machine.keys.closing}  # type: ignore[attr-defined]
    for one in events:
        event(machine, *([one] if isinstance(one, str) else one))
        keys = set(machine.client.keys("chord.*")) - indexes
        endless = {key for key in keys if machine.client.ttl(key) < 0}
        assert not endless, one


def test_a_failed_part_lives_as_long_as_what_was_folded(machine: Machine) -> None:
    """Else the chord would forget that it has failed."""
    machine.keys = AggregateKeys("g", MIXED.keys("g", "", "chord", "chords"))  # type: ignore[assignment]
    arrived = machine.keys.arrived  # type: ignore[attr-defined]
    event(machine, "open", "1")
    event(machine, "failed", "a", 0)
    for key in machine.client.keys("chord.*g"):
        machine.client.expire(key, LIFE_SECONDS // 2)
    event(machine, "fold", "b", 1, {"n": 1})
    assert machine.client.ttl(arrived) > LIFE_SECONDS // 2


def test_chords_that_were_never_closed_leave_the_index(machine: Machine) -> None:
    """When one is opened later; twenty at a time."""
    machine.keys = ChordKeys("g")  # type: ignore[assignment]
    opened = machine.keys.opened  # type: ignore[attr-defined]
    machine.client.zadd(opened, {f"old {number}": number for number in range(25)})
    event(machine, "open", "1")
    assert machine.client.zcard(opened) == 6
    event(machine, "open", "1")
    assert machine.client.zrange(opened, 0, -1) == [b"g"]
