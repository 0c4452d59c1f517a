"""A server that is full, forgets its scripts, is kept busy or refuses: named errors, no losses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from phonon_kombu.errors import Exists, NotClaimed, OutOfMemory, ScriptKilled, ScriptRefused
from phonon_kombu.store import scripts
from phonon_kombu.store.checks import TRANSPORT_ROOMS, check_rights
from phonon_kombu.store.client import Link
from tests.lua.cases import bystanders
from tests.lua.machine import HOUR_MS, Machine, connect
from tests.lua.pictures import check
from tests.lua.test_order import claim_all
from tests.servers import RedisServer, wait_for


@pytest.fixture
def lone(own_server: RedisServer) -> Iterator[Machine]:
    """A queue on a server of its own."""
    machine = Machine(own_server)
    yield machine
    machine.close()


# Out of memory --------------------------------------------------------------------------------


@pytest.fixture
def full(lone: Machine) -> Machine:
    """A queue with jobs in all states, on a server that may store no byte more."""
    bystanders(lone)
    for id in ("x", "y"):
        lone.put(id, ttl_ms=HOUR_MS)
    lone.put("held")
    lone.put("due", delay_ms=HOUR_MS)
    lone.claim("A", 1)
    lone.pass_time(2 * HOUR_MS, "due")
    lone.client.config_set("maxmemory-policy", "noeviction")
    lone.client.config_set("maxmemory", "1")
    return lone


REFUSED: dict[str, Callable[[Machine], Any]] = {
    "put": lambda m: m.put("new"),
    "put on a level, with a lifetime": lambda m: m.put("new", level=5, ttl_ms=5),
    "put with a delay": lambda m: m.put("new", delay_ms=5),
    "put in front": lambda m: m.put("new", front=True),
    "put by its other id": lambda m: m.put("y", "another", other_id="new"),
    "queue/put": lambda m: m.run("queue/put", "new", "item", "", "job"),
    "stall": lambda m: m.stall("y"),
    "relist": lambda m: m.relist("y"),
}


@pytest.mark.needs("maxmemory")
@pytest.mark.parametrize("name", REFUSED)
def test_what_takes_memory_is_refused_and_nothing_is_written(full: Machine, name: str) -> None:
    before = full.picture()

    with pytest.raises(OutOfMemory, match="nothing was written"):
        REFUSED[name](full)

    assert full.picture() == before


FREEING: dict[str, Callable[[Machine], Any]] = {
    "claim what is due": lambda m: m.claim("A", 9).ids == ["y", "held", "due", "r"],
    "claim one": lambda m: m.claim("A", 1).ids == ["y"],
    "finish": lambda m: m.finish("A", "x") == 1,
    "resolve": lambda m: m.resolve("x", "A") == "x",
    "cancel": lambda m: m.cancel("A", "x") == 1,
    "cancel with a delay": lambda m: m.cancel("A", "x", delay_ms=5) == 1,
    "cancel at the limit": lambda m: m.cancel("A", "x", limit=1) == 1,
    "recover": lambda m: m.recover("A") == 1,
    "retry": lambda m: m.retry("t") == "t",
    "retract": lambda m: m.retract("y") == "y",
    "purge": lambda m: m.purge() == [5, 0],
    "maintain": lambda m: m.maintain()[0] == 1,
}


@pytest.mark.needs("maxmemory")
@pytest.mark.parametrize("name", FREEING)
def test_what_frees_memory_goes_on(full: Machine, name: str) -> None:
    """Else a full server could not even be drained."""
    assert FREEING[name](full)
    full.client.config_set("maxmemory", "0")
    check(full.picture(), full.stats())


@pytest.mark.needs("maxmemory")
def test_a_refused_job_is_still_there_when_there_is_room_again(full: Machine) -> None:
    with pytest.raises(OutOfMemory):
        full.put("new")
    full.client.config_set("maxmemory", "0")
    full.put("new")

    assert claim_all(full) == ["y", "held", "new", "due", "r"]


# Scripts forgotten ----------------------------------------------------------------------------


def test_scripts_forgotten_between_calls_are_loaded_again(lone: Machine) -> None:
    for step in (
        lambda: lone.put("x") == "x",
        lambda: lone.claim().ids == ["x"],
        lambda: lone.cancel("A", "x") == 1,
        lambda: lone.claim().jobs == [("x", "item of x", 1)],
        lambda: lone.finish("A", "x") == 1,
        lambda: lone.stats()[:6] == [0, 0, 0, 0, 1, 1],
    ):
        lone.client.script_flush()
        assert step()


def test_scripts_forgotten_are_loaded_again_in_a_write_of_many(lone: Machine) -> None:
    """All calls are made, each once, in their order; refusals stay in their places."""
    put = scripts.load("job/put").prepare(lone.keys)
    calls = [(put, (b"j%d" % n, b"item", b"", b"0", b"", b"", b"", b"")) for n in range(20)]
    calls[7] = (put, (b"j3", b"another item", b"", b"0", b"", b"", b"", b""))
    lone.client.script_flush()

    replies = lone.link.send(calls, raise_first=False)

    assert isinstance(replies[7], Exists)
    ids = [f"j{n}" for n in range(20) if n != 7]
    assert [reply.decode() for n, reply in enumerate(replies) if n != 7] == ids
    assert claim_all(lone) == ids


def test_a_refusal_after_a_reload_has_its_name(lone: Machine) -> None:
    lone.client.script_flush()
    with pytest.raises(NotClaimed):
        lone.resolve("nobody")


# Scripts that run away ------------------------------------------------------------------------

ENDLESS = scripts.parse(
    "test/endless",
    "--[[ test/endless: never comes back.\nKEYS    1 items HASH\nARGV    none\n"
    "RETURNS nothing   ERRORS none ]]\nwhile true do redis.call('HLEN', KEYS[1]) end\n",
    None,
)


@pytest.fixture
def busy(lone: Machine) -> Iterator[list[BaseException]]:
    """A server that a script keeps busy; yields what became of that script's call."""
    lone.put("x")
    try:
        lone.client.config_set("busy-reply-threshold", 20)
    except Exception:  # Redis before 7
        lone.client.config_set("lua-time-limit", 20)
    lone.link.connection()
    outcome: list[BaseException] = []
    link = connect(lone.server)

    def run() -> None:
        try:
            link.run(ENDLESS.prepare(lone.keys), ())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: _is_busy(lone), message="the script does not keep the server busy")
    yield outcome
    if thread.is_alive():
        lone.client.script_kill()
    thread.join(10)
    link.close()


