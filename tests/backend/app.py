"""The application of these tests' workers: the exam's, with tasks for chords."""

from __future__ import annotations

import os
from typing import Any

from phonon_kombu.backend.pointing import POINT_BYTES
from phonon_kombu.phonon.fields import (
    ID,
    Count,
    CountDistinct,
    Diff,
    Histogram,
    ListAppend,
    Max,
    Mean,
    Min,
    SetAppend,
    Sum,
    TopN,
    WindowedList,
)
from phonon_kombu.phonon.model import Model
from tests.celery.app import ENVIRONMENT, app_from_environment, note


def part(self: Any, tag: str, number: int = 0) -> int:
    """A header task."""
    note(tag, "start", self)
    return number


def large(self: Any, tag: str, number: int = 0) -> str:
    """A header task whose result is large."""
    note(tag, "start", self)
    return "x" * (POINT_BYTES + number)


def lengths(self: Any, values: Any) -> list[int]:
    """A body: how long the values are, those of a group together; a number is as long as itself."""
    return [
        one if isinstance(one, int) else sum(map(len, [one] if isinstance(one, str) else one))
        for one in values
    ]


def part_failing(self: Any, tag: str) -> None:
    """A header task that fails."""
    note(tag, "start", self)
    raise ValueError(tag)


def body(self: Any, values: Any, tag: str) -> Any:
    """A chord's body: notes that it has run, and returns what it was given."""
    note(tag, "body", self)
    return values


def errback(self: Any, *args: Any, tag: str) -> None:
    """Notes that it was called."""
    note(tag, "errback", self)


def measure(self: Any, tag: str, values: Any) -> Any:
    """A header task of an aggregating chord: returns what it is given."""
    note(tag, "start", self)
    if isinstance(values, dict) and "slowest" in values:
        return {**values, "slowest": tuple(values["slowest"])}
    return values


class Hits(Model):
    """What the other model of these tests inherits."""

    id = ID()
    hits = Sum()
    seconds = Sum(float)
    left = Diff()


class Visits(Hits):
    """A model with every kind of field."""

    first = Min()
    last = Max()
    mean = Mean(float)
    visits = Count()
    visitors = CountDistinct()
    pages = ListAppend()
    countries = SetAppend(3)
    recent = WindowedList(3)
    slowest = TopN(2)
    sizes = Histogram([10, 20])


def visit(self: Any, tag: str, values: Any, by: str = "mapping") -> Any:
    """A header task: returns a mapping of values of `Visits`, or a record of that model."""
    note(tag, "start", self)
    # What has come as JSON has no tuples.
    values = {n: tuple(v) if n in ("recent", "slowest") else v for n, v in values.items()}
    return Visits(**values) if by == "record" else values


def adding(self: Any, tag: str, others: int) -> int:
    """A header task that adds others to its chord."""
    for number in range(others):
        self.add_to_chord(self.app.signature("part", (tag, number)))
    return -1


def replaced(self: Any, tag: str, by: str) -> Any:
    """A header task that is replaced by a chain, a group or a chord."""
    one = self.app.signature("part", (tag, 1))
    two = self.app.signature("part", (tag, 2)).set(immutable=True)
    if by == "chain":
        raise self.replace(one | two)
    if by == "group":
        from celery import group

        raise self.replace(group(one, two))
    from celery import chord

    raise self.replace(chord([one, two], self.app.signature("total")))


def handing_over(self: Any, values: Any, tag: str) -> Any:
    """A body that is replaced by a chord, whose body then has its id."""
    from celery import chord

    header = [self.app.signature("part", (tag, number + 1)) for number in values]
    raise self.replace(chord(header, self.app.signature("body", kwargs={"tag": tag})))


TASKS = {
    "part": (part, {"bind": True}),
    "part_late": (
        part,
        {"bind": True, "acks_late": True, "reject_on_worker_lost": True},
    ),
    "large": (large, {"bind": True}),
    "lengths": (lengths, {"bind": True}),
    "handing_over": (handing_over, {"bind": True}),
    "part_failing": (part_failing, {"bind": True}),
    "body": (body, {"bind": True}),
    "errback": (errback, {"bind": True}),
    "measure": (measure, {"bind": True}),
    "visit": (visit, {"bind": True}),
    "adding": (adding, {"bind": True}),
    "replaced": (replaced, {"bind": True}),
}


def add_tasks(app: Any) -> Any:
    """Add the tasks of these tests to an application of the exam."""
    for name, (function, options) in TASKS.items():
        app.task(name=name, **options)(function)
    return app


if ENVIRONMENT["broker"] in os.environ:
    app = add_tasks(app_from_environment())
