"""No script touches a key that it does not declare: each runs as a user who may touch no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from phonon_kombu.errors import Exists, ScriptRefused
from phonon_kombu.store import scripts
from phonon_kombu.store.keys import ExchangeKeys, NodeKeys
from phonon_kombu.thoonk.states import GRID
from tests.lua import cases_held, cases_waiting  # noqa: F401  they fill CASES
from tests.lua.cases import CASES, Case, play
from tests.lua.machine import HOUR_MS, Machine, connect, encoded
from tests.servers import RedisServer

pytestmark = pytest.mark.needs("acl")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case_inside_the_fence(machine: Machine, case: Case) -> None:
    """Every case of the grid comes out the same for a user who has only the declared keys."""
    play(machine, case, fenced=True)


def lifetime(m: Machine) -> None:
    """put and touch of a queue that expires."""
    m.configure(expires=HOUR_MS)
    with m.fence():
        m.put("x", level=3)
        m.put("y", delay_ms=1, ttl_ms=1, level=9)
        assert m.touch() == HOUR_MS


def simple_queue(m: Machine) -> None:
    """queue/put and queue/get, all paths."""
    with m.fence():
        for front in ("", "1"):
            assert m.run("queue/put", f"x{front}", "item", front) == f"x{front}"
            assert m.run("queue/put", f"x{front}", "item", front) == f"x{front}"
        with pytest.raises(Exists):
            m.run("queue/put", "x", "another", "")
        assert [m.run("queue/get") for _ in range(3)] == ["item", "item", None]


def exchange(m: Machine) -> None:
    """exchange/bind and exchange/unbind."""
    m.keys = ExchangeKeys("x")  # type: ignore[assignment]
    with m.fence():
        assert [m.run("exchange/bind", "a"), m.run("exchange/bind", "a")] == [1, 0]
        assert m.run("exchange/unbind", "a", "b") == 1
        assert m.run("exchange/unbind", "a", "b") == 0


def nodes(m: Machine) -> None:
    """node/* and lock/*: join, beat, be judged, be buried, part."""
    m.keys = NodeKeys()  # type: ignore[assignment]
    with m.fence():
        assert m.run("node/beat", "n", "", "", "") == [0, 0]
        assert m.run("node/beat", "n", "7", "{}", "1") == [1, 0]
        assert m.run("node/census", HOUR_MS) == [[], ["n", "7"], []]
        assert [m.run("node/bury", *args) for args in (("nobody", "", 0), ("n", "8", 0))] == [0, 0]
        assert m.run("node/bury", "n", "", HOUR_MS) == 0
        assert m.run("node/bury", "n", "7", 0) == 1
        assert m.run("node/beat", "n", "", "", "") == [0, 1]
        assert m.run("node/part", "n", held=m.keys.held("n")) == 1
        assert m.run("node/beat", "n", "", "", "") == [0, 0]
        assert [m.run("lock/acquire", who, HOUR_MS) for who in "aab"] == [1, 1, 0]
        assert [m.run("lock/release", who) for who in "baa"] == [0, 1, 0]


def probe(m: Machine) -> None:
    """node/probe, which leaves nothing."""
    m.keys = NodeKeys()  # type: ignore[assignment]
    with m.fence():
        assert m.run("node/probe", *scripts.commands()) == []
    assert m.client.keys() == []


def results(m: Machine) -> None:
    """job/resolve with a result that ends; a second one in its place."""
    for n in (1, 2):
        m.put("x", f"item {n}")
        m.claim()
        with m.fence():
            assert m.resolve("x", keep_ms=HOUR_MS) == "x"


def lost(m: Machine) -> None:
    """job/relist, job/scan and job/census of a job in no state."""
    for level in (0, 7):
        m.put(f"x{level}", level=level)
        m.client.rpop(m.keys.levels[level])
    with m.fence():
        assert m.run("job/census") == [2, 0]
        assert len(m.run("job/scan", 0)) == 7
        assert m.relist("x0", "x7") == 2
        assert m.run("job/census") == [2, 2]


def slices(m: Machine) -> None:
    """Levels, ghosts, expired and due ones at once, for the scripts that walk over them."""
    m.configure(claim_timeout=HOUR_MS)
    for n in range(40):
        m.put(f"j{n}", level=n % 10, ttl_ms=HOUR_MS if n % 3 == 0 else "",
              delay_ms=HOUR_MS if n % 4 == 1 else "")  # fmt: skip
    for n in range(0, 40, 5):
        m.stall(f"j{n}")
    m.claim("A", 5)
    m.pass_time(2 * HOUR_MS)
    with m.fence():
        m.maintain()
        m.claim("A", 10, "highest")
        m.claim("B", 5)
        m.recover("A", "cancel")
        m.cancel("B", *m.picture()["owners"], delay_ms=5)
        m.purge(5)
        m.purge()


PATHS: list[Callable[[Machine], None]] = [
    lifetime, simple_queue, exchange, nodes, probe, results, lost, slices
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
def test_path_inside_the_fence(machine: Machine, path: Callable[[Machine], Any]) -> None:
    path(machine)


def test_every_script_has_been_inside(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cases and paths above run all scripts there are."""
    fenced: set[str] = set()
    run = Machine.run

    def noting(self: Machine, name: str, *args: Any, **given: bytes) -> Any:
        if self.fenced is not None:
            fenced.add(name)
        return run(self, name, *args, **given)

    monkeypatch.setattr(Machine, "run", noting)
    for path in PATHS:
        machine.client.flushall()
        path(Machine(machine.server))
    fenced |= {GRID[case.operation].script for case in CASES}
    assert fenced == set(scripts.names())


@pytest.mark.parametrize("command", ["GET", "SET", "PERSIST"])
def test_the_fence_holds(redis_server: RedisServer, machine: Machine, command: str) -> None:
    """A script that touches one stray key is refused: else the tests above would prove nothing."""
    value = ", 'v'" if command == "SET" else ""
    script = scripts.parse(
        "test/stray",
        "--[[ test/stray: touches a key that it does not declare.\n"
        "KEYS    1 items HASH\nARGV    1 stray\nRETURNS nothing   ERRORS none ]]\n"
        "redis.call('HGET', KEYS[1], 'x')\n"
        f"redis.call('{command}', ARGV[1]{value})\n",
        None,
    )
    stray = encoded("feed.config:{" + machine.queue + "}")
    with machine.fence():
        machine._allow([machine.keys.items])
        link = connect(redis_server, username="fenced", password="secret")
        try:
            with pytest.raises(ScriptRefused):
                link.run(script.prepare(machine.keys), (stray,))
        finally:
            link.close()
