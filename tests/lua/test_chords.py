"""What a part's arrival costs the server: the commands within the scripts chord/arrive and fold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from phonon_kombu.phonon.fields import Layout, Sum
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
    [(arrive, 8, 11, 3), (fold, 11, 14, 3)],
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
