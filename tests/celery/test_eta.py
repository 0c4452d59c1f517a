"""Tasks with eta or countdown wait in Redis, and start on time."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery.result import AsyncResult
from kombu import Queue

from phonon_kombu.thoonk import Thoonk
from tests.celery.exam import Exam, until
from tests.celery.workers import Worker

pytestmark = pytest.mark.beyond_stock("there they wait in the worker's memory")

#: Of six tasks the second earliest must keep the promise: others share this machine.
PROMISE_MS = 50.0


def stats(exam: Exam, queue: str = "exam") -> Any:
    return Thoonk(exam.broker).job(queue).stats()


def lateness(exam: Exam, tag: str, due: dict[str, float], shift: float = 0.0) -> list[float]:
    """Milliseconds by which tasks started after they were due, sorted."""
    exam.wait_started(tag, len(due))
    started = {run["id"]: run["at"] - shift for run in exam.log(tag, "start")}
    return sorted((started[task] - at) * 1000 for task, at in due.items())


def send_delayed(exam: Exam, tag: str, *countdowns: float) -> dict[str, float]:
    """Send a task for each countdown; id -> when it is due."""
    due = {}
    for seconds in countdowns:
        at = time.time() + seconds
        due[exam.task("record").apply_async((tag,), countdown=seconds).id] = at
    return due


def report(capsys: pytest.CaptureFixture[str], what: str, late: list[float]) -> None:
    with capsys.disabled():
        print(f"\n{what}: started {', '.join(f'{ms:.0f}' for ms in late)} ms after due")


@pytest.mark.parametrize(
    ("pool", "busy"),
    [("solo", False), ("prefork", False), ("threads", False), ("prefork", True), ("threads", True)],
)
def test_on_time(exam: Exam, pool: str, busy: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """An idle worker, or one of whose processes or threads one is busy.

    A busy solo worker can start nothing: see the next test.
    """
    with exam.worker(pool=pool, concurrency=2) as worker:
        send_delayed(exam, "warm", 0.05, 0.05)
        exam.wait_ended("warm", 2)
        if busy:
            exam.task("gate").delay("busy")
            exam.wait_started("busy", 1)
        due = send_delayed(exam, "late", *(0.83 + 0.37 * n for n in range(6)))
        assert not exam.ask(worker, "scheduled")
        late = lateness(exam, "late", due)
        exam.open_gate("busy")
    report(capsys, f"{pool}, {'busy' if busy else 'idle'}", late)
    assert late[0] > -5 and late[1] < PROMISE_MS and late[-1] < 2000


def test_a_busy_solo_worker_leaves_it_to_another(
    exam: Exam, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one that knows when the task is due runs something long when the time has come."""
    with exam.worker(pool="solo") as first:
        exam.listening(first)
        due = send_delayed(exam, "late", *(3 + 0.31 * n for n in range(6)))
        until(lambda: stats(exam).scheduled == 6, lambda: "not scheduled")
        exam.task("gate").delay("busy")
        exam.wait_started("busy", 1)
        with exam.worker(pool="solo") as second:
            late = lateness(exam, "late", due)
            assert {run["worker"] for run in exam.log("late", "start")} == {second.name}
        exam.open_gate("busy")
        exam.wait_ended("busy", 1)
    report(capsys, "taken over from a busy one", late)
    assert late[1] < PROMISE_MS


def test_four_workers(exam: Exam, capsys: pytest.CaptureFixture[str]) -> None:
    """Each task runs once, on time, whoever takes it."""
    with exam.worker(pool="solo"), exam.worker(pool="solo"), exam.worker(pool="threads"):
        due = send_delayed(exam, "late", *(1 + 0.05 * n for n in range(60)))
        late = lateness(exam, "late", due)
        assert exam.wait_ended("late", 60) == dict.fromkeys(due, 1)
    report(capsys, "60 tasks, 3 workers, earliest and median", [late[0], late[30]])
    assert late[6] < PROMISE_MS


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_worker_whose_clock_is_wrong(exam: Exam, tmp_path: Path, hours: int) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        f"import time\nreal = time.time\ntime.time = lambda: real() + {hours * 3600}\n"
    )
    environment = exam.environment()
    environment["PYTHONPATH"] = f"{tmp_path}:{environment['PYTHONPATH']}"
    with Worker(environment, pool="solo"):
        due = send_delayed(exam, "late", 0.5, 0.8, 1.1)
        late = lateness(exam, "late", due, hours * 3600.0)
    assert late[0] > -100 and late[-1] < 3000, late


