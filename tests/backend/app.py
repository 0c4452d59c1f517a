"""The application of these tests' workers: the exam's, with tasks for chords, and closers that die.

A body's keyword ``crash`` names the point at which its first closer is killed: ``3:before`` is
before the third command that he sends, ``3:after`` when its reply has arrived. ``count`` notes how
many there are instead.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from typing import Any

import redis
from redis.connection import AbstractConnection

from phonon_kombu.backend.chords import Chords
from phonon_kombu.backend.pointing import POINT_BYTES
from tests.celery.app import ENVIRONMENT, app_from_environment, note

CLOSER_RECORD = "closer"


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


def body(self: Any, values: Any, tag: str, crash: str = "") -> Any:
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
    "adding": (adding, {"bind": True}),
    "replaced": (replaced, {"bind": True}),
}


def add_tasks(app: Any) -> Any:
    """Add the tasks of these tests to an application of the exam."""
    for name, (function, options) in TASKS.items():
        app.task(name=name, **options)(function)
    return app


class Crash:
    """Kills this process at one of the commands of a closer, once for each chord."""

    def __init__(self) -> None:
        self.local = threading.local()
        self.close_chord = Chords.close_chord
        self.send = AbstractConnection.send_packed_command

    def install(self) -> None:
        crash = self

        def close_chord(backend: Any, group_id: str, callback: Any, *args: Any) -> None:
            spec = callback.kwargs.get("crash", "")
            records = redis.Redis.from_url(os.environ[ENVIRONMENT["records"]])
            if spec and (spec == "count" or records.setnx(f"{CLOSER_RECORD}:{group_id}", spec)):
                crash.local.sent, crash.local.spec = 0, spec
            try:
                crash.close_chord(backend, group_id, callback, *args)
                if spec == "count":
                    records.set(f"{CLOSER_RECORD}:{group_id}", crash.local.sent)
            finally:
                crash.local.spec = ""

        def send_packed_command(connection: Any, command: Any, *args: Any, **kwargs: Any) -> Any:
            spec = getattr(crash.local, "spec", "")
            if not spec:
                return crash.send(connection, command, *args, **kwargs)
            crash.local.sent += 1
            here, _, when = spec.partition(":")
            if when and int(here) == crash.local.sent:
                if when == "after":
                    crash.send(connection, command, *args, **kwargs)
                    select.select([connection._sock], [], [], 5)
                os.kill(os.getpid(), signal.SIGKILL)
            return crash.send(connection, command, *args, **kwargs)

        Chords.close_chord = close_chord
        AbstractConnection.send_packed_command = send_packed_command


if ENVIRONMENT["broker"] in os.environ:
    Crash().install()
    app = add_tasks(app_from_environment())
