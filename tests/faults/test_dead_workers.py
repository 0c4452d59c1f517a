"""Killed workers, all of one or a part of it: their jobs run elsewhere, soon, and none is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

import pytest

from tests.celery.exam import Exam
from tests.celery.workers import Worker
from tests.faults.holding import assert_none_lost, held_by, holders, wait_settled
from tests.servers import freeze, wait_for

TASKS = 60
#: Within so many seconds after a SIGKILL its jobs run elsewhere, with default settings.
RECOVERY_SECONDS = 6.0


def kill_group(worker: Worker) -> None:
    worker.kill()


def kill_main_only(worker: Worker) -> None:
    os.kill(worker.pid, signal.SIGKILL)


@pytest.mark.parametrize("kill", [kill_group, kill_main_only])
@pytest.mark.parametrize("elder", [True, False], ids=["elder", "younger"])
def test_a_killed_workers_jobs_run_elsewhere_in_seconds(exam: Exam, kill: Any, elder: bool) -> None:
    tag = "killed"
    with exam.worker(concurrency=2) as first, exam.worker(concurrency=2, may_fail=True) as second:
        victim = first if elder else second
        victim.may_fail = True
        results = [exam.task("record_late").delay(tag, n, 0.2) for n in range(TASKS)]
        exam.wait_ended(tag, 8)
        wait_for(lambda: len(holders(exam)) == 2, message="only one worker holds jobs")
        # Frozen first, so that what it holds at its death is known.
        freeze(victim.pid)
        held = held_by(exam, victim)
        kill(victim)
        killed_at = time.time()
        exam.wait_ended(tag, TASKS)
        wait_settled(exam)
    ended = exam.counts(tag, "end")
    again = {run["id"]: run["at"] for run in exam.log(tag, "start") if run["redelivered"]}
    first_again = min(again.values()) - killed_at
    twice = {job for job, runs in ended.items() if runs > 1}
    print(
        f"first redelivery {first_again:.2f} s after the kill, "
        f"{len(again)} redelivered, {len(twice)} had run to the end before"
    )
    assert set(ended) == {result.id for result in results}
    assert first_again < RECOVERY_SECONDS
    # What was not acknowledged is delivered again, and nothing else: each pool process was at
    # work on one job, and may have ended one of which the server had not yet heard.
    assert set(again) == held
    assert twice <= held and max(ended.values()) <= 2


def test_the_last_worker_dies_and_a_new_one_finds_its_jobs(exam: Exam) -> None:
    tag = "last"
    with exam.worker(concurrency=2, may_fail=True) as only:
        results = [exam.task("record_late").delay(tag, n, 0.2) for n in range(20)]
        exam.wait_ended(tag, 4)
        only.kill()
    with exam.worker(concurrency=2):
        ended = exam.wait_ended(tag, 20)
        wait_settled(exam)
    assert set(ended) == {result.id for result in results}


def test_killed_pool_processes(exam: Exam) -> None:
    """As the kernel kills when memory runs out: who works on a task, not the worker."""
    tag = "children"
    settings = {"task_reject_on_worker_lost": True}
    with exam.worker(concurrency=2, settings=settings) as worker:
        results = [exam.task("record_late").delay(tag, n, 0.2) for n in range(30)]
        for round in range(5):
            exam.wait_ended(tag, 3 * (round + 1))
            child = wait_for(worker.children, 30, message="the pool has no processes")[0]
            os.kill(child, signal.SIGKILL)
        exam.wait_ended(tag, 30)
        wait_settled(exam)
    assert_none_lost(exam, tag, [result.id for result in results])


@pytest.mark.timeout(300)
def test_workers_that_are_killed_all_the_time(exam: Exam) -> None:
    """One of three is killed and replaced every 1.5 s for 30 s, under 5,000 tasks."""
    tag, count = "churn", 5000
    with contextlib.ExitStack() as stack:
        # A replacement may be killed before it is ready.
        workers = [stack.enter_context(exam.worker(concurrency=2, may_fail=True)) for _ in range(3)]
        results = [exam.task("record_late").delay(tag, n, 0.005) for n in range(count)]
        until = time.monotonic() + 30
        kills = 0
        while time.monotonic() < until:
            workers.pop(0).kill()
            kills += 1
            workers.append(
                stack.enter_context(exam.worker(concurrency=2, may_fail=True, wait=False))
            )
            time.sleep(1.5)
        exam.wait_ended(tag, count, timeout_seconds=180)
        wait_settled(exam)
    print(f"{kills} workers killed")
    assert_none_lost(exam, tag, [result.id for result in results])