def test_expires_and_eta(exam: Exam) -> None:
    """A task that expires before it is due is revoked when it is."""
    record = exam.task("record")
    gone = record.apply_async(("t", "gone"), countdown=1.5, expires=0.5)
    runs = record.apply_async(("t", "runs"), countdown=0.5, expires=60)
    with exam.worker(pool="solo"):
        exam.wait_ended("t", 1)
        until(lambda: AsyncResult(gone.id, app=exam.app).state == "REVOKED", lambda: "not revoked")
        assert exam.counts("t") == {runs.id: 1}


def test_a_revoked_task_does_not_start(exam: Exam) -> None:
    with exam.worker(pool="solo") as worker:
        exam.listening(worker)
        revoked = exam.task("record").apply_async(("t", "revoked"), countdown=1.5)
        exam.app.control.revoke(revoked.id)
        until(
            lambda: AsyncResult(revoked.id, app=exam.app).state == "REVOKED", lambda: "not revoked"
        )
        last = exam.task("record").delay("t", "last")
        exam.wait_ended("t", 1)
        assert exam.counts("t") == {last.id: 1}


def test_eta_seen_by_events_and_the_task(exam: Exam) -> None:
    """What a worker reports: no eta to wait for, the original one in the headers."""
    eta = datetime.now(timezone.utc) + timedelta(seconds=0.3)
    exam.task("record").apply_async(("t",), eta=eta)
    with exam.worker(pool="solo") as worker:
        exam.wait_ended("t", 1)
        assert "ETA:" not in worker.log()


def test_twenty_thousand_tasks_an_hour_ahead(
    exam: Exam, capsys: pytest.CaptureFixture[str]
) -> None:
    """They cost the worker nothing: they are not with it."""
    record, count = exam.task("record"), 20_000
    with exam.worker(pool="solo") as worker:
        exam.task("record").delay("warm")
        exam.wait_ended("warm", 1)
        exam.listening(worker)
        before = psutil.Process(worker.pid).memory_info().rss
        with exam.app.producer_pool.acquire(block=True) as producer:
            for number in range(count):
                record.apply_async(("t", number), countdown=3600, producer=producer)
        until(lambda: stats(exam).scheduled == count, lambda: "not scheduled", 60)
        exam.task("record").delay("still there")
        exam.wait_ended("still there", 1)
        grown = psutil.Process(worker.pid).memory_info().rss - before
    with capsys.disabled():
        print(f"\n{count} tasks an hour ahead: the worker grew by {grown / 1e6:.1f} MB")
    assert grown < 5_000_000


def test_a_rate_limit_over_two_workers(exam: Exam, capsys: pytest.CaptureFixture[str]) -> None:
    count = 60
    with exam.app.connection_for_write() as connection:
        Queue("exam", queue_arguments={"x-rate-limit": "30/s"})(connection).declare()
    for number in range(count):
        exam.task("record").delay("t", number)
    with exam.worker(pool="threads"), exam.worker(pool="threads"):
        exam.wait_ended("t", count)
        at = sorted(run["at"] for run in exam.log("t", "start"))
    seconds = at[-1] - at[0]
    with capsys.disabled():
        print(f"\n{count} tasks at 30/s over two workers: {seconds:.2f} s")
    # Three may go at once.
    assert seconds > (count - 4) / 30 - 0.3


def test_a_task_that_is_rejected_goes_to_the_dead_letter_exchange(exam: Exam) -> None:
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    with exam.app.connection_for_write() as connection:
        Queue("exam", queue_arguments=arguments)(connection).declare()
    spurned = exam.task("spurn").delay("t")
    with exam.worker(pool="prefork", concurrency=1):
        exam.wait_queue_size(1, "dead")
    assert exam.counts("t") == {spurned.id: 1}
    with exam.app.connection_for_read() as connection:
        letter = connection.default_channel.basic_get("dead")
    assert letter.headers["id"] == spurned.id
    assert letter.headers["x-death"][0]["reason"] == "rejected"


def test_a_unique_task_that_retries(exam: Exam) -> None:
    """Its retry is not its own duplicate; another call meanwhile is."""
    task, headers = exam.task("stubborn"), {"x-deduplication-id": "nightly"}
    first = task.apply_async(("t", 1, 1.0), headers=headers)
    with exam.worker(pool="solo"):
        exam.wait_started("t", 1)
        until(lambda: stats(exam).scheduled == 1, lambda: "no retry waits")
        task.apply_async(("t", 0, 0.0), headers=headers)
        exam.wait_ended("t", 1)
        last = exam.task("record").delay("last")
        exam.wait_ended("last", 1)
    assert exam.counts("t") == {first.id: 2} and last.id