def _is_busy(m: Machine) -> bool:
    try:
        m.client.ping()
    except Exception as error:
        return "BUSY" in str(error).upper() or "busy" in type(error).__name__.lower()
    return False


@pytest.mark.needs("script kill")
def test_a_killed_script_has_a_named_error(lone: Machine, busy: list[BaseException]) -> None:
    lone.client.script_kill()
    wait_for(lambda: busy, message="the killed script's call did not come back")

    assert isinstance(busy[0], ScriptKilled)
    assert claim_all(lone) == ["x"]


@pytest.mark.needs("script kill")
def test_a_server_busy_with_a_script_has_a_named_error(
    lone: Machine, busy: list[BaseException]
) -> None:
    """And nothing is lost: the call is refused, and works when the server is free again."""
    with pytest.raises(ScriptKilled, match="busy"):
        lone.claim()
    lone.client.script_kill()
    wait_for(lambda: busy, message="the killed script's call did not come back")

    assert lone.claim().ids == ["x"]


# ACLs -----------------------------------------------------------------------------------------


def limited(m: Machine, *rules: str) -> Link:
    """A link of a user with these rules."""
    m.client.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">pw", *rules)
    return connect(m.server, username="limited", password="pw")


@pytest.mark.needs("acl")
@pytest.mark.parametrize(
    "rules",
    [
        ("~feed.*", "+@all", "-evalsha"),
        ("~feed.*", "+@all", "-rpop"),
        ("~feed.items:*", "+@all"),
        ("~other.*", "+@all"),
        ("~feed.*", "+ping"),
    ],
    ids=["no scripts", "no rpop", "one key", "other keys", "nothing"],
)
def test_what_an_acl_forbids_has_a_named_error(lone: Machine, rules: tuple[str, ...]) -> None:
    lone.put("x")
    before = lone.picture()
    link = limited(lone, *rules)

    with pytest.raises(ScriptRefused, match="ACL"):
        link.run(scripts.load("job/claim").prepare(lone.keys), (b"A", b"1", b""))

    assert lone.picture() == before
    link.close()


@pytest.mark.needs("acl")
@pytest.mark.parametrize("command", scripts.commands(*TRANSPORT_ROOMS))
def test_a_command_that_scripts_need_is_asked_for_before(lone: Machine, command: str) -> None:
    """By name, whatever it is; on a server that has jobs, nothing is touched."""
    lone.put("x")
    before = lone.client.dbsize(), lone.picture()
    link = limited(lone, "~feed.*", "~node.*", "&*", "+@all", f"-{command.lower()}")

    with pytest.raises(ScriptRefused, match=rf"ACL.*: {command} "):
        check_rights(link)

    assert lone.picture() == before[1]
    # Without DEL, the key on which commands are tried ends by itself.
    wait_for(lambda: lone.client.dbsize() == before[0])
    link.close()


@pytest.mark.needs("acl")
def test_a_user_with_the_rights_that_are_documented_may_do_all(lone: Machine) -> None:
    page = Path(__file__).parents[2] / "docs/howto/acl.md"
    _, _, rules = page.read_text().partition("ACL SETUSER shop on >secret ")
    link = limited(lone, *rules.partition("```")[0].split())
    check_rights(link)
    lone.client.config_set("maxmemory", "1")
    check_rights(link)  # that is another error, at the time
    link.close()


@pytest.mark.needs("acl")
def test_a_user_who_may_not_load_scripts_is_told_so(lone: Machine) -> None:
    """SCRIPT LOAD is what is refused; where an administrator has loaded them, they run."""
    lone.put("x")
    lone.client.script_flush()
    link = limited(lone, "~feed.*", "+@all", "-script")
    claim = scripts.load("job/claim")

    with pytest.raises(ScriptRefused, match="ACL"):
        link.run(claim.prepare(lone.keys), (b"A", b"1", b""))
    lone.client.script_load(claim.source)

    assert link.run(claim.prepare(lone.keys), (b"A", b"1", b""))[2] == b"x"
    link.close()
