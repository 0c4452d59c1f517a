"""Calls that are repeated, calls in slices, and calls that ask for more than a script may do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from phonon_kombu.errors import NotFound, NotStalled
from phonon_kombu.store.scripts import load
from tests.lua.machine import HOUR_MS, Machine, encoded
from tests.lua.pictures import check
from tests.lua.test_order import claim_all
from tests.servers import wait_for


def fill(m: Machine, count: int, **options: Any) -> list[str]:
    """Put `count` jobs in one write."""
    put = load("job/put").prepare(m.keys)
    fixed = [encoded(options.get(name, "")) for name in ("other", "level", "front", "due", "ttl")]
    fixed[1] = fixed[1] or b"0"
    ids = [f"j{n:05}" for n in range(count)]
    for start in range(0, count, 1000):
        part = ids[start : start + 1000]
        m.link.send([(put, (id.encode(), b"item", *fixed, b"")) for id in part])
    return ids


def test_a_put_repeated_is_one_job(machine: Machine) -> None:
    """At every stage of its life."""
    for step in (
        lambda: machine.put("x", delay_ms=HOUR_MS),
        lambda: machine.pass_time(2 * HOUR_MS),
        lambda: machine.maintain(),
        lambda: machine.claim(),
        lambda: machine.cancel("A", "x"),
        lambda: machine.stall("x"),
        lambda: machine.retry("x"),
    ):
        step()
        before = machine.picture()
        assert machine.put("x") == "x"
        assert machine.picture() == before
    assert claim_all(machine) == ["x"]


def test_a_put_by_its_other_id_repeated_is_one_job(machine: Machine) -> None:
    machine.put("x", "the first")

    for _ in range(3):
        assert machine.put("x", "the second", other_id="x~1") == "x~1"

    assert claim_all(machine) == ["x", "x~1"]


def test_the_jobs_of_one_task_are_numbered(machine: Machine) -> None:
    """And found by the task's id, in whatever order they come and go; the same again is no job."""
    names = ["x", *(f"x~{n}" for n in range(1, 17))]
    assert [machine.append("x", f"item {n}", "x~") for n in range(17)] == names
    assert machine.append("x", "item 3", "x~") == "x~3"
    beyond = machine.append("x", "one more", "x~")
    assert beyond not in names and beyond == machine.put("x", "one more", "x~")
    assert machine.stats()[0] == 18

    machine.retract("x")
    machine.retract("x~4")
    assert machine.put("x", "new", "x~") == "x"
    assert machine.put("x", "newer", "x~", level=2) == "x~4"
    check(machine.picture(), machine.stats())


def test_ends_repeated_change_nothing(machine: Machine) -> None:
    for id in "abc":
        machine.put(id)
    machine.claim("A", 3)
    assert machine.finish("A", "a", "b") == 2
    assert machine.finish("A", "a", "b", "c") == 1
    assert machine.finish("A", "a", "b", "c") == 0
    assert machine.stats()[5] == 3

    machine.put("d")
    machine.claim()
    assert machine.cancel("A", "d") == 1
    before = machine.picture()
    assert machine.cancel("A", "d") == 0
    assert machine.recover("A") == 0
    assert machine.picture() == before
    machine.stall("d")
    machine.retry("d")
    with pytest.raises(NotStalled):
        machine.retry("d")
    machine.retract("d")
    with pytest.raises(NotFound):
        machine.retract("d")


def test_those_that_are_cancelled_are_announced(machine: Machine) -> None:
    """Each once, those too that are stalled for it; nobody hears of those that are not."""
    for id in "abcd":
        machine.put(id)
    machine.claim("A", 4)
    with machine.client.pubsub() as heard:
        heard.subscribe("told")
        wait_for(lambda: heard.get_message(timeout=1) is not None)
        assert machine.cancel("A", "a", "b", "nobody", channel="told") == 2
        assert machine.cancel("A", "a", "b", channel="told") == 0
        assert machine.cancel("B", "c", channel="told") == 0
        assert machine.cancel("A", "c", limit=1, channel="told") == 1
        assert machine.cancel("A", "d") == 1
        machine.client.publish("told", "end")
        found: list[Any] = []
        while not found or found[-1] != b"end":
            message = heard.get_message(timeout=1)
            found += [message["data"]] if message else []
    assert sorted(found[:2]) == [b"a", b"b"] and found[2:] == [b"c", b"end"]


