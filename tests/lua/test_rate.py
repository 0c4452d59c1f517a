"""The rate limit in the claim script: so many, no more, and when to come again."""

from __future__ import annotations

import pytest

from tests.lua.machine import Machine
from tests.servers import wait_for


@pytest.fixture
def limited(machine: Machine) -> Machine:
    """A queue with 20 jobs: one for every 200 ms, three at once."""
    machine.configure(rate_interval="200", rate_burst="3")
    for n in range(20):
        machine.append(f"{n:02}")
    return machine


def test_the_burst_and_then_one_by_one(limited: Machine) -> None:
    start = limited.clock_ms()
    first = limited.claim("A", 10)
    assert first.ids == ["00", "01", "02"]
    assert not first.more and 0 < first.due_in_ms <= 200
    assert not limited.client.exists(limited.keys.wake)
    assert limited.claim("B", 10).ids == []

    taken = len(first.ids)

    def one_more() -> bool:
        nonlocal taken
        taken += len(limited.claim("B", 10).ids)
        return taken >= 8

    wait_for(one_more, 10, 0.005)
    passed = limited.clock_ms() - start
    assert passed >= 5 * 200 - 5
    # As many as were earned, never more.
    assert taken <= 3 + passed / 200


def test_when_to_come_again_is_exact(limited: Machine) -> None:
    limited.claim("A", 3)
    for _ in range(3):
        due = limited.claim("A", 1).due_in_ms
        start = limited.clock_ms()
        wait_for(lambda s=start, d=due: limited.clock_ms() >= s + d, 5, 0.001)
        assert len(limited.claim("A", 1).ids) == 1


def test_what_was_not_used_is_not_saved_up(limited: Machine) -> None:
    limited.claim("A", 1)
    start = limited.clock_ms()
    wait_for(lambda: limited.clock_ms() > start + 1200, 5)
    assert len(limited.claim("A", 10).ids) == 3


def test_a_claim_of_none_takes_no_token(limited: Machine) -> None:
    for _ in range(5):
        limited.claim("A", 0)
    assert len(limited.claim("A", 10).ids) == 3


def test_an_empty_queue_says_when_the_next_scheduled_job_is_due(machine: Machine) -> None:
    machine.configure(rate_interval="1000", rate_burst="1")
    machine.put("x")
    machine.put("later", delay_ms=400)
    reply = machine.claim("A", 5)
    assert reply.ids == ["x"]
    # It is due earlier, and may not be claimed before.
    assert 900 <= reply.due_in_ms <= 1000


def test_the_limit_taken_off(limited: Machine) -> None:
    limited.claim("A", 5)
    limited.client.hdel(limited.keys.config, "rate_interval", "rate_burst")
    assert len(limited.claim("A", 20).ids) == 17
