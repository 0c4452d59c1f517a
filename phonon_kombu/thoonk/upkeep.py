"""Housekeeping: what is due, late, expired or lost."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import NotFound
from .base import milliseconds, seconds
from .inspection import Inspection
from .steps import Send, Sleep, Steps

#: Jobs of each kind in one slice of the housekeeping. A script promotes 100 at the most.
SLICE = 100

#: Entries of an ids list read at once.
WALK_SLICE = 500


@dataclass(frozen=True)
class Maintained:
    """What :meth:`Upkeep.maintenance` has done, in jobs."""

    #: Scheduled jobs that were due and are ready now.
    promoted: int
    #: Jobs that were not claimed within their time and are dropped.
    expired: int
    #: Claims that were older than the feed's claim timeout and are cancelled.
    timed_out: int
    #: Jobs that were in no state and are ready now.
    relisted: int


class Upkeep(Inspection):
    """What somebody should do at times. Steps of :class:`~.job.Job`."""

    def _configure(self, *, claim_timeout_seconds: float | None) -> Steps[None]:
        """Set what holds for all who use this feed.

        Arguments:
            claim_timeout_seconds: :meth:`maintenance` cancels claims that are older, also those
                of a living worker; None: no claim is ever too old.

        Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
        """
        value = milliseconds("claim_timeout_seconds", claim_timeout_seconds, above=True)
        if value:
            yield Send((b"HSET", self.keys.config, b"claim_timeout", value))
        else:
            yield Send((b"HDEL", self.keys.config, b"claim_timeout"))

    def _pause(self) -> Steps[bool]:
        """Let nobody claim from this feed until :meth:`resume`, also no Celery worker.

        What is claimed runs to its end, and puts go on. Returns whether it was not paused before.

        Raises :exc:`~phonon_kombu.errors.NotFound` if the feed was deleted.
        """
        return (yield from self._switch("job/pause"))

    def _resume(self) -> Steps[bool]:
        """Let jobs be claimed again; waiting workers begin at once.

        Returns whether it was paused. Raises :exc:`~phonon_kombu.errors.NotFound` if the feed
        was deleted.
        """
        return (yield from self._switch("job/resume"))

    def _switch(self, script: str) -> Steps[bool]:
        (changed,) = yield Send((self._script(script), ()))
        if changed < 0:
            raise NotFound(f"there is no queue named {self.name!r}")
        return bool(changed)

    def _paused(self) -> Steps[bool]:
        """Whether the feed is paused."""
        (found,) = yield Send((b"HEXISTS", self.keys.config, b"paused"))
        return bool(found)

    def _maintenance(self, grace_seconds: float = 1.0) -> Steps[Maintained]:
        """Do the housekeeping that no claim does. Any process may, at any time; in slices.

        Makes ready what is due, drops what has expired, cancels what was claimed too long ago
        (:meth:`configure`), and finds lost jobs: those that a client of Thoonk's contract took
        from the list and had not claimed when it died.

        Arguments:
            grace_seconds: how long a job must have been lost. A call that finds one waits for
                so long and looks again: its taker may just be about to claim it.

        Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
        """
        grace = seconds("grace_seconds", grace_seconds)
        promoted = expired = timed_out = 0
        counts = [SLICE]
        while max(counts) >= SLICE:
            ((*counts, _),) = yield Send((self._script("job/maintain"), (b"%d" % SLICE, b"")))
            promoted += counts[0]
            expired += counts[1]
            timed_out += counts[2]
        return Maintained(promoted, expired, timed_out, (yield from self._relist(grace)))

    def _relist(self, grace_seconds: float) -> Steps[int]:
        ((ready, entries),) = yield Send((self._script("job/census"), ()))
        if ready == entries:
            return 0
        listed = yield from self._walk()
        jobs = yield from self._scan()
        missing = {job for job, state, _ in jobs if state == b"ready"} - listed
        del listed, jobs
        if missing:
            yield Sleep(grace_seconds)
            missing.difference_update((yield from self._walk()))
        lost = list(missing)
        relisted = 0
        for start in range(0, len(lost), SLICE):
            # It looks again, whether they are in another state by now.
            (count,) = yield Send((self._script("job/relist"), lost[start : start + SLICE]))
            relisted += count
        return relisted

    def _walk(self) -> Steps[set[bytes]]:
        """All entries of the ids lists; none is missed while jobs are put and claimed.

        From the end where jobs are put to the end where they are taken: an entry that moves
        meanwhile moves ahead of us and comes twice.
        """
        found: set[bytes] = set()
        for level in self.keys.levels:
            start, part = 0, [b""]
            while part:
                end = start + WALK_SLICE - 1
                (part,) = yield Send((b"LRANGE", level, b"%d" % start, b"%d" % end))
                found.update(part)
                start += WALK_SLICE
        return found
