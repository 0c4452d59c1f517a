"""What the main process has handed to a child of a prefork pool, and heard nothing about yet.

The child will run it, whatever becomes of the connection or the worker. A child that is stopped
makes long what is else the moment of handing over.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from tests.celery.exam import Exam
from tests.celery.workers import Worker
from tests.faults.holding import assert_none_lost, holders, wait_settled
from tests.faults.test_lost_connections import cut, exam, wait_back
from tests.servers import freeze

__all__ = ["exam"]

TAG = "handed"

#: More than a pipe takes: the child has to read for it to be handed over whole.
LARGE = "x" * 200_000


@contextmanager
def stopped(worker: Worker) -> Iterator[int]:
    """The worker's child, whose process id this is, does nothing meanwhile."""
    (child,) = worker.children()
    os.kill(child, signal.SIGSTOP)
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGCONT)


def hand_over(exam: Exam, worker: Worker, *tasks: Any) -> list[str]:
    """Send these, and wait until the worker has written to its child what it is going to."""
    ids = [task.delay().id for task in tasks]
    for job in ids:
        worker.wait_for_log(f"[{job}] received")
    for _ in range(2):  # the event loop has been round
        exam.listening(worker)
    return ids


@pytest.mark.parametrize("task", ["record", "record_late"])
@pytest.mark.parametrize("value", ["", LARGE], ids=["small", "large"])
def test_a_warm_shutdown(exam: Exam, task: str, value: str) -> None:
    """The worker waits for it, and hears that it is done; what the child has not been given goes
    back to the queue."""
    with exam.worker(concurrency=1, log_level="DEBUG") as worker:
        with stopped(worker):
            signature = exam.task(task).s(TAG, value)
            ids = hand_over(exam, worker, *[signature] * 3)
            worker.send_signal(signal.SIGTERM)
            if not value:  # one that is written in part is written to its end first
                worker.wait_for_log("Stopping Pool")
        assert worker.join() == 0
    assert exam.counts(TAG, "end") == exam.counts(TAG) == {ids[0]: 1}
    assert exam.queue_size() == 2 and holders(exam) == {}


def test_workers_that_are_replaced_while_they_are_busy(exam: Exam) -> None:
    """Nothing runs twice at a deployment. Stock: one task in every third or fourth shutdown."""
    task = exam.task("record_late")
    ids = [task.delay(TAG, n, 0.002).id for n in range(600)]
    for done in range(100, 600, 100):
        with exam.worker() as worker:
            exam.wait_ended(TAG, done)
            worker.send_signal(signal.SIGTERM)
            assert worker.join() == 0
        ran = exam.counts(TAG)
        assert len(ran) + exam.queue_size() == len(ids) and holders(exam) == {}
    with exam.worker():
        exam.wait_ended(TAG, len(ids))
        wait_settled(exam)
    assert_none_lost(exam, TAG, ids)
    assert exam.counts(TAG) == dict.fromkeys(ids, 1)


@pytest.mark.parametrize("task", ["record", "record_late"])
@pytest.mark.parametrize("value", ["", LARGE], ids=["small", "large"])
def test_a_lost_connection(exam: Exam, task: str, value: str) -> None:
    """What the child has not been given is delivered again, and that only."""
    with exam.worker(concurrency=1) as worker:
        with stopped(worker):
            signature = exam.task(task).s(TAG, value)
            ids = hand_over(exam, worker, *[signature] * 3)
            cut(exam, "normal", "pubsub")
            if not value:
                wait_back(exam, worker)
        exam.wait_ended(TAG, 3)
        wait_settled(exam)
    assert_none_lost(exam, TAG, ids)
    assert exam.counts(TAG) == dict.fromkeys(ids, 1)


def test_the_child_dies_with_the_connection(exam: Exam) -> None:
    """The next child reads the same pipe, and runs what lies in it."""
    with exam.worker(concurrency=1, may_fail=True) as worker:
        with stopped(worker) as child:
            ids = hand_over(exam, worker, exam.task("record_late").s(TAG))
            freeze(worker.pid)
            os.kill(child, signal.SIGKILL)
            cut(exam, "normal", "pubsub")
            worker.send_signal(signal.SIGCONT)
            worker.wait_for_log("Connected to phonon://", count=2)
        exam.wait_ended(TAG, 1)
        wait_settled(exam)
    assert exam.counts(TAG) == {ids[0]: 1}


def test_celery_ends_what_has_begun_where_it_is_told_to(exam: Exam) -> None:
    """`worker_cancel_long_running_tasks_on_connection_loss`: it does not end what it does not know
    to have begun."""
    settings = {"worker_cancel_long_running_tasks_on_connection_loss": True}
    with exam.worker(concurrency=1, settings=settings) as worker:
        with stopped(worker):
            ids = hand_over(exam, worker, exam.task("record_late").s(TAG))
            cut(exam, "normal", "pubsub")
            worker.wait_for_log("Connected to phonon://", count=2)
        exam.wait_ended(TAG, 1)
        wait_settled(exam)
    assert exam.counts(TAG) == {ids[0]: 1}
