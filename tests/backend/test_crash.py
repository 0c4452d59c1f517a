"""A closer that is killed: the body runs all the same, under its one id, within seconds.

A proxy kills it, at every command that it sends between the last arrival and the end of the
closing, each of the commands that travel in one write among them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import chord

from phonon_kombu import aggregate
from phonon_kombu.backend.pointing import POINT_BYTES
from phonon_kombu.phonon.fields import Sum
from phonon_kombu.store.scripts import load
from tests.backend.closers import CLOSE, Closers, Point
from tests.backend.conftest import BackendExam
from tests.celery.exam import until

#: From the kill until the body has run; the promise at the machine's usual load.
PROMISE_SECONDS = 10.0

#: Chords more than there are points: some closers are of no use.
SPARE = 6

PUT = f"EVALSHA {load('job/put').sha}"

Make = Callable[[list[Any], Any], Any]


def plain(header: list[Any], body: Any) -> Any:
    """Apply a chord."""
    return chord(header)(body)


def folded(header: list[Any], body: Any) -> Any:
    """Apply an aggregating chord."""
    return aggregate(header, {"n": Sum()})(body)


def apply(exam: BackendExam, make: Make, name: str, tag: str) -> Any:
    """Apply a chord of three parts; the body runs on a worker whose closers do not die."""
    header = [exam.app.signature(name, (tag, number)) for number in range(3)]
    return make(header, exam.app.signature("body", kwargs={"tag": tag}).set(queue="other"))


@pytest.fixture
def closers(exam: BackendExam) -> Iterator[Closers]:
    """A line on which closers die."""
    with Closers(exam.server.port) as proxy:
        yield proxy


def points_of(commands: list[str]) -> set[Point]:
    """All points at which a closer may die, from the arrival that makes it one to the end."""
    assert commands[-1] == CLOSE and PUT in commands
    return {Point(n, when) for n in range(len(commands) + 1) for when in ("sent", "answered")}


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (plain, "part", [0, 1, 2]),
        (plain, "part_late", [0, 1, 2]),
        (plain, "large", ["x" * (POINT_BYTES + n) for n in range(3)]),
        (folded, "part_late", {"n": 3}),
    ],
    ids=["acks early", "acks late", "large parts", "aggregating"],
)
def test_a_child_dies_at_every_command(
    exam: BackendExam, closers: Closers, make: Make, name: str, value: Any
) -> None:
    """Prefork: the pool's child is killed between the last arrival and the end of the closing."""
    with (
        exam.worker(pool="threads", queues="other"),
        exam.worker(closers, pool="prefork", concurrency=6, queues="exam", may_fail=True) as worker,
    ):
        # The first one has to load scripts, too: it sends the most.
        assert apply(exam, make, name, "whole").get(timeout=60) == value
        until(lambda: closers.whole, lambda: "nobody has closed a chord")
        closers.points = sorted(points_of(closers.whole[0]))
        began, results = time.monotonic(), {}
        while closers.points:
            made = {
                f"{number}": apply(exam, make, name, f"{number}")
                for number in range(len(results), len(results) + len(closers.points) + SPARE)
            }
            for result in made.values():
                assert result.get(timeout=60) == value, closers.deaths.get(result.parent.id)
            results |= made
        seconds = time.monotonic() - began
        needed = points_of(min(closers.whole, key=len))
        assert needed <= {death.point for death in closers.deaths.values()}
        for tag in results:
            until(lambda tag=tag: exam.counts(tag, "body"), lambda: "the body has not run")
        # What was taken over and is still on its way would be seen by now.
        backend = exam.app.backend
        until(
            lambda: not backend.link.command(b"ZCARD", backend.chord_keys("").closing),
            lambda: f"a chord is not closed:\n{worker.tail()}",
        )
        for queue in ("exam", "other"):
            exam.wait_queue_size(0, queue)
        runs = {tag: dict(exam.counts(tag, "body")) for tag in results}
        assert runs == {tag: {result.id: 1} for tag, result in results.items()}
    waited = {
        death: exam.log(tag, "body")[0]["at"] - death.at
        for tag, result in results.items()
        if (death := closers.deaths.get(result.parent.id)) is not None
    }
    print(
        f"{len(needed)} points, {len(waited)} deaths in {seconds:.1f} s; the body had run "
        f"{max(waited.values()):.1f} s after the kill at the latest"
    )
    assert max(waited.values()) < PROMISE_SECONDS
    # Some had published the body already, which was not published twice.
    assert min(waited.values()) < 1 < PROMISE_SECONDS / 3 < max(waited.values())


@pytest.mark.parametrize("point", [Point(0, "answered"), Point(1, "sent")])
def test_a_worker_dies(exam: BackendExam, closers: Closers, point: Point) -> None:
    """The whole worker is gone with its closer; another one, of another pool, takes over."""
    closers.points = [point]
    with (
        exam.worker(pool="threads", queues="other") as survivor,
        exam.worker(closers, pool="solo", queues="exam", may_fail=True) as victim,
    ):
        header = [exam.app.signature("part", ("dies", number)) for number in range(3)]
        body = exam.app.signature("body", kwargs={"tag": "dies"}).set(queue="other")
        result = chord(header)(body)
        assert result.get(timeout=60) == [0, 1, 2]
        victim.join()
        (death,) = closers.deaths.values()
        assert death.point == point
        assert exam.log("dies", "body")[0]["at"] - death.at < PROMISE_SECONDS, survivor.tail()
        assert exam.counts("dies", "body") == {result.id: 1}
