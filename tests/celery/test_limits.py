"""Time limits, revocation and pool processes that die: what only a prefork pool can do."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from celery.exceptions import TaskRevokedError, TimeLimitExceeded, WorkerLostError

from tests.celery.exam import Exam
from tests.celery.workers import Worker
from tests.servers import wait_for


@pytest.fixture(scope="module")
def worker(shared_exam: Exam) -> Iterator[Worker]:
    """A prefork worker of two processes for all tests of this module."""
    with shared_exam.worker(pool="prefork", concurrency=2) as worker:
        yield worker


@pytest.fixture
def tag(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


def test_soft_and_hard_time_limits(shared_exam: Exam, worker: Worker, tag: str) -> None:
    before = set(worker.children())
    soft = shared_exam.task("overtime_soft").delay(tag, 60)
    hard = shared_exam.task("overtime_hard").delay(tag, 60)
    given = shared_exam.task("overtime").apply_async((tag, 60), time_limit=1.5)
    assert soft.get(timeout=30) == "stopped softly"
    for result in (hard, given):
        with pytest.raises(TimeLimitExceeded):
            result.get(timeout=30)
    assert shared_exam.task("overtime").delay(tag, 0).get(timeout=30) == "in time"
    wait_for(lambda: set(worker.children()) != before, message="no pool process was replaced")
    assert set(shared_exam.counts(tag).values()) == {1}
    shared_exam.wait_queue_size(0)


def test_revoke_of_tasks_that_wait(shared_exam: Exam, worker: Worker, tag: str) -> None:
    # Both processes are busy; of the rest some are in the worker, some still in the queue.
    gates = [shared_exam.task("gate").delay(tag) for _ in range(2)]
    shared_exam.wait_started(tag, 2)
    kept = [shared_exam.task("record").delay(tag, number) for number in range(20)]
    doomed = [shared_exam.task("record").delay(tag, -number) for number in range(20)]
    delayed = shared_exam.task("record").apply_async((tag, "late"), countdown=2)
    shared_exam.listening(worker)
    shared_exam.app.control.revoke([result.id for result in [*doomed, delayed]])
    ids = {result.id for result in [*doomed, delayed]}
    wait_for(
        lambda: ids <= set(shared_exam.ask(worker, "revoked")),
        message="the worker has not heard of the revocation",
    )
    shared_exam.open_gate(tag)
    shared_exam.wait_ended(tag, 22)
    for result in [*doomed, delayed]:
        with pytest.raises(TaskRevokedError):
            result.get(timeout=30)
    # The queue is worked off in order: once a later task has run, none is left behind.
    last = shared_exam.task("record").apply_async((tag, "last"), countdown=2)
    last.get(timeout=30)
    assert shared_exam.counts(tag) == {result.id: 1 for result in [*gates, *kept, last]}


def test_revoke_with_terminate(shared_exam: Exam, worker: Worker, tag: str) -> None:
    result = shared_exam.task("gate").delay(tag)
    (run,) = shared_exam.wait_started(tag, 1)
    assert run["pid"] in worker.children()
    shared_exam.listening(worker)
    result.revoke(terminate=True, signal="SIGKILL")
    with pytest.raises(TaskRevokedError):
        result.get(timeout=30)
    wait_for(lambda: run["pid"] not in worker.children(), message="the process still runs")
    results = [shared_exam.task("add").delay(number, 1) for number in range(20)]
    assert [result.get(timeout=30) for result in results] == list(range(1, 21))
    assert shared_exam.counts(tag) == {result.id: 1}
    assert not shared_exam.counts(tag, "end")


def test_a_lost_pool_process_hands_its_task_back(
    shared_exam: Exam, worker: Worker, tag: str
) -> None:
    results = [shared_exam.task("die").delay(tag, times=1) for _ in range(3)]
    assert [result.get(timeout=60) for result in results] == ["survived"] * 3
    assert shared_exam.counts(tag) == {result.id: 2 for result in results}
    for result in results:
        runs = [run for run in shared_exam.log(tag, "start") if run["id"] == result.id]
        assert [run["redelivered"] for run in runs] == [False, True]
    shared_exam.wait_queue_size(0)


def test_a_lost_pool_process_of_an_early_acked_task(
    shared_exam: Exam, worker: Worker, tag: str
) -> None:
    result = shared_exam.task("gate").delay(tag)
    (run,) = shared_exam.wait_started(tag, 1)
    os.kill(run["pid"], signal.SIGKILL)
    with pytest.raises(WorkerLostError):
        result.get(timeout=60)
    assert shared_exam.task("add").delay(1, 2).get(timeout=30) == 3
    assert shared_exam.counts(tag) == {result.id: 1}


def test_processes_replaced_while_working(exam: Exam) -> None:
    tag = "replaced"
    options = ("--max-tasks-per-child", "10")
    with exam.worker(pool="prefork", concurrency=2, options=options) as worker:
        results = [exam.task("record").delay(tag, number) for number in range(100)]
        ended = exam.wait_ended(tag, 100)
        assert ended == exam.counts(tag) == {result.id: 1 for result in results}
        assert len({run["pid"] for run in exam.log(tag, "start")}) >= 8
        worker.wait_for_children(2)
