"""Which job comes next: first in, first out within a level, levels exact, given back in front."""

from __future__ import annotations

import itertools

import pytest

from tests.lua.machine import HOUR_MS, Machine
from tests.lua.pictures import check


def claim_all(m: Machine, count: int = 3, order: str = "", owner: str = "A") -> list[str]:
    """Ids of all ready jobs, claimed `count` at a time."""
    found: list[str] = []
    while True:
        reply = m.claim(owner, count, order)
        found += reply.ids
        if not reply.more:
            return found


@pytest.mark.parametrize("count", [1, 7, 500])
def test_first_in_first_out(machine: Machine, count: int) -> None:
    ids = [f"j{n}" for n in range(500)]
    for id in ids:
        machine.put(id)

    assert claim_all(machine, count) == ids


@pytest.mark.parametrize("order", ["", "highest"])
def test_levels_are_exact(machine: Machine, order: str) -> None:
    """Levels come one after another, each in the order of its puts."""
    levels = [(7 * n) % 10 for n in range(60)]
    for n, level in enumerate(levels):
        machine.put(f"j{n}", level=level)

    expected = sorted(range(60), key=lambda n: -levels[n] if order else levels[n])
    assert claim_all(machine, 7, order) == [f"j{n}" for n in expected]


def test_a_later_job_of_a_better_level_overtakes(machine: Machine) -> None:
    machine.put("low", level=5)
    machine.put("lower", level=6)
    assert machine.claim().ids == ["low"]
    machine.put("high")

    assert claim_all(machine) == ["high", "lower"]


def test_put_in_front(machine: Machine) -> None:
    for id in "ab":
        machine.put(id)
    for id in "xy":
        machine.put(id, front=True)

    assert claim_all(machine) == ["y", "x", "a", "b"]


def test_cancelled_jobs_come_in_front_in_the_order_given(machine: Machine) -> None:
    for id in "abcdefgh":
        machine.put(id, level="ag".count(id))
    claimed = machine.claim("A", 5).ids
    assert claimed == ["b", "c", "d", "e", "f"]

    assert machine.cancel("A", "e", "c", "f") == 3

    assert claim_all(machine) == ["e", "c", "f", "h", "a", "g"]


@pytest.mark.parametrize(
    ("staying", "expected"),
    [
        ("ab", "abcdef"),  # behind those that stand in front
        ("a", "acdbef"),  # behind the first of them
        ("b", "cdabef"),  # b does not stand in front
        ("abef", "abefcd"),  # fresh ones may be named
        ("xyz", "cdabef"),
        ("xabyz", "abcdef"),  # whoever has gone is passed over
    ],
)
def test_cancelled_jobs_go_behind_those_that_stay(
    machine: Machine, staying: str, expected: str
) -> None:
    for id in "abcdef":
        machine.put(id)
    machine.claim("A", 4)
    machine.cancel("A", "a", "b")

    assert machine.cancel("A", "c", "d", "", *staying) == 2

    assert claim_all(machine) == list(expected)
    check(machine.picture())


@pytest.mark.parametrize("mode", ["cancel", "restore", "release"])
def test_slices_given_back_from_the_last_keep_the_order(machine: Machine, mode: str) -> None:
    ids = [f"j{n}" for n in range(30)]
    for id in ids:
        machine.put(id)
    machine.claim("A", 20)

    for start in (10, 0):
        machine.cancel("A", *ids[start : start + 10], mode=mode)

    assert claim_all(machine) == ids


def test_ghosts_do_not_disturb_the_order(machine: Machine) -> None:
    """Stalled, retracted and expired ones are left out, retried and put ones come last."""
    ids = [f"j{n}" for n in range(40)]
    for n, id in enumerate(ids):
        machine.put(id, level=n % 2, ttl_ms=HOUR_MS if n % 10 == 4 else "")
    for n in (0, 1, 7, 20):
        machine.stall(f"j{n}")
    for n in (2, 3, 38):
        machine.retract(f"j{n}")
    machine.pass_time(2 * HOUR_MS)
    machine.maintain()
    machine.retry("j0")
    machine.put("j2", level=0)
    machine.retry("j1")
    machine.stall("j1")
    machine.retry("j1")
    machine.claim("A", 3)
    machine.cancel("A", "j8", "j6")
    check(machine.picture(), machine.stats())

    gone = {0, 1, 7, 20, 2, 3, 38, 4, 14, 24, 34, 10}
    even = ["j8", "j6", *(f"j{n}" for n in range(12, 40, 2) if n not in gone), "j0", "j2"]
    odd = [*(f"j{n}" for n in range(1, 40, 2) if n not in gone), "j1"]
    assert claim_all(machine) == even + odd
    left = machine.picture()
    assert not [part for part in left if part.startswith("ids") or part == "ghosts"]


