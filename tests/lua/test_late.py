"""The mark that recovery leaves in the place of an owner who was taken for dead."""

from __future__ import annotations

from tests.lua.machine import HOUR_MS, Machine
from tests.lua.pictures import check


def taken_from_a(m: Machine, *ids: str) -> None:
    """Put and let A claim jobs, then give them back as A seems dead."""
    for id in ids:
        m.put(id)
    assert m.claim("A", len(ids)).ids == list(ids)
    assert m.recover("A", "cancel") == len(ids)


def test_it_is_no_owner(machine: Machine) -> None:
    """Neither for those who look the job up, nor for those who hold it."""
    taken_from_a(machine, "x")
    assert machine.picture()["owners"]["x"].startswith("late:")
    found = machine.run("job/lookup", "x")
    assert found[2] == "ready" and found[8] == ""
    assert machine.cancel("A", "x") == 0
    assert machine.recover("A", "cancel") == 0
    assert machine.claim("B").ids == ["x"]
    assert machine.picture()["owners"] == {"x": "B"}
    assert machine.run("job/lookup", "x")[8] == "B"
    assert machine.finish("A", "x") == 0
    assert machine.finish("B", "x") == 1


def test_a_claim_beside_a_doubled_entry(machine: Machine) -> None:
    """Where a foreign client has put an id twice, the claim looks at the owners: a mark is none."""
    taken_from_a(machine, "x", "y")
    machine.client.rpush(machine.keys.ids, "y")
    assert sorted(machine.claim("B", 5).ids) == ["x", "y"]
    assert machine.picture()["owners"] == {"x": "B", "y": "B"}


def test_it_is_of_one_job_only(machine: Machine) -> None:
    """The job is purged, and another is put under its id at another time."""
    taken_from_a(machine, "x")
    machine.purge()
    machine.pass_time(HOUR_MS)
    assert machine.finish("A", "x") == 0
    machine.put("x", "another")
    machine.pass_time(-7, "x")
    assert machine.finish("A", "x") == 0
    assert machine.claim("B").jobs == [("x", "another", None)]


def test_marks_without_a_job_are_dropped(machine: Machine) -> None:
    """By the next recovery, of whomever."""
    taken_from_a(machine, "x", "y")
    assert machine.claim("B").ids == ["x"]
    machine.purge()
    assert set(machine.picture()["owners"]) == {"x", "y"}
    assert machine.recover("B", "cancel") == 1
    picture = machine.picture()
    assert set(picture["owners"]) == {"x"} and picture["owners"]["x"].endswith(":B")
    check(picture, machine.stats())
    machine.retract("x")
    assert "owners" not in machine.picture()


def test_a_release_that_is_late_takes_nothing_that_was_claimed_again(machine: Machine) -> None:
    """Its consumer has given up waiting, given the jobs back by another way, and claimed again."""
    machine.put("x")
    machine.claim("A")
    until_ms = machine.clock_ms()
    assert machine.cancel("A", "x", mode="release", delay_ms=until_ms) == 1
    while machine.clock_ms() <= until_ms:
        pass
    machine.claim("A")
    assert machine.cancel("A", "x", mode="release", delay_ms=until_ms) == 0
    assert machine.picture()["claimed"].keys() == {"x"}
