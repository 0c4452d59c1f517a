"""Looking at jobs without touching them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import ConfigurationError, NotFound
from .base import Base, Item, job_id, text

#: The states of a job.
STATES = ("ready", "scheduled", "claimed", "stalled")


@dataclass(frozen=True)
class Stats:
    """How many jobs are in each state, and how many there have been."""

    ready: int
    scheduled: int
    claimed: int
    stalled: int
    publishes: int
    finishes: int
    #: Age of the oldest job that is not stalled, seconds; None if there is none.
    oldest_seconds: float | None
    #: Whether the feed is paused: nobody claims from it.
    paused: bool = False
    #: Jobs that were dropped or rejected and are on their way to the dead-letter exchange.
    dead: int = 0
    #: Puts that were left out because another job had their deduplication id.
    duplicates: int = 0


class Inspection(Base):
    """What can be seen of jobs. Part of :class:`~.job.Job`."""

    def stats(self) -> Stats:
        """Counts of this moment; costs the same however many jobs there are."""
        found = self._link.run(self._script("job/stats"), ())
        ready, scheduled, claimed, stalled, publishes, finishes, oldest_ms, _, paused = found[:9]
        oldest = oldest_ms / 1000 if oldest_ms >= 0 else None
        counts = (ready, scheduled, claimed, stalled, publishes, finishes)
        return Stats(*counts, oldest, bool(paused), *found[9:])

    def get_ids(self, state: str | None = None) -> list[str]:
        """Ids of all jobs, or of those in `state`, oldest first; stalled ones come last.

        They are read in slices, so that a long queue does not keep the server busy: a job that
        moves meanwhile is listed in the state in which it was met.

        Arguments:
            state: ``ready``, ``scheduled``, ``claimed`` or ``stalled``.

        Raises :exc:`~phonon_kombu.errors.ConfigurationError` for another state.
        """
        if state is not None and state not in STATES:
            raise ConfigurationError(f"state={state!r}: it must be one of {', '.join(STATES)}")
        found = {
            job: (put_ms == b"", float(put_ms or 0), job)
            for job, at, put_ms in self._scan()
            if state is None or at == state.encode()
        }
        return [text(job) for job in sorted(found, key=found.__getitem__)]

    def get_item(self, id: str) -> Item:
        """The item of a job. Raises :exc:`~phonon_kombu.errors.NotFound`."""
        return self._out(self._ask(id, b"HGET", self.keys.items) or b"")

    def get_failure_count(self, id: str) -> int:
        """How often a job was cancelled. Raises :exc:`~phonon_kombu.errors.NotFound`."""
        return int(self._ask(id, b"HGET", self.keys.cancelled) or 0)

    def get_reason(self, id: str) -> str | None:
        """Why a job is stalled; None if it is not. Raises :exc:`~.errors.NotFound`."""
        reason = self._ask(id, b"HGET", self.keys.reasons)
        return None if reason is None else text(reason)

    def _ask(self, id: str, command: bytes, key: bytes) -> bytes | None:
        ident = job_id(id)
        reply: bytes | None
        exists, reply = self._link.send(
            ((b"HEXISTS", self.keys.items, ident), (command, key, ident)), repeat=True
        )
        if not exists:
            raise NotFound(f"no job has the id {id!r}")
        return reply

    def _scan(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Id, state and time of put of every job; some may come twice."""
        cursor = b"0"
        while True:
            cursor, *found = self._link.run(self._script("job/scan"), (cursor,))
            yield from zip(found[::3], found[1::3], found[2::3], strict=True)
            if cursor == b"0":
                return
