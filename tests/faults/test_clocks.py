"""Workers whose clock is wrong: the server's clock rules, so nothing changes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.celery.exam import Exam
from tests.celery.workers import Worker
from tests.faults.holding import assert_none_lost, held_by, wait_settled
from tests.servers import freeze, wait_for

HOUR = 3600

#: A process that runs this first is told another time by Python; sleeps and timeouts are right.
SHIFT = """
import datetime, os, time
_offset = int(os.environ["CLOCK_OFFSET"])
_time, _time_ns, _datetime = time.time, time.time_ns, datetime.datetime
time.time = lambda: _time() + _offset
time.time_ns = lambda: _time_ns() + _offset * 10**9

class _Any(type):
    def __instancecheck__(cls, value):
        return isinstance(value, _datetime)

class _Shifted(_datetime, metaclass=_Any):
    @classmethod
    def now(cls, tz=None):
        return _datetime.now(tz) + datetime.timedelta(seconds=_offset)
    @classmethod
    def utcnow(cls):
        return _datetime.utcnow() + datetime.timedelta(seconds=_offset)

datetime.datetime = _Shifted
"""


@pytest.fixture
def clock(tmp_path: Path) -> Any:
    """Give it an offset in seconds: the environment of a process whose wall clock is off."""
    (tmp_path / "sitecustomize.py").write_text(SHIFT)
    return lambda offset: {"CLOCK_OFFSET": str(offset), "PYTHONPATH": str(tmp_path)}


def worker(exam: Exam, clock: Any, offset: int, **options: Any) -> Worker:
    """A worker whose clock is `offset` seconds off."""
    environment, extra = exam.environment(), clock(offset)
    extra["PYTHONPATH"] += os.pathsep + environment["PYTHONPATH"]
    return Worker({**environment, **extra}, **options)


@pytest.mark.parametrize("offset", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_a_worker_whose_clock_is_off_by_an_hour(exam: Exam, clock: Any, offset: int) -> None:
    """It judges and is judged rightly: by nobody taken for dead while it lives, and its jobs are
    back within seconds when it is killed."""
    tag = "clock"
    with (
        worker(exam, clock, offset, concurrency=1, may_fail=True) as wrong,
        exam.worker(concurrency=1) as right,
    ):
        ids = [exam.task("record_late").delay(tag, n, 0.2).id for n in range(40)]
        exam.wait_ended(tag, 10)
        runs = exam.log(tag, "start")
        assert {run["worker"] for run in runs} == {wrong.name, right.name}
        times = [run["at"] for run in runs]
        assert max(times) - min(times) > HOUR - 60, "the clock is not off"
        wait_for(lambda: held_by(exam, wrong), message="the worker holds nothing")
        assert "is dead" not in wrong.log() + right.log()
        assert "taken for dead" not in wrong.log() + right.log()
        freeze(wrong.pid)
        held = held_by(exam, wrong)
        wrong.kill()
        exam.wait_ended(tag, 40)
        wait_settled(exam)
    assert_none_lost(exam, tag, ids)
    assert {run["id"] for run in exam.log(tag, "start") if run["redelivered"]} == held


@pytest.mark.parametrize("offset", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_a_maintainer_whose_clock_is_off_by_an_hour(exam: Exam, clock: Any, offset: int) -> None:
    """Who came first is elected, and buries no living one."""
    tag = "clock"
    with worker(exam, clock, offset, pool="solo", queues="other") as judge:
        exam.listening(judge)
        with exam.worker(concurrency=2):
            ids = [exam.task("record_late").delay(tag, n, 1.0).id for n in range(6)]
            exam.wait_ended(tag, 6)
            wait_settled(exam)
        assert "is dead" not in judge.log()
    assert set(assert_none_lost(exam, tag, ids).values()) == {1}
