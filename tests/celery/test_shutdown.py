"""Ending a worker that holds messages: nothing is lost, nothing runs twice."""

from __future__ import annotations

import signal
import time

import pytest

from tests.celery.exam import Exam
from tests.celery.workers import POOLS
from tests.servers import wait_for

CONCURRENCY = 2
WAITING = 20
#: Celery prefetches four for each of its processes or threads.
PREFETCHED = 4 * CONCURRENCY


def slots(pool: str) -> int:
    """Return how many tasks run at once in these tests."""
    return 1 if pool == "solo" else CONCURRENCY


def finish_elsewhere(exam: Exam, tag: str, count: int) -> None:
    """Let another worker run what is left, until `count` tasks have ended and none is left."""
    if len(exam.counts(tag, "end")) == count and exam.queue_size() == 0:
        return
    with exam.worker(pool="threads", concurrency=10):
        exam.wait_ended(tag, count)
        wait_for(lambda: exam.queue_size() == 0, message="messages are left")


@pytest.mark.parametrize(
    ("pool", "late"), [*((pool, False) for pool in POOLS), ("prefork", True), ("threads", True)]
)
def test_warm_shutdown(exam: Exam, pool: str, late: bool) -> None:
    tag = f"warm-{pool}"
    gate, record = ("gate_late", "record_late") if late else ("gate", "record")
    with exam.worker(pool=pool, concurrency=CONCURRENCY) as worker:
        gates = [exam.task(gate).delay(tag) for _ in range(slots(pool))]
        exam.wait_started(tag, slots(pool))
        rest = [exam.task(record).delay(tag, number) for number in range(WAITING)]
        if pool == "prefork":
            # Messages are prefetched now, and none of them can start.
            wait_for(lambda: exam.queue_size() < WAITING, message="nothing was prefetched")
        worker.send_signal(signal.SIGTERM)
        worker.wait_for_log("Warm shutdown")
        exam.open_gate(tag)
        assert worker.join() == 0
        ended = exam.counts(tag, "end")
        assert {result.id for result in gates} <= set(ended)
        assert exam.queue_size() == WAITING + len(gates) - len(ended)
        if pool == "prefork":
            assert len(ended) < WAITING
    assert all(result.get(timeout=10) == tag for result in gates)
    finish_elsewhere(exam, tag, WAITING + len(gates))
    ids = {result.id: 1 for result in [*gates, *rest]}
    assert exam.counts(tag) == exam.counts(tag, "end") == ids


@pytest.mark.beyond_stock("its last BRPOP still takes a message, for as long as the worker is busy")
def test_warm_shutdown_does_not_take_new_work(exam: Exam) -> None:
    tag = "closing"
    with exam.worker(pool="prefork", concurrency=1) as worker:
        gate = exam.task("gate").delay(tag)
        exam.wait_started(tag, 1)
        worker.send_signal(signal.SIGTERM)
        worker.wait_for_log("Warm shutdown")
        late = [exam.task("record").delay(tag, number) for number in range(WAITING)]
        with exam.worker(pool="threads") as other:
            # The other worker gets them all, although the first is still busy.
            exam.wait_ended(tag, WAITING)
            assert {run["worker"] for run in exam.log(tag, "end")} == {other.name}
            exam.open_gate(tag)
            assert gate.get(timeout=30) == tag
            assert worker.join() == 0
    assert exam.counts(tag) == {result.id: 1 for result in [gate, *late]}


def test_cold_shutdown_of_late_acknowledged_tasks(exam: Exam) -> None:
    tag = "cold-late"
    with exam.worker(pool="prefork", concurrency=CONCURRENCY) as worker:
        gates = [exam.task("gate_late").delay(tag) for _ in range(CONCURRENCY)]
        exam.wait_started(tag, CONCURRENCY)
        rest = [exam.task("record_late").delay(tag, number) for number in range(WAITING)]
        wait_for(lambda: exam.queue_size() < WAITING, message="nothing was prefetched")
        worker.send_signal(signal.SIGQUIT)
        worker.wait_for_log("Cold shutdown")
        worker.join()
        # All are back, those that were cut off in the middle too.
        assert not exam.counts(tag, "end")
        exam.wait_queue_size(WAITING + CONCURRENCY)
    exam.open_gate(tag)
    finish_elsewhere(exam, tag, WAITING + CONCURRENCY)
    assert exam.counts(tag, "end") == {result.id: 1 for result in [*gates, *rest]}
    starts = exam.counts(tag)
    assert {starts[result.id] for result in gates} == {2}
    assert {starts[result.id] for result in rest} == {1}
    cut = {result.id for result in gates}
    assert {run["id"] for run in exam.log(tag, "end") if run["redelivered"]} >= cut


