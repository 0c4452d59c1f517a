"""The same tasks in every pool: each runs once, with the right result."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from celery import chain, chord, group
from celery.result import ResultSet

from tests.celery.exam import Exam
from tests.celery.workers import POOLS, Worker
from tests.servers import wait_for

TASKS = 300
CONCURRENCY = {"solo": 1, "prefork": 2, "threads": 4, "gevent": 20, "eventlet": 20}


@pytest.fixture(scope="module", params=POOLS)
def worker(request: pytest.FixtureRequest, shared_exam: Exam) -> Iterator[Worker]:
    """One worker for all tests of this module, in each pool in turn."""
    pool = request.param
    with shared_exam.worker(pool=pool, concurrency=CONCURRENCY[pool]) as worker:
        yield worker


@pytest.fixture
def tag(request: pytest.FixtureRequest) -> str:
    """A name for the records of one test in one pool."""
    return str(request.node.name)


def test_each_of_many_tasks_runs_once(shared_exam: Exam, worker: Worker, tag: str) -> None:
    record = shared_exam.task("record")
    sent = {record.delay(tag, number): number for number in range(TASKS)}
    ended = shared_exam.wait_ended(tag, TASKS)
    assert {result.id: result.get(timeout=30) for result in sent} == {
        result.id: number for result, number in sent.items()
    }
    assert ended == shared_exam.counts(tag) == {result.id: 1 for result in sent}
    assert {entry["worker"] for entry in shared_exam.log(tag)} == {worker.name}
    assert not any(entry["redelivered"] for entry in shared_exam.log(tag))
    shared_exam.wait_queue_size(0)


def test_an_idle_worker_is_woken(shared_exam: Exam, worker: Worker, tag: str) -> None:
    record = shared_exam.task("record")
    shared_exam.task("record").delay(tag).get(timeout=30)
    started = time.monotonic()
    for number in range(10):
        assert record.delay(tag, number).get(timeout=30) == number
    # Ten polls of a second each would take ten: somebody wakes the worker.
    assert time.monotonic() - started < 6


def test_retries_wait_for_their_countdown(shared_exam: Exam, worker: Worker, tag: str) -> None:
    countdown = 0.7
    sent = [
        shared_exam.task("stubborn").delay(tag, times=2, countdown=countdown, value=number)
        for number in range(5)
    ]
    assert [result.get(timeout=60) for result in sent] == list(range(5))
    for result in sent:
        runs = [run for run in shared_exam.log(tag, "start") if run["id"] == result.id]
        assert [run["attempt"] for run in runs] == [0, 1, 2]
        pauses = [later["at"] - earlier["at"] for earlier, later in itertools.pairwise(runs)]
        assert min(pauses) >= countdown - 0.05, pauses


def test_countdown_and_eta(shared_exam: Exam, worker: Worker, tag: str) -> None:
    record = shared_exam.task("record")
    eta = datetime.now(timezone.utc) + timedelta(seconds=1.5)
    late = {record.apply_async((tag, "eta"), eta=eta).id for _ in range(5)}
    late |= {record.apply_async((tag, "countdown"), countdown=1.5).id for _ in range(5)}
    at_once = record.delay(tag, "now")
    at_once.get(timeout=30)
    ended = shared_exam.wait_ended(tag, 11)
    assert ended == dict.fromkeys([*late, at_once.id], 1)
    first = min(run["at"] for run in shared_exam.log(tag, "start") if run["id"] in late)
    assert first >= eta.timestamp() - 0.05
    assert shared_exam.log(tag, "start")[0]["id"] == at_once.id


def test_failures_and_ignored_results(shared_exam: Exam, worker: Worker, tag: str) -> None:
    failed = shared_exam.task("fail").delay("on purpose")
    with pytest.raises(ValueError, match="on purpose"):
        failed.get(timeout=30)
    assert failed.state == "FAILURE" and "ValueError" in failed.traceback
    quiet = shared_exam.task("record_quiet").delay(tag, 1)
    ignored = shared_exam.task("ignored").delay(tag)
    wait_for(lambda: len(shared_exam.counts(tag)) == 2, 30, message="not all tasks ran")
    shared_exam.task("add").delay(1, 1).get(timeout=30)
    stored = shared_exam.server.client(shared_exam.broker_db + 1)
    assert not stored.exists(f"celery-task-meta-{quiet.id}", f"celery-task-meta-{ignored.id}")
    assert shared_exam.counts(tag) == {quiet.id: 1, ignored.id: 1}
    shared_exam.wait_queue_size(0)


def test_a_rejected_task_comes_back(shared_exam: Exam, worker: Worker, tag: str) -> None:
    result = shared_exam.task("refuse").delay(tag, requeue_times=2)
    shared_exam.wait_ended(tag, 1)
    runs = shared_exam.log(tag, "start")
    assert [run["id"] for run in runs] == [result.id] * 3
    assert [run["redelivered"] for run in runs] == [False, True, True]
    shared_exam.wait_queue_size(0)


def test_canvas(shared_exam: Exam, worker: Worker) -> None:
    add, total = shared_exam.task("add"), shared_exam.task("total")
    steps = chain(add.s(1, 2), add.s(3), add.s(4)).delay()
    many = group(add.s(number, number) for number in range(20)).delay()
    folded = chord((add.s(number, 1) for number in range(20)), total.s()).delay()
    nested = chain(group(add.s(1, 1), chain(add.s(2, 2), add.s(1))), total.s(), add.s(100)).delay()
    assert steps.get(timeout=60) == 10
    assert many.get(timeout=60) == [2 * number for number in range(20)]
    assert folded.get(timeout=60) == sum(range(1, 21))
    assert nested.get(timeout=60) == 107


def test_tasks_published_by_tasks(shared_exam: Exam, worker: Worker, tag: str) -> None:
    parents = [shared_exam.task("spread").delay(tag, 20) for _ in range(5)]
    children = [child for parent in parents for child in parent.get(timeout=60)]
    assert len(set(children)) == 100
    ended = shared_exam.wait_ended(tag, 100)
    assert ended == dict.fromkeys(children, 1)


def test_large_and_odd_arguments(shared_exam: Exam, worker: Worker) -> None:
    echo = shared_exam.task("echo")
    values = ["x" * 300_000, "snow \N{SNOWMAN} \U0001f600 \x00 \\ \"'", {"a": [1, None, 2.5]}, ""]
    results = [echo.delay(value) for value in values]
    # A compressed body is bytes that are no UTF-8.
    results.append(echo.apply_async(("zipped " * 1000,), compression="zlib"))
    assert ResultSet(results).join(timeout=60) == [*values, "zipped " * 1000]


def test_ping_and_shutdown(shared_exam: Exam, worker: Worker, tag: str) -> None:
    """The last test of each worker, as it ends it: by remote control, with nothing left."""
    shared_exam.listening(worker)
    ids = {shared_exam.task("record").delay(tag, number).id for number in range(20)}
    shared_exam.wait_ended(tag, 20)
    shared_exam.app.control.shutdown(destination=[worker.name])
    assert worker.join() == 0
    assert shared_exam.counts(tag) == dict.fromkeys(ids, 1)
    assert "Got shutdown from remote" in worker.log()
    assert shared_exam.queue_size() == 0


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_green_threads_do_not_wait_for_room(shared_exam: Exam, pool: str, tag: str) -> None:
    """A worker that holds all it may hold goes on as soon as a task is done."""
    settings = {"worker_prefetch_multiplier": 1}
    with shared_exam.worker(pool=pool, concurrency=2, settings=settings) as worker:
        shared_exam.listening(worker)
        started = time.monotonic()
        ids = [shared_exam.task("record_late").delay(tag, number).id for number in range(30)]
        assert shared_exam.wait_ended(tag, 30) == dict.fromkeys(ids, 1)
        # Two at a time, and two seconds for each pair, were thirty.
        assert time.monotonic() - started < 10
