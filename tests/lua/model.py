"""The job machine in plain Python, as it is meant: no ghosts, no wakes, lists of what is ready."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from phonon_kombu.store.keys import LEVELS
from tests.lua.machine import Around
from tests.lua.pictures import LISTS, Picture

Time = float | Around


@dataclass
class Job:
    """A job of the model. Times are scores, ms of the server's clock."""

    id: str
    item: str
    level: int
    state: str
    published: Time
    due: Time | None = None
    deadline: Time | None = None
    owner: str = ""
    since: Time | None = None
    failures: int | None = None
    reason: str = ""
    #: Who may still finish it, having been taken for dead.
    late: str = ""


def _rank_time(time: Time) -> float:
    assert isinstance(time, float)
    return time


def _rank(job: Job, time: Time | None) -> tuple[Any, str]:
    assert isinstance(time, float)
    return time, job.id


class Model:
    """What every operation does to the jobs of one queue.

    A time that the model sets is :class:`Around` until :meth:`adopt` replaces it by what the
    server wrote. `now` below is the earliest time at which the server may have been.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        #: The ready ones of each level, the next to take first.
        self.lists: list[list[str]] = [[] for _ in range(LEVELS)]
        self.publishes = self.finishes = 0
        self.claim_timeout_ms = 0.0
        self.paused = False
        #: Rules: how many may be ready (0: any number), whether what is dropped is kept.
        self.max_length = 0
        self.lettered = False
        #: What was dropped: reason, time, id, item.
        self.dead: list[tuple[str, Time, str, str]] = []
        #: Deduplication id -> job, when it ends (None: with the job).
        self.unique: dict[str, tuple[str, Time | None]] = {}
        self.duplicates = 0

    def in_state(self, *states: str) -> list[Job]:
        """All jobs in these states."""
        return [job for job in self.jobs.values() if job.state in states]

    # Moves ---------------------------------------------------------------------------------

    def _ready(self, job: Job, front: bool = False) -> None:
        job.state, job.due, job.owner, job.since = "ready", None, "", None
        ready = self.lists[job.level]
        ready.insert(0 if front else len(ready), job.id)

    def _leave(self, job: Job) -> None:
        job.late = ""
        if job.state == "ready":
            self.lists[job.level].remove(job.id)
        job.due, job.owner, job.since = None, "", None

    def _delete(self, job: Job) -> None:
        self._leave(job)
        del self.jobs[job.id]

    def _drop(self, job: Job, reason: str, now: Time) -> None:
        if self.lettered:
            self.dead.append((reason, now, job.id, job.item))
        self._delete(job)

    def _shorten(self, now: Around, coming: int = 0) -> None:
        excess = sum(map(len, self.lists)) + coming - self.max_length if self.max_length else 0
        for ready in reversed(self.lists):
            while ready and excess > 0:
                self._drop(self.jobs[ready[0]], "maxlen", now)
                excess -= 1

    def _holder(self, name: str, now: Around) -> str | None:
        """The job that has this deduplication id."""
        job, end = self.unique.get(name, ("", None))
        live = job in self.jobs if end is None else _rank_time(end) > now.high
        return job if live else None

    def _stall(self, job: Job, reason: str) -> None:
        self._leave(job)
        job.state, job.reason, job.failures, job.deadline = "stalled", reason, None, None

    def _promote(self, now: float) -> int:
        due = [job for job in self.in_state("scheduled") if _rank(job, job.due)[0] <= now]
        for job in sorted(due, key=lambda job: _rank(job, job.due)):
            self._ready(job)
        return len(due)

    # Operations ----------------------------------------------------------------------------

    def put(
        self, id: str, item: str, other_id: str, level: int, front: bool, delay_ms: int,
        ttl_ms: int, now: Around, dedup_id: str = "", dedup_ttl_ms: int = 0,
    ) -> str | list[str]:  # fmt: skip
        """The id taken, EXISTS, or for a duplicate a list with the id of the job that stands."""
        holder = self._holder(dedup_id, now) if dedup_id else None
        if holder:
            for wanted in (id, other_id):
                if wanted in self.jobs and self.jobs[wanted].item == item:
                    return wanted
            self.duplicates += 1
            return [holder]
        for wanted in (id, other_id):
            if not wanted:
                break
            job = self.jobs.get(wanted)
            if job is None:
                job = self.jobs[wanted] = Job(wanted, item, level, "", now)
                job.deadline = now + ttl_ms if ttl_ms else None
                self.publishes += 1
                if delay_ms:
                    job.state, job.due = "scheduled", now + delay_ms
                elif front:
                    self._shorten(now, coming=1)  # it would be the first to go
                    self._ready(job, front)
                else:
                    self._ready(job)
                if dedup_id:
                    end = now + dedup_ttl_ms if dedup_ttl_ms else None
                    self.unique[dedup_id] = (wanted, end)
                self._shorten(now)
                return wanted
            if job.item == item:
                return wanted
        return "EXISTS"

    def claim(
        self, owner: str, count: int, highest: bool, now: Around
    ) -> list[tuple[str, str, int | None]]:
        """The claimed: id, item, failures."""
        if self.paused:
            return []
        self._promote(now.low)
        taken = []
        for ready in reversed(self.lists) if highest else self.lists:
            while ready and len(taken) < count:
                job = self.jobs[ready[0]]
                if job.deadline is not None and _rank(job, job.deadline)[0] <= now.low:
                    self._drop(job, "expired", now)
                    continue
                self._leave(job)
                job.state, job.owner, job.since = "claimed", owner, now
                taken.append((job.id, job.item, job.failures))
        return taken

    def _held(self, owner: str, ids: tuple[str, ...]) -> list[Job]:
        jobs = [self.jobs[id] for id in dict.fromkeys(ids) if id in self.jobs]
        return [j for j in jobs if j.state == "claimed" and (not owner or j.owner == owner)]

    def finish(self, owner: str, ids: tuple[str, ...]) -> int:
        """How many were finished."""
        held = self._held(owner, ids)
        if owner:
            jobs = [self.jobs[id] for id in dict.fromkeys(ids) if id in self.jobs]
            held += [job for job in jobs if job.state == "ready" and job.late == owner]
        for job in held:
            self._delete(job)
        self.finishes += len(held)
        return len(held)

    def reject(self, owner: str, ids: tuple[str, ...], now: Around) -> list[int]:
        """How many were rejected, whether they are kept."""
        held = self._held(owner, ids)
        for job in held:
            self._drop(job, "rejected", now)
        self.finishes += len(held)
        return [len(held), int(self.lettered)]

    def cancel(
        self, owner: str, ids: tuple[str, ...], mode: str, delay_ms: int, limit: int, now: Around
    ) -> int:
        """How many were given back; the first of `ids` will be the first in front."""
        held = self._held(owner, ids)
        for job in reversed(held):
            if mode == "cancel":
                job.failures, job.deadline = (job.failures or 0) + 1, None
            elif mode == "restore":
                job.failures = job.failures or 0
            if mode == "cancel" and limit and job.failures is not None and job.failures >= limit:
                self._stall(job, f"max_deliveries: failed {job.failures} times")
            elif delay_ms:
                self._leave(job)
                job.state, job.due = "scheduled", now + delay_ms
            else:
                self._ready(job, front=True)
        return len(held)

    def recover(
        self, owner: str, mode: str, keep: tuple[str, ...], limit: int, order: list[str]
    ) -> int:
        """How many were given back. Of jobs put in the same millisecond, either may come first:
        `order` says which did."""
        held = [j for j in self._held(owner, tuple(self.jobs)) if j.id not in keep]
        places = {id: place for place, id in enumerate(order)}

        def order_of(job: Job) -> tuple[Any, ...]:
            failures = (job.failures or 0) if mode == "cancel" else 0
            chance = hashlib.sha1(f"{failures}{job.id}".encode()).hexdigest()
            turn = -1 if failures % 2 else 1
            age = _rank(job, job.published)[0]
            return failures, chance if failures > 3 else "", turn * age, places.get(job.id, -1)

        held.sort(key=order_of)
        return self._take_back(owner, held, mode, limit, Around(0, 0))

    def _take_back(self, owner: str, held: list[Job], mode: str, limit: int, now: Around) -> int:
        owners = {job.id: job.owner for job in held}
        done = self.cancel(owner, tuple(owners), mode, 0, limit, now)
        for job in held:
            job.late = owners[job.id] if mode == "cancel" and job.state == "ready" else ""
        return done

    def stall(self, id: str, reason: str) -> str:
        """The id, or NOTFOUND."""
        job = self.jobs.get(id)
        if job is None:
            return "NOTFOUND"
        if job.state != "stalled":
            self._stall(job, reason)
        return id

    def retry(self, id: str, now: Around) -> str:
        """The id, or NOTSTALLED."""
        job = self.jobs.get(id)
        if job is None or job.state != "stalled":
            return "NOTSTALLED"
        job.reason, job.published = "", now
        self._ready(job)
        return id

    def retract(self, id: str) -> str:
        """The id, or NOTFOUND."""
        if id not in self.jobs:
            return "NOTFOUND"
        self._delete(self.jobs[id])
        return id

    def resolve(self, id: str, owner: str) -> str:
        """The id, or NOTCLAIMED."""
        return id if self.finish(owner, (id,)) else "NOTCLAIMED"

    def purge(self, limit: int) -> list[int]:
        """How many were deleted, whether more wait."""
        waiting = [self.jobs[id] for ready in self.lists for id in ready]
        waiting += sorted(self.in_state("scheduled"), key=lambda job: _rank(job, job.due))
        for job in waiting[:limit]:
            self._delete(job)
        return [len(waiting[:limit]), int(len(waiting) > limit)]

    def maintain(self, limit: int, now: Around) -> list[int]:
        """Promoted, expired, timed out."""
        promoted = self._promote(now.low)
        mortal = [job for job in self.jobs.values() if job.deadline is not None]
        mortal = [job for job in mortal if _rank(job, job.deadline)[0] <= now.low]
        expired = 0
        for job in sorted(mortal, key=lambda job: _rank(job, job.deadline))[:limit]:
            if job.state in ("claimed", "stalled"):
                job.deadline = None
            else:
                self._drop(job, "expired", now)
                expired += 1
        late: list[Job] = []
        if self.claim_timeout_ms:
            late = self.in_state("claimed")
            end = now.low - self.claim_timeout_ms
            late = [job for job in late if _rank(job, job.since)[0] <= end]
            late = sorted(late, key=lambda job: _rank(job, job.since))[:limit]
            self._take_back("", late, "cancel", 0, now)
        return [promoted, expired, len(late)]

    # Against the server --------------------------------------------------------------------

    def picture(self) -> Picture:
        """All keys as they should be, without ghosts and wake."""
        jobs = self.jobs.values()
        parts: Picture = {name: ready[::-1] for name, ready in zip(LISTS, self.lists, strict=True)}
        parts |= {
            "items": {job.id: job.item for job in jobs},
            "published": {job.id: job.published for job in jobs if job.state != "stalled"},
            "scheduled": {job.id: job.due for job in jobs if job.state == "scheduled"},
            "claimed": {job.id: job.since for job in jobs if job.state == "claimed"},
            "owners": {job.id: job.owner for job in jobs if job.state == "claimed"},
            "stalled": {job.id for job in jobs if job.state == "stalled"},
            "reasons": {job.id: job.reason for job in jobs if job.state == "stalled"},
            "cancelled": {job.id: job.failures for job in jobs if job.failures is not None},
            "priorities": {job.id: job.level for job in jobs if job.level},
            "deadlines": {job.id: job.deadline for job in jobs if job.deadline is not None},
            "publishes": self.publishes,
            "finishes": self.finishes,
            "dead": self.dead,
            "duplicates": self.duplicates,
        }
        return {name: value for name, value in parts.items() if value}

    def adopt(self, picture: Picture) -> None:
        """Take the times as the server wrote them."""
        self.dead = list(picture.get("dead", ()))
        ends = picture.get("unique_ends", {})
        for name, (job_id, end) in self.unique.items():
            if end is not None:  # swept: it has ended
                self.unique[name] = (job_id, ends.get(name, 0.0))
        for job in self.jobs.values():
            job.published = picture["published"].get(job.id, 0.0) if job.state != "stalled" else 0.0
            job.due = picture.get("scheduled", {}).get(job.id)
            job.since = picture.get("claimed", {}).get(job.id)
            job.deadline = picture.get("deadlines", {}).get(job.id)
