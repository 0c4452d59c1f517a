"""Tasks that take longer than any time limit of ours: they run once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.celery.exam import Exam
from tests.faults.holding import assert_none_lost, held_by, wait_settled
from tests.servers import wait_for

#: Nodes that must be seen to live within three seconds; the tasks take six.
STRICT: dict[str, Any] = {
    "broker_transport_options": {"node_ttl": 3, "heartbeat_interval": 0.5, "presence_grace": 1},
}


@pytest.mark.parametrize("pool", ["solo", "prefork", "threads"])
def test_a_task_longer_than_every_timeout(exam: Exam, pool: str) -> None:
    """In a solo pool the main thread of the worker is busy with it all the time."""
    tag = "long"
    with (
        exam.worker(pool=pool, concurrency=1, settings=STRICT),
        exam.worker(pool=pool, concurrency=1, settings=STRICT),
    ):
        results = [exam.task("record_late").delay(tag, n, 6.0) for n in range(2)]
        exam.wait_ended(tag, 2)
        wait_settled(exam)
    ended = assert_none_lost(exam, tag, [result.id for result in results])
    assert set(ended.values()) == {1}
    assert exam.counts(tag) == ended


def test_an_eta_beyond_every_timeout(exam: Exam) -> None:
    tag = "eta"
    with (
        exam.worker(concurrency=1, settings=STRICT),
        exam.worker(concurrency=1, settings=STRICT),
    ):
        task = exam.task("record_late")
        results = [task.apply_async((tag, n), countdown=6) for n in range(6)]
        exam.wait_ended(tag, 6)
        wait_settled(exam)
    ended = assert_none_lost(exam, tag, [result.id for result in results])
    assert set(ended.values()) == {1}
    assert exam.counts(tag) == ended


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_what_was_done_before_a_long_task_stays_done(exam: Exam, seconds: float) -> None:
    """In a solo pool, which runs tasks while it takes messages: the tasks before are acknowledged
    while the long one runs, and not run again when it kills the worker."""
    tag = "before"
    ids = [exam.task("record_late").delay(tag, n, seconds).id for n in range(6)]
    ids.append(exam.task("gate_late").delay(tag).id)
    with exam.worker(pool="solo", may_fail=True) as victim:
        exam.wait_started(tag, len(ids))
        wait_for(
            lambda: held_by(exam, victim) == {ids[-1]}, 10, message="not acknowledged meanwhile"
        )
        victim.kill()
        with exam.worker(pool="solo"):
            exam.open_gate(tag)
            exam.wait_ended(tag, len(ids))
            wait_settled(exam)
    assert_none_lost(exam, tag, ids)
    assert exam.counts(tag) == {**dict.fromkeys(ids, 1), ids[-1]: 2}


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_heartbeats_under_green_threads(exam: Exam, pool: str) -> None:
    """The heart is a green thread there: it beats while tasks wait, and outlasts one that computes
    for less than node_ttl."""
    tag = pool
    with (
        exam.worker(pool=pool, concurrency=4, settings=STRICT) as green,
        exam.worker(pool="solo", queues="other", settings=STRICT) as judge,
    ):
        waiting = [exam.task("record_late").delay(tag, n, 6.0) for n in range(3)]
        exam.wait_started(tag, 3)
        computing = exam.task("burn_late").delay(tag, 1.0)
        exam.wait_ended(tag, 4)
        wait_settled(exam)
        assert "taken for dead" not in green.log()
        assert "is dead" not in judge.log()
    ended = assert_none_lost(exam, tag, [result.id for result in [*waiting, computing]])
    assert set(ended.values()) == {1}
    assert exam.counts(tag) == ended


def test_a_claim_timeout_is_for_living_workers_too(exam: Exam) -> None:
    """Where it is asked for, and only then: a task that hangs goes to another worker."""
    tag = "hangs"
    settings = {"broker_transport_options": {"claim_timeout": 1}}
    with exam.worker(pool="solo", settings=settings, may_fail=True) as first:
        result = exam.task("gate_late").delay(tag)
        exam.wait_started(tag, 1)
        with exam.worker(pool="solo", settings=settings) as second:
            runs = exam.wait_started(tag, 2)
            exam.open_gate(tag)
            exam.wait_ended(tag, 1)
            wait_settled(exam)
            # One of them is elected.
            assert "claimed longer ago than its claim_timeout" in first.log() + second.log()
    assert [run["redelivered"] for run in runs[:2]] == [False, True]
    assert set(exam.counts(tag, "end")) == {result.id}
