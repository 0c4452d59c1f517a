"""No script touches a key that it does not declare: each runs as a user who may touch no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from phonon_kombu.errors import ScriptRefused
from phonon_kombu.store import scripts
from phonon_kombu.store.scripts import Prepared
from phonon_kombu.thoonk.states import GRID
from tests.lua import cases_held, cases_waiting  # noqa: F401  they fill CASES
from tests.lua.cases import CASES, Case, play
from tests.lua.machine import Machine, connect, encoded
from tests.lua.paths import PATHS
from tests.servers import RedisServer

pytestmark = pytest.mark.needs("acl")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case_inside_the_fence(machine: Machine, case: Case) -> None:
    """Every case of the grid comes out the same for a user who has only the declared keys."""
    play(machine, case, fenced=True)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
def test_path_inside_the_fence(machine: Machine, path: Callable[[Machine], Any]) -> None:
    path(machine)


def test_every_script_has_been_inside(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cases and paths above run all scripts there are."""
    fenced: set[str] = set()
    call = Machine.call

    def noting(self: Machine, prepared: Prepared, *args: Any) -> Any:
        if self.fenced is not None:
            fenced.add(prepared.script.name)
        return call(self, prepared, *args)

    monkeypatch.setattr(Machine, "call", noting)
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
