"""A closer that is killed: the body runs all the same, under its one id, within seconds."""

from __future__ import annotations

import time
from typing import Any

import pytest
from celery import chord

from phonon_kombu.backend.pointing import POINT_BYTES
from tests.backend.app import CLOSER_RECORD
from tests.backend.conftest import BackendExam
from tests.celery.exam import until

#: From the kill until the body has run; the promise at the machine's usual load.
PROMISE_SECONDS = 10.0


def header(exam: BackendExam, name: str, tag: str, size: int = 3) -> list[Any]:
    return [exam.app.signature(name, (tag, number)) for number in range(size)]


def values(name: str) -> list[Any]:
    """What the parts of such a header return."""
    return ["x" * (POINT_BYTES + n) if name == "large" else n for n in range(3)]


def commands_of_a_closer(exam: BackendExam, name: str) -> int:
    """How many commands there are at which a closer may die."""
    result = chord(header(exam, name, "count"))(
        exam.app.signature("body", kwargs={"tag": "count", "crash": "count"})
    )
    assert result.get(timeout=60) == values(name)
    key = f"{CLOSER_RECORD}:{result.parent.id}"
    count = until(lambda: exam.records.get(key), lambda: "the closer notes nothing")
    return int(count)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["part", "part_late", "large"])
def test_a_child_dies_at_every_command(exam: BackendExam, name: str) -> None:
    """Prefork: the pool's child is killed between the last arrival and the end of the closing."""
    with exam.worker(pool="prefork", concurrency=3, may_fail=True) as worker:
        count = commands_of_a_closer(exam, name)
        # Those that the chord points at are one more.
        assert count >= 3 + (name == "large"), "reading the parts, publishing, closing"
        points = [f"{n}:{when}" for n in range(1, count + 1) for when in ("before", "after")]
        began = time.monotonic()
        results = {
            point: chord(header(exam, name, point))(
                exam.app.signature("body", kwargs={"tag": point, "crash": point})
            )
            for point in points
        }
        for point, result in results.items():
            left = began + 60 - time.monotonic()
            assert result.get(timeout=max(left, 1)) == values(name), point
        for point, result in results.items():
            assert exam.records.get(f"{CLOSER_RECORD}:{result.parent.id}") == point
            until(
                lambda point=point: exam.counts(point, "body"),
                lambda point=point: f"{point}: the body has not run",
            )
        # What was taken over and is still on its way would be seen by now.
        backend = exam.app.backend
        until(
            lambda: not backend.link.command(b"ZCARD", backend.chord_keys("").closing),
            lambda: f"a chord is not closed:\n{worker.tail()}",
        )
        runs = {point: dict(exam.counts(point, "body")) for point in points}
        assert runs == {point: {result.id: 1} for point, result in results.items()}


@pytest.mark.parametrize("point", ["1:before", "2:before"])
def test_a_worker_dies(exam: BackendExam, point: str) -> None:
    """The whole worker is gone with its closer; another one, of another pool, takes over."""
    with exam.worker(pool="threads", queues="other") as survivor:
        with exam.worker(pool="solo", queues="exam", may_fail=True) as victim:
            result = chord(header(exam, "part", point))(
                exam.app.signature("body", kwargs={"tag": point, "crash": point}).set(queue="other")
            )
            victim.join()
            killed = time.monotonic()
            assert result.get(timeout=60) == [0, 1, 2]
            assert time.monotonic() - killed < PROMISE_SECONDS, survivor.tail()
        assert exam.counts(point, "body") == {result.id: 1}
