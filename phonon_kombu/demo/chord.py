"""The end of the demo: an aggregating chord whose closer is killed before it publishes the body."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..backend.aggregate import aggregate
from ..backend.progress import chord_progress
from ..control import Operator
from ..phonon.fields import Count, Field, Layout, Sum, TopN
from .app import BODY, PART
from .display import Display, Progress, Row
from .ledger import Closing, Ledger
from .sources import measure_file
from .workers import Worker, check_running

#: What the parts are folded into. Nothing else is kept of them.
FIELDS: dict[str, Field[Any]] = {
    "files": Count(), "lines": Sum(), "words": Sum(), "longest": TopN(3)
}  # fmt: skip
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class ChordOutcome:
    """What became of the chord."""

    parts: int
    arrived: int
    #: What the same files come to when this process counts them itself.
    expected: dict[str, Any]
    closing: Closing
    #: Whether its closer was to be killed.
    kill: bool
    seconds: float

    @property
    def exact(self) -> bool:
        """Whether the body was given what the parts come to: each counted, and counted once."""
        return self.closing.aggregate == self.expected

    @property
    def good(self) -> bool:
        """Whether the body ran once, with the exact aggregate, and not because nobody died."""
        return (
            self.closing.body_runs == 1
            and self.exact
            and self.arrived == self.parts
            and (self.closing.killed is not None) == self.kill
        )

    @property
    def body_seconds(self) -> float | None:
        """How long after its closer's death the body ran."""
        if self.closing.body_at is None or self.closing.killed_at is None:
            return None
        return self.closing.body_at - self.closing.killed_at

    def rows(self) -> list[Row]:
        """The result as a table for people."""
        found = self.closing.aggregate or {}
        rows = [("parts arrived", f"{self.arrived:,} of {self.parts:,}")]
        rows += [(f"  {name}", f"{found[name]:,}") for name in ("lines", "words") if name in found]
        for number, (lines, name) in enumerate(found.get("longest", [])):
            rows.append(("" if number else "  longest", f"{name}  {lines:>6,}"))
        rows.append(("  each part counted once", "yes" if self.exact else "NO"))
        if self.kill:
            at, after = self.closing.killed_at, self.body_seconds
            rows += [
                ("closer killed before it published", "never" if at is None else clock(at)),
                ("  body ran after", "never" if after is None else f"{after:.1f} s"),
            ]
        return [*rows, ("runs of the body", f"{self.closing.body_runs:,}")]

    def verdict(self) -> str:
        """The result in a sentence."""
        although = ", though the worker that was about to publish it was killed" * self.kill
        if self.good:
            return f"The chord's body ran once{although}."
        runs = self.closing.body_runs
        faults = [
            text
            for text, wrong in [
                (f"it ran {runs:,} times", runs != 1),
                (f"{self.arrived:,} of {self.parts:,} parts arrived", self.arrived != self.parts),
                ("its aggregate is not what the files come to", runs and not self.exact),
                ("its closer was not killed", self.kill and self.closing.killed is None),
            ]
            if wrong
        ]
        return f"The chord's body should have run once: {', '.join(faults)}."

    def fields(self) -> dict[str, Any]:
        """The result for JSON."""
        after, closing = self.body_seconds, self.closing
        return {
            "parts": self.parts,
            "arrived": self.arrived,
            "aggregate": closing.aggregate,
            "exact": self.exact,
            "closer_killed": closing.killed,
            "body_seconds": None if after is None else round(after, 3),
            "body_runs": closing.body_runs,
            "seconds": round(self.seconds, 3),
        }


@dataclass
class Stage:
    """What a chord is run with."""

    app: Any
    broker: str
    ledger: Ledger
    workers: list[Worker]
    display: Display
    #: Whether to kill the closer. One worker at least must be left.
    kill: bool
    #: How long to wait while nothing moves.
    patience_seconds: float