def test_a_claim_past_many_ghosts_is_bounded(machine: Machine) -> None:
    """It stops looking after a while, says that more are ready, and the next one goes on."""
    for n in range(1200):
        machine.put(f"j{n}")
    for n in range(1199):
        machine.retract(f"j{n}")

    replies, lengths = [], [1200]
    while not replies or replies[-1].more:
        replies.append(machine.claim())
        lengths.append(machine.client.llen(machine.keys.ids))

    assert [reply.ids for reply in replies if reply.jobs] == [["j1199"]]
    assert len(replies) > 2
    assert max(before - after for before, after in itertools.pairwise(lengths)) <= 501
    assert "ghosts" not in machine.picture()


@pytest.mark.parametrize("order", ["", "highest"])
@pytest.mark.parametrize("level", [0, 2, 9])
def test_an_id_put_again_on_another_level_is_claimed_once(
    machine: Machine, level: int, order: str
) -> None:
    """While its old entry stands in a list the job may take that one's place; it comes once."""
    machine.put("x", level=5)
    machine.put("y", level=5)
    machine.retract("x")
    machine.put("x", level=level, front=True)

    assert sorted(claim_all(machine, 1, order)) == ["x", "y"]
    assert machine.finish("A", "x", "y") == 2
    assert machine.picture() == {"publishes": 3, "finishes": 2}


def test_an_id_put_again_in_front_of_others_is_found(machine: Machine) -> None:
    """Its entry on the former level stands for it when the other one is used up."""
    machine.put("x", level=5)
    machine.retract("x")
    machine.put("x")
    machine.put("y")
    assert machine.claim().ids == ["y"]
    assert claim_all(machine) == ["x"]


def test_due_jobs_come_behind_the_ready_ones_earliest_first(machine: Machine) -> None:
    machine.put("third", delay_ms=3 * HOUR_MS)
    machine.put("first", delay_ms=HOUR_MS)
    machine.put("never", delay_ms=100 * HOUR_MS)
    machine.put("better", delay_ms=3 * HOUR_MS, level=0)
    machine.put("worse", delay_ms=HOUR_MS, level=1)
    machine.put("second", delay_ms=2 * HOUR_MS)
    machine.pass_time(4 * HOUR_MS)
    machine.put("ready")

    reply = machine.claim("A", 9)

    assert reply.ids[:3] == ["ready", "first", "second"]
    assert sorted(reply.ids[3:5]) == ["better", "third"]
    assert reply.ids[5:] == ["worse"]
    assert not reply.more
    assert 95 * HOUR_MS < reply.due_in_ms <= 96 * HOUR_MS


def test_recovered_jobs_come_in_front_the_oldest_first(machine: Machine) -> None:
    ids = [f"j{n}" for n in range(12)]
    for n, id in enumerate(ids):
        machine.put(id, level=n % 2)
        machine.pass_time(1)
    assert len(machine.claim("A", 8).ids) == 8
    machine.stall("j0")

    assert machine.recover("A") == 7

    assert claim_all(machine) == [
        *(f"j{n}" for n in (2, 4, 6, 8, 10)), *(f"j{n}" for n in range(1, 12, 2))
    ]  # fmt: skip


def test_all_claims_of_a_node_are_recovered_and_no_others(machine: Machine) -> None:
    """An owner that ends in a dot stands for all that begin with it."""
    for n, owner in enumerate(("n1.1", "n1.2", "n10.1", "n1", "x.n1.1", "n1.10")):
        machine.put(f"j{n}")
        machine.claim(owner)

    assert machine.recover("n1.") == 3

    assert sorted(machine.picture()["owners"].values()) == ["n1", "n10.1", "x.n1.1"]
    assert machine.recover("n1") == 1
    assert machine.recover("n1.1") == 0
    assert sorted(claim_all(machine)) == ["j0", "j1", "j3", "j5"]


def test_timed_out_claims_come_in_front_the_longest_held_first(machine: Machine) -> None:
    machine.configure(claim_timeout=HOUR_MS)
    for id in "abcd":
        machine.put(id)
    for owner in ("A", "B"):
        machine.claim(owner)
        machine.pass_time(2 * HOUR_MS)
    assert machine.claim("A").ids == ["c"]

    assert machine.maintain() == [0, 0, 2]

    assert machine.claim("B", 9).jobs == [
        ("a", "item of a", 1), ("b", "item of b", 1), ("d", "item of d", None)
    ]  # fmt: skip