def test_cold_shutdown_of_early_acknowledged_tasks(exam: Exam) -> None:
    tag = "cold-early"
    with exam.worker(pool="prefork", concurrency=CONCURRENCY) as worker:
        gates = [exam.task("gate").delay(tag) for _ in range(CONCURRENCY)]
        exam.wait_started(tag, CONCURRENCY)
        rest = [exam.task("record").delay(tag, number) for number in range(WAITING)]
        wait_for(lambda: exam.queue_size() < WAITING, message="nothing was prefetched")
        worker.send_signal(signal.SIGQUIT)
        worker.join()
        # Acknowledged when they began, so they are gone: that is what was asked for.
        exam.wait_queue_size(WAITING)
    finish_elsewhere(exam, tag, WAITING)
    assert exam.counts(tag) == {result.id: 1 for result in [*gates, *rest]}
    assert exam.counts(tag, "end") == {result.id: 1 for result in rest}


@pytest.mark.since57("a solo worker's task fails in mid-shutdown and the worker stays")
@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_cold_shutdown_of_other_pools(exam: Exam, pool: str) -> None:
    tag = f"cold-{pool}"
    # Celery's handler cannot end a task in these pools and stumbles (NotImplementedError),
    # in solo right in the middle of the task; what it holds must be safe all the same.
    with exam.worker(pool=pool, concurrency=CONCURRENCY, may_fail=True) as worker:
        results = [exam.task("record_late").delay(tag, n, 0.05) for n in range(60)]
        exam.wait_ended(tag, 5)
        worker.send_signal(signal.SIGQUIT)
        worker.join()
    failed = {result.id for result in results if result.state == "FAILURE"}
    assert len(failed) <= (pool == "solo")
    finish_elsewhere(exam, tag, 60 - len(failed))
    ended = exam.counts(tag, "end")
    assert set(ended) | failed == {result.id for result in results}
    # Threads cannot be stopped: the process ends when they have run all that the pool was handed,
    # although their worker has given it up. That is as much as had been prefetched.
    assert sum(ended.values()) <= 60 + (PREFETCHED if pool == "threads" else slots(pool))


def test_soft_shutdown(exam: Exam) -> None:
    tag = "soft"
    settings = {"worker_soft_shutdown_timeout": 3.0}
    with exam.worker(pool="prefork", concurrency=2, settings=settings) as worker:
        short = exam.task("record_late").delay(tag, "short", 1.0)
        long = exam.task("gate_late").delay(tag)
        exam.wait_started(tag, 2)
        worker.send_signal(signal.SIGQUIT)
        worker.wait_for_log("Initiating Soft Shutdown")
        worker.join()
        assert short.get(timeout=10) == "short"
        exam.wait_queue_size(1)
    exam.open_gate(tag)
    finish_elsewhere(exam, tag, 2)
    assert exam.counts(tag, "end") == {short.id: 1, long.id: 1}
    assert exam.counts(tag) == {short.id: 1, long.id: 2}


def test_a_burst_of_restarts(exam: Exam) -> None:
    """Workers come and go all the time; what they leave is taken up by the next.

    Not with prefork: stopped with results on their way, Celery does not read them all, and
    those tasks run again, on any broker.
    """
    tag = "restarts"
    results = [exam.task("record").delay(tag, number, 0.01) for number in range(400)]
    ended = 0
    for pool in ("threads", "gevent", "eventlet", "solo"):
        with exam.worker(pool=pool, concurrency=4) as worker:
            exam.wait_ended(tag, ended + 40)
            assert worker.stop() == 0
        ended = len(exam.counts(tag, "end"))
        assert exam.queue_size() == 400 - ended
    finish_elsewhere(exam, tag, 400)
    assert exam.counts(tag) == exam.counts(tag, "end") == {result.id: 1 for result in results}


def test_delayed_tasks_survive_the_end_of_their_worker(exam: Exam) -> None:
    tag = "delayed"
    countdown = 8.0
    with exam.worker(pool="prefork") as worker:
        sent_at = time.time()
        results = [
            exam.task("record").apply_async((tag, number), countdown=countdown)
            for number in range(50)
        ]
        exam.task("add").delay(1, 1).get(timeout=30)
        assert worker.stop() == 0
    assert not exam.counts(tag)
    with exam.worker(pool="threads"):
        ended = exam.wait_ended(tag, 50)
    assert ended == exam.counts(tag) == {result.id: 1 for result in results}
    assert min(run["at"] for run in exam.log(tag)) >= sent_at + countdown - 0.1