@pytest.mark.needs("scale")
def test_recovery_of_ten_thousand_claims_in_slices(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every slice does a few hundred; all of one owner's claims come back, none of another's."""
    ids = fill(machine, 10_000)
    for n in range(20):
        assert len(machine.claim("AB"[n % 2], 500).ids) == 500
    assert machine.picture()["owners"] == {id: "AB"[n // 500 % 2] for n, id in enumerate(ids)}
    kept = [id for n, id in enumerate(ids) if n // 500 % 2 == 0][:3]

    cursor, slices, took = "0", [], []
    while True:
        started = time.perf_counter()
        cursor, count, _ = machine.run("job/recover", "A", cursor, "restore", "", "", *kept)
        took.append(time.perf_counter() - started)
        slices.append(count)
        if cursor == "0":
            break

    with capsys.disabled():
        print(
            f"\nrecover, 10,000 claims: {len(slices)} slices of up to {max(slices)}, the longest "
            f"{max(took) * 1000:.1f} ms"
        )
    assert sum(slices) == 4997
    # A slice is as many hash buckets as it asks for, with what hangs on each.
    assert max(slices) < 400
    picture = machine.picture()
    check(picture, machine.stats())
    assert set(picture["ids"]) == {id for n, id in enumerate(ids) if n // 500 % 2 == 0} - {*kept}
    assert set(picture["owners"].values()) == {"A", "B"}
    assert machine.recover("A") == 3
    assert len(claim_all(machine, 500)) == 5000


def test_what_is_due_or_expired_is_dealt_with_in_slices(machine: Machine) -> None:
    ids = fill(machine, 450, due=HOUR_MS)
    machine.pass_time(2 * HOUR_MS)

    assert [machine.maintain(70)[0] for _ in range(6)] == [100, 100, 100, 100, 50, 0]
    assert claim_all(machine, 100) == ids
    assert machine.finish("A", *ids) == 450

    fill(machine, 450, ttl=HOUR_MS)
    machine.pass_time(2 * HOUR_MS)

    assert [machine.maintain(200)[1] for _ in range(4)] == [200, 200, 50, 0]
    assert claim_all(machine) == []
    assert "ghosts" not in machine.picture()


def test_purge_in_slices(machine: Machine) -> None:
    fill(machine, 1000)
    machine.put("later", delay_ms=HOUR_MS)

    replies = [machine.purge(300) for _ in range(4)]

    assert replies == [[300, 1], [300, 1], [300, 1], [101, 0]]
    assert machine.picture() == {"publishes": 1001}


#: More than Lua passes to a function.
TOO_MANY = 8500
OVERSIZED: dict[str, Callable[[Machine, list[str]], Any]] = {
    "claim": lambda m, ids: m.claim("A", TOO_MANY),
    "claim highest first": lambda m, ids: m.claim("A", TOO_MANY, "highest"),
    "purge": lambda m, ids: m.purge(TOO_MANY),
    "maintain": lambda m, ids: m.maintain(TOO_MANY),
    "finish": lambda m, ids: m.finish("A", *ids),
    "finish as anybody": lambda m, ids: m.finish("", *ids),
    "cancel": lambda m, ids: m.cancel("A", *ids),
    "recover": lambda m, ids: m.recover("A", keep=tuple(ids)),
    "relist": lambda m, ids: m.relist(*ids),
}


@pytest.mark.needs("scale")
@pytest.mark.parametrize(
    ("state", "name"),
    [
        *(("ready", name) for name in ("claim", "claim highest first", "purge")),
        *(("expired", name) for name in ("claim", "purge", "maintain")),
        *(("due", name) for name in ("claim", "purge", "maintain")),
        *(("claimed", name) for name in ("finish", "finish as anybody", "cancel")),
        *(("claimed", name) for name in ("recover", "relist")),
    ],
)
def test_too_much_at_once_loses_nothing(machine: Machine, state: str, name: str) -> None:
    """A script does a bounded part, or refuses before it writes: Redis does not roll back."""
    ids = fill(
        machine, TOO_MANY, ttl=HOUR_MS if state == "expired" else "",
        due=HOUR_MS if state == "due" else "",
    )  # fmt: skip
    if state == "claimed":
        while machine.claim("A", 900).jobs:
            pass
    elif state != "ready":
        machine.pass_time(2 * HOUR_MS)
    before = machine.picture()

    try:
        OVERSIZED[name](machine, ids)
    except Exception as error:
        assert machine.picture() == before, f"refused with {error!r}, after it had written"
    picture = machine.picture()
    check(picture, machine.stats())
    if name not in ("purge", "finish", "finish as anybody") and state != "expired":
        assert len(picture["items"]) == TOO_MANY