def run_chord(stage: Stage, files: list[Path]) -> ChordOutcome:
    """Send the chord, see its closer die, and wait until nothing of it is left to be done."""
    paths = [str(path) for path in files]
    if stage.kill:
        stage.ledger.doom_the_closer()
    started = time.monotonic()
    with stage.display.progress(len(paths), "parts") as progress:
        result = aggregate(_parts(stage.app, paths, progress), FIELDS)(stage.app.signature(BODY))
        watch = _Watch(stage, result.parent.id, progress, len(paths))
        try:
            closing = watch.until(lambda: watch.closing.body_runs > 0)
            seconds = time.monotonic() - started
            if closing.body_at is not None:
                stage.display.say(f"{clock(closing.body_at)}  The body runs, on {closing.body_on}.")
            with Operator(stage.broker) as operator:
                # The closer's own part comes back, and so would a body that was published twice.
                queue = stage.app.conf.task_default_queue
                closing = watch.until(lambda: _is_empty(operator, queue))
        finally:
            _forget(stage.app, result.parent.id)
    return ChordOutcome(len(paths), watch.arrived, _expected(paths), closing, stage.kill, seconds)


class _Watch:
    """Looks at the chord until something is so, or nothing has moved for too long."""

    def __init__(self, stage: Stage, group: str, progress: Progress, parts: int) -> None:
        self.stage, self.group, self.progress, self.parts = stage, group, progress, parts
        self.arrived = 0
        self.closing = Closing()

    def until(self, so: Callable[[], bool]) -> Closing:
        """Look until `so` or until patience ends; returns what is known of the closing."""
        moved_at = time.monotonic()
        while time.monotonic() - moved_at < self.stage.patience_seconds:
            before = self.arrived, self.closing
            self._look()
            if so():
                break
            if before != (self.arrived, self.closing):
                moved_at = time.monotonic()
            time.sleep(POLL_SECONDS)
        return self.closing

    def _look(self) -> None:
        found = chord_progress(self.group, self.stage.app, queues=[])
        self.arrived = found.arrived
        self.progress.update(self.parts, self.arrived)
        # A worker names itself before it dies.
        ended = [worker for worker in self.stage.workers if not worker.running]
        killed, self.closing = self.closing.killed, self.stage.ledger.closing()
        if self.closing.killed != killed:
            self._say_killed()
        for worker in ended:
            if worker.name == self.closing.killed:
                self.stage.workers.remove(worker)
        check_running([worker for worker in ended if worker in self.stage.workers])

    def _say_killed(self) -> None:
        at = self.closing.killed_at or 0.0
        self.stage.display.say(
            f"{clock(at)}  Killed worker {self.closing.killed} (SIGKILL): it had brought the last "
            f"of {self.parts:,} parts and was about to publish the body."
        )


def _parts(app: Any, paths: list[str], progress: Progress) -> Iterator[Any]:
    for number, path in enumerate(paths, 1):
        yield app.signature(PART, (path,))
        if number % 50 == 0:
            progress.update(number, 0)


def _expected(paths: list[str]) -> dict[str, Any]:
    """The aggregate, counted by this process alone."""
    found = [measure_file(path) for path in paths]
    return {
        "files": len(found),
        "lines": sum(one["lines"] for one in found),
        "words": sum(one["words"] for one in found),
        "longest": [list(one) for one in sorted((o["longest"] for o in found), reverse=True)[:3]],
    }


def _is_empty(operator: Operator, queue: str) -> bool:
    (status,) = operator.status(queue)
    return not (status.ready or status.scheduled or status.claimed or status.stalled)


def _forget(app: Any, group: str) -> None:
    """Leave nothing of the chord: a closed one is remembered for an hour."""
    keys, name = app.backend.chord_keys(group, Layout(FIELDS)), group.encode()
    app.backend.link.send(
        (
            (b"UNLINK", keys.chord, keys.arrived, keys.seen, keys.members, *keys.fields),
            (b"ZREM", keys.closing, name),
            (b"ZREM", keys.opened, name),
        ),
        repeat=True,
    )


def clock(at: float) -> str:
    """A moment as people write it, to the millisecond."""
    return datetime.fromtimestamp(at).strftime("%H:%M:%S.%f")[:-3]
