"""Results of finished jobs: what is kept of them, for how long, and who hears of it."""

from __future__ import annotations

import pytest

from tests.lua.machine import HOUR_MS, Machine


def resolve(m: Machine, result: str, keep_ms: int | str = "", item: str = "query") -> bytes:
    """Put, claim and resolve job `x`; the key of its result."""
    m.put("x", item)
    m.claim()
    assert m.resolve("x", result=result, keep_ms=keep_ms) == "x"
    return m.keys.result("x")


def test_a_result_has_the_query_beside_it(machine: Machine) -> None:
    key = resolve(machine, "answer")
    assert machine.client.hgetall(key) == {b"query": b"query", b"result": b"answer"}
    assert machine.client.pttl(key) == -1


def test_a_result_is_kept_for_its_time(machine: Machine) -> None:
    key = resolve(machine, "answer", HOUR_MS)
    assert HOUR_MS - 10_000 < machine.client.pttl(key) <= HOUR_MS


@pytest.mark.parametrize(
    ("first", "second"), [(HOUR_MS, ""), (HOUR_MS, 5 * HOUR_MS), ("", HOUR_MS), ("", "")]
)
def test_a_later_result_takes_the_place_of_an_earlier_one(
    machine: Machine, first: int | str, second: int | str
) -> None:
    """Its time too: one that is kept for ever must not end with the one before."""
    resolve(machine, "first", first, "first query")
    key = resolve(machine, "second", second, "second query")

    assert machine.client.hgetall(key) == {b"query": b"second query", b"result": b"second"}
    left = machine.client.pttl(key)
    assert left == -1 if second == "" else second - 10_000 < left <= second


def test_a_refused_result_is_not_kept(machine: Machine) -> None:
    machine.put("x")
    machine.claim("B")
    with pytest.raises(Exception, match="not claimed by the caller"):
        machine.resolve("x", "A")
    assert not machine.client.exists(machine.keys.result("x"))
