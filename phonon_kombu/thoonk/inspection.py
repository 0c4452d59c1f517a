"""Looking at jobs without touching them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigurationError, NotFound
from ..store.keys import QueueKeys
from ..store.scripts import load
from .base import Base, Item, job_id, seconds, text
from .steps import Send, Steps

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


#: Values in the reply of a script for one job.
_WIDTH = 12

#: Jobs that one script looks at.
LOOK_SLICE = 200


@dataclass(frozen=True)
class Description:
    """What is known of a job. Times are seconds of the epoch by the server's clock."""

    id: str
    state: str
    #: When it was put; None for a stalled one.
    put_at: float | None
    #: When it was claimed; None if it is not.
    claimed_at: float | None
    #: When it falls due; None if it is not scheduled.
    due_at: float | None
    #: By when it must have been claimed; None if it may wait for ever.
    expires_at: float | None
    #: How often it was cancelled; None if it has never been delivered before.
    failures: int | None
    #: Who holds it: ``<node>.<number>``; None if nobody says.
    owner: str | None
    #: Why it is stalled; None if it is not.
    reason: str | None
    #: 0, taken first, to 9.
    level: int
    size_bytes: int
    #: The first line of the item: the envelope of a message. Up to 16 KB of it, all of it where
    #: one job is described alone. What is longer goes without its body if that is in it, as in
    #: a message of stock kombu.
    head: bytes


@dataclass(frozen=True)
class Slice:
    """Some of the jobs in a state."""

    jobs: list[Description]
    #: Where the next slice begins; None if this was the last.
    cursor: str | None
    #: The server's clock, seconds of the epoch.
    now: float


def lookup_call(keys: QueueKeys, ids: Sequence[bytes]) -> Any:
    """A call of ``job/lookup`` for a link; :func:`descriptions` reads its reply."""
    return load("job/lookup").prepare(keys), ids


def descriptions(values: Sequence[Any]) -> list[Description]:
    """The jobs in a reply of ``job/lookup`` or ``job/page``, behind what stands before them."""
    return [_description(values[start : start + _WIDTH]) for start in range(0, len(values), _WIDTH)]


def _description(values: Sequence[Any]) -> Description:
    ident, state, put, claimed, due, expires, failures, owner, reason, level, size, head = values
    return Description(
        text(ident), text(state), _time(put), _time(claimed), _time(due), _time(expires),
        int(failures) if failures else None, text(owner) or None,
        text(reason) if state == b"stalled" else None, int(level or 0), int(size), head,
    )  # fmt: skip


def _time(ms: bytes) -> float | None:
    return float(ms) / 1000 if ms else None


class Inspection(Base):
    """What can be seen of jobs. Steps of :class:`~.job.Job`."""

    def _stats(self) -> Steps[Stats]:
        """Counts of this moment; costs the same however many jobs there are."""
        (found,) = yield Send((self._script("job/stats"), ()))
        ready, scheduled, claimed, stalled, publishes, finishes, oldest_ms, _, paused = found[:9]
        oldest = oldest_ms / 1000 if oldest_ms >= 0 else None
        counts = (ready, scheduled, claimed, stalled, publishes, finishes)
        return Stats(*counts, oldest, bool(paused), *found[9:])

    def _get_ids(self, state: str | None = None) -> Steps[list[str]]:
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
            for job, at, put_ms in (yield from self._scan())
            if state is None or at == state.encode()
        }
        return [text(job) for job in sorted(found, key=found.__getitem__)]

    def _describe(self, *ids: str) -> Steps[list[Description]]:
        """What is known of these jobs; those that do not exist are left out.

        Costs the same however many jobs there are.
        """
        found: list[Description] = []
        for start in range(0, len(ids), LOOK_SLICE):
            part = [job_id(ident) for ident in ids[start : start + LOOK_SLICE]]
            (reply,) = yield Send((self._script("job/lookup"), part))
            found += descriptions(reply[1:])
        return found

    def _look_at(
        self,
        state: str,
        cursor: str | None = None,
        limit: int = LOOK_SLICE,
        put_before: float | None = None,
    ) -> Steps[Slice]:
        """A slice of the jobs in `state`, without their items; costs the same in a long queue.

        Ready and claimed ones come by the time of their put or claim, the oldest first,
        scheduled ones by when they fall due, stalled ones in no order.

        Arguments:
            cursor: of the slice before; None begins.
            limit: how many jobs to look at, 1 to 200. Some may be in other states: a slice has
                fewer jobs, or none, though it is not the last. Of stalled ones some more may come.
            put_before: only those put before that time, seconds of the epoch. Of stalled ones
                that is not known.

        Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
        """
        if state not in STATES:
            raise ConfigurationError(f"state={state!r}: it must be one of {', '.join(STATES)}")
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LOOK_SLICE:
            raise ConfigurationError(f"limit={limit!r}: it must be 1 to {LOOK_SLICE}")
        before = b""
        if put_before is not None:
            before = b"%d" % (seconds("put_before", put_before) * 1000)
        place = (cursor or "").encode("utf-8", "surrogateescape")
        args = (state.encode(), place, b"%d" % limit, before)
        ((following, now_ms, *values),) = yield Send((self._script("job/page"), args))
        return Slice(descriptions(values), text(following) or None, now_ms / 1000)

    def _get_item(self, id: str) -> Steps[Item]:
        """The item of a job. Raises :exc:`~phonon_kombu.errors.NotFound`."""
        return self._out((yield from self._ask(id, b"HGET", self.keys.items)) or b"")

    def _get_failure_count(self, id: str) -> Steps[int]:
        """How often a job was cancelled. Raises :exc:`~phonon_kombu.errors.NotFound`."""
        return int((yield from self._ask(id, b"HGET", self.keys.cancelled)) or 0)

    def _get_reason(self, id: str) -> Steps[str | None]:
        """Why a job is stalled; None if it is not. Raises :exc:`~.errors.NotFound`."""
        reason = yield from self._ask(id, b"HGET", self.keys.reasons)
        return None if reason is None else text(reason)

    def _ask(self, id: str, command: bytes, key: bytes) -> Steps[bytes | None]:
        ident = job_id(id)
        reply: bytes | None
        exists, reply = yield Send((b"HEXISTS", self.keys.items, ident), (command, key, ident))
        if not exists:
            raise NotFound(f"no job has the id {id!r}")
        return reply

    def _scan(self) -> Steps[list[tuple[bytes, bytes, bytes]]]:
        """Id, state and time of put of every job; some may come twice."""
        found: list[tuple[bytes, bytes, bytes]] = []
        cursor = b"0"
        while True:
            ((cursor, *part),) = yield Send((self._script("job/scan"), (cursor,)))
            found += zip(part[::3], part[1::3], part[2::3], strict=True)
            if cursor == b"0":
                return found
