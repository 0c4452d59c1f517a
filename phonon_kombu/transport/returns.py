"""Which jobs a channel has given back, so that several keep their order in front of a queue.

A job that is given back goes to the front of its list, and so does the next one: three in a row
would come back as 3, 2, 1. So a channel remembers what it gave back and sends with each job the ids
of those that were delivered before it. Where these still stand in front, the job goes behind them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

#: The delivery tag of a job that was claimed and never handed over: later than all others.
NEVER = float("inf")

#: A job to give back: queue, job id, delivery tag.
Returning = tuple[str, bytes, float]

#: So many jobs given back one by one to a queue keep their order. The next begin anew.
REMEMBERED = 500


class Returned:
    """What one channel gave back: queue -> job id -> the delivery tag that it had."""

    def __init__(self) -> None:
        self._queues: dict[str, dict[bytes, float]] = {}

    def note(self, queue: str, entries: Sequence[tuple[bytes, float]]) -> None:
        """Remember that these, ``(job id, delivery tag)``, were given back."""
        known = self._queues.get(queue, {})
        if len(known) + len(entries) > REMEMBERED:
            known = {}
        # A new dict: another thread may be reading the old one.
        self._queues[queue] = {**known, **dict(entries[-REMEMBERED:])}

    def parts(
        self, queue: str, entries: Sequence[tuple[bytes, float]], longest: int
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """`entries` in parts of at most `longest` job ids, each with the ids to stay before it."""
        known = self._queues.get(queue)
        if not known:
            for start in range(0, len(entries), longest):
                yield [job_id for job_id, _ in entries[start : start + longest]], []
            return

        def stay(entry: tuple[bytes, float]) -> tuple[bytes, ...]:
            return tuple(job_id for job_id, tag in known.items() if tag < entry[1])

        for before, group in groupby(entries, stay):
            ids = [job_id for job_id, _ in group]
            for start in range(0, len(ids), longest):
                yield ids[start : start + longest], list(before)
