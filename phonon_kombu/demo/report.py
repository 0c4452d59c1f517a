"""What a run of the demo was asked for, and what came of it, for people and as JSON."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from typing import Any

from .chord import ChordOutcome
from .display import Row
from .kill import Accident
from .ledger import Outcome


@dataclass(frozen=True)
class Options:
    """What the user asked for. ``limit`` is the number of files; None means all there are."""

    broker: str
    limit: int | None
    workers: int
    concurrency: int
    #: Whether one of several workers is killed in the middle.
    kill: bool = True


@dataclass(frozen=True)
class Report:
    """The result of one run."""

    outcome: Outcome
    still_queued: int
    seconds: float
    options: Options
    server: str
    accident: Accident | None = None
    #: None on kombu's own transport, which the demo gives no result backend.
    chord: ChordOutcome | None = None

    @property
    def good(self) -> bool:
        """Whether all was as promised."""
        return self.tasks_good and (self.chord is None or self.chord.good)

    @property
    def tasks_good(self) -> bool:
        """Whether every task ran, and ran once but for those that the killed worker held."""
        return not (self.outcome.lost or self.outcome.run_twice or self.still_queued)

    @property
    def tasks_per_second(self) -> float:
        """Tasks that ran, by the seconds from the first send to the last end."""
        return (self.outcome.files - self.outcome.lost) / self.seconds

    def rows(self) -> list[Row]:
        """What became of the tasks, as a table for people."""
        outcome = self.outcome
        rows = [
            ("files", f"{outcome.files:,}"),
            ("  not parsable", f"{outcome.unparsable:,}"),
            ("lines", f"{outcome.lines:,}"),
            ("functions", f"{outcome.functions:,}"),
            ("classes", f"{outcome.classes:,}"),
            ("seconds", f"{self.seconds:.2f}"),
            ("tasks/s", f"{self.tasks_per_second:,.0f}"),
            ("lost", f"{outcome.lost:,}"),
            ("run twice", f"{outcome.run_twice:,}"),
        ]
        if self.accident is not None:
            rows += self._accident_rows(self.accident)
        if self.still_queued:  # nothing that a person should have to think about otherwise
            rows.append(("still queued", f"{self.still_queued:,}"))
        return rows

    def _accident_rows(self, accident: Accident) -> list[Row]:
        held = accident.in_hand
        back = accident.back_seconds
        return [
            ("killed with tasks in hand", "?" if held is None else f"{len(held):,}"),
            ("  back in the queue after", "never" if back is None else f"{back:.1f} s"),
            ("  redelivered, run again", f"{self.outcome.redelivered:,}"),
        ]

    def verdict(self) -> str:
        """What became of the tasks, in a sentence."""
        if self.tasks_good and self.outcome.redelivered:
            return (
                "Every task ran. Only those that ran when their worker was killed, or had just "
                "run, ran again."
            )
        if self.tasks_good:
            return "Every task ran exactly once."
        faults = [
            f"{number:,} {name}"
            for number, name in [
                (self.outcome.lost, "lost"),
                (self.outcome.run_twice, "run twice"),
                (self.still_queued, "still queued"),
            ]
            if number
        ]
        return f"Not every task ran exactly once: {', '.join(faults)}."

    def json(self) -> str:
        """The result as one JSON object."""
        fields: dict[str, Any] = asdict(self.outcome)
        fields |= {
            "still_queued": self.still_queued,
            "seconds": round(self.seconds, 3),
            "tasks_per_second": round(self.tasks_per_second, 1),
            "workers": self.options.workers,
            "concurrency": self.options.concurrency,
            "server": self.server,
            "python": platform.python_version(),
            "killed": None,
        }
        if self.accident is not None:
            held, back = self.accident.in_hand, self.accident.back_seconds
            fields["killed"] = {
                "worker": self.accident.worker,
                "in_hand": None if held is None else len(held),
                "back_seconds": None if back is None else round(back, 3),
            }
        fields["chord"] = None if self.chord is None else self.chord.fields()
        return json.dumps(fields)
