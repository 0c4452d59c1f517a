"""Queues with a lifetime: their keys end together, or some job would be in no state."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from phonon_kombu.errors import Ruled
from phonon_kombu.transport.arguments import fields_of
from tests.lua.machine import HOUR_MS, Machine
from tests.lua.pictures import check
from tests.lua.test_order import claim_all
from tests.servers import wait_for

#: A lifetime is set key by key; the clock may go on a little meanwhile.
SLACK_MS = 200


def lifetimes(m: Machine) -> dict[str, int]:
    """How long each existing key of the queue still lives, ms; -1: for ever."""
    found = {key.decode(): m.client.pttl(key) for key in dict.fromkeys(m.keys.all)}
    return {key: left for key, left in found.items() if left != -2}


def age(m: Machine, ms: int) -> None:
    """Let the keys live `ms` less."""
    for key, left in lifetimes(m).items():
        if left >= 0:
            m.client.pexpire(key, left - ms)


def declare(m: Machine, expires_ms: int = HOUR_MS) -> None:
    """What a declaration does."""
    m.configure(type="job", expires=expires_ms)
    assert m.touch() == expires_ms


def assert_end_together(m: Machine, within_ms: int) -> None:
    """All keys end at one time, `within_ms` from now."""
    left = lifetimes(m)
    assert left
    assert max(left.values()) - min(left.values()) <= SLACK_MS, left
    assert within_ms - 10 * SLACK_MS <= min(left.values()) <= within_ms, left


def test_a_queue_without_a_lifetime_lives_for_ever(machine: Machine) -> None:
    machine.configure(type="job")
    machine.put("x", delay_ms=5, ttl_ms=HOUR_MS)
    assert machine.touch() == 0
    assert set(lifetimes(machine).values()) == {-1}


def test_an_append_leaves_a_queue_with_a_lifetime_to_put(machine: Machine) -> None:
    """It knows few of the keys: what it made would outlive the queue."""
    fields = fields_of("q", {"x-expires": HOUR_MS}) or {}
    machine.configure(**{name.decode(): int(value) for name, value in fields.items()})
    with pytest.raises(Ruled):
        machine.append("x")
    assert "items" not in machine.picture()


def test_a_put_into_a_new_queue_gives_its_keys_the_lifetime(machine: Machine) -> None:
    declare(machine)
    machine.put("x", level=3, ttl_ms=HOUR_MS)
    machine.put("y", delay_ms=HOUR_MS)
    assert_end_together(machine, HOUR_MS)


@pytest.mark.parametrize("levels", [(0, 1), (1, 0), (9, 2)])
def test_puts_on_other_levels_do_not_part_the_keys(
    machine: Machine, levels: tuple[int, int]
) -> None:
    """A list that ended before the items would leave its jobs in no state."""
    declare(machine)
    machine.put("first", level=levels[0])
    age(machine, HOUR_MS // 2)
    machine.put("second", level=levels[1])
    left = lifetimes(machine)
    assert max(left.values()) - min(left.values()) <= SLACK_MS, left

    age(machine, min(left.values()) - 1)
    wait_for(lambda: not any(0 <= ms <= SLACK_MS for ms in lifetimes(machine).values()))

    check(machine.picture())


def everything(m: Machine) -> Iterator[str]:
    """Do all that can be done with a queue; yields what was done."""
    for n in range(10):
        m.put(f"j{n}", level=n, delay_ms=HOUR_MS if n == 7 else "", ttl_ms=HOUR_MS)
    m.put("unique", dedup_id="d")
    yield "put"
    m.claim("A", 5)
    yield "claim"
    m.cancel("A", "j0")
    yield "cancel"
    m.finish("A", "j2")
    yield "finish"
    m.reject("A", "j3")
    yield "reject"
    m.recover("A", "cancel")
    yield "recover"
    m.client.delete(m.keys.finishes, m.keys.ghosts)
    m.resolve("j1", "A")
    yield "resolve, late"
    m.stall("j5")
    m.stall("j7")
    yield "stall"
    m.retry("j5")
    yield "retry"
    m.retract("j6")
    yield "retract"
    m.configure(claim_timeout=1)
    m.claim("B", 2)
    m.pass_time(10)
    m.maintain()
    yield "maintain"
    m.pause()
    m.resume()
    yield "resume"
    m.client.delete(*m.keys.levels)
    m.relist("j8", "j9")
    yield "relist"
    for level in range(10):
        m.put(f"plain{level}")
    m.client.delete(m.keys.ghosts, m.keys.deadlines, m.keys.cancelled, m.keys.priorities)
    m.claim("C", 2)
    yield "swift"


def test_whatever_is_done_to_a_queue_ends_with_it(machine: Machine) -> None:
    """Whoever has done it may be gone at once, and nobody touch the queue again."""
    machine.configure(dead_exchange="")
    declare(machine)
    for done in everything(machine):
        left = lifetimes(machine)
        assert -1 not in left.values(), f"after {done}: {left}"


def test_touch_gives_all_keys_a_new_lifetime(machine: Machine) -> None:
    declare(machine)
    for _ in everything(machine):
        pass
    age(machine, HOUR_MS // 2)
    assert machine.touch() == HOUR_MS
    assert_end_together(machine, HOUR_MS)


def test_a_queue_that_ended_is_empty(machine: Machine) -> None:
    declare(machine)
    for n in range(10):
        machine.put(f"j{n}", level=n)
    machine.stall("j3")
    machine.claim()
    machine.touch()
    age(machine, HOUR_MS - 100)

    wait_for(lambda: not lifetimes(machine), 10, message="keys were left behind")

    assert machine.stats() == [0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 0]
    machine.put("j3")
    assert claim_all(machine) == ["j3"]


def test_a_queue_declared_again_without_a_lifetime_lives_on(machine: Machine) -> None:
    """What was put before must not vanish either."""
    declare(machine)
    machine.put("before", level=4)

    machine.client.hdel(machine.keys.config, "expires")
    assert machine.touch() == 0
    machine.put("after")

    assert set(lifetimes(machine).values()) == {-1}


def test_a_queue_declared_again_with_another_lifetime(machine: Machine) -> None:
    declare(machine)
    machine.put("x", level=4)
    declare(machine, 5 * HOUR_MS)
    assert_end_together(machine, 5 * HOUR_MS)
