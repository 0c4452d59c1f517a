"""Thoonk's jobs: claimed by one worker, kept until they are finished."""

from __future__ import annotations

import uuid
from typing import Any

from ..errors import ConfigurationError, JobError, NotClaimed
from ..store.client import CONNECTION_ERRORS
from ..store.keys import LEVELS
from ..store.scripts import Prepared
from .base import HIGH, Item, job_id, milliseconds, text
from .claims import Claims
from .results import ResultSteps
from .steps import Send, Steps, blocking, perform
from .upkeep import Upkeep


class JobSteps(Claims, ResultSteps, Upkeep):
    """What a feed of jobs does, for both faces.

    A job is in exactly one state: ready, scheduled (put or cancelled with a delay), claimed or
    stalled, until it is finished, retracted or expired. A job that this object has claimed is
    finished and cancelled by it: others are refused unless they say ``force=True``.
    """

    TYPE = "job"

    # Putting -------------------------------------------------------------------------------

    def _put(
        self,
        item: Item,
        id: str | None = None,
        priority: int | str | None = None,
        delay_seconds: float | None = None,
        ttl_seconds: float | None = None,
        dedup_id: str | None = None,
        dedup_ttl_seconds: float | None = None,
    ) -> Steps[str]:
        """Add a job at the end of its level.

        Arguments:
            item: ``str`` or ``bytes``.
            id: a name for it; default a new one. The same id with the same item again is a
                no-op while the job exists. What is kept of an earlier result goes.
            priority: a level from 0, taken first, to 9; default 0. ``job.HIGH`` (also True, as
                in Thoonk.py) puts it before all others of level 0.
            delay_seconds: the job is scheduled and becomes ready after so long.
            ttl_seconds: a job that is not claimed within so long is dropped.
            dedup_id: there is one job of this name at a time; another one is left out.
            dedup_ttl_seconds: for how long it is, whatever becomes of the job; None: for as long
                as the job exists.

        Returns the id; of a job that was left out, the id of the one that has its `dedup_id`.
        Raises :exc:`~phonon_kombu.errors.Exists` if another job has the id,
        :exc:`~phonon_kombu.errors.QueueFull`,
        :exc:`~phonon_kombu.errors.ConfigurationError` for a value that makes no sense,
        :exc:`~phonon_kombu.errors.ItemTooLarge`, :exc:`~phonon_kombu.errors.OutOfMemory`.
        """
        front = priority == HIGH or priority is True
        level = 0 if front or priority is None or priority is False else priority
        if not isinstance(level, int) or not 0 <= level < LEVELS:
            raise ConfigurationError(f"priority={priority!r}: it must be job.HIGH or 0 to 9")
        ident = uuid.uuid4().hex.encode() if id is None else job_id(id)
        call = (
            self._script("job/put", ids=self.keys.levels[level]),
            (
                ident, self._in(item), b"", b"%d" % level, b"1" if front else b"",
                milliseconds("delay_seconds", delay_seconds),
                milliseconds("ttl_seconds", ttl_seconds, above=True), b"",
                b"" if dedup_id is None else job_id(dedup_id),
                milliseconds("dedup_ttl_seconds", dedup_ttl_seconds, above=True), b"", b"",
            ),
        )  # fmt: skip
        calls: list[Any] = [call]
        if id is not None:
            calls.insert(0, (b"UNLINK", self.keys.result(id)))
        reply = (yield Send(*calls))[-1]
        return text(reply[0] if isinstance(reply, list) else reply)

    # Ending a claim ------------------------------------------------------------------------

    def _finish(
        self,
        id: str,
        item: Item | None = None,
        result: bool | None = None,
        timeout: float | None = None,
        *,
        force: bool = False,
    ) -> Steps[None]:
        """The claimed job is done: it is deleted, and its result kept if it has one.

        ::

            job.finish(id)
            job.finish(id, "contents", result=True)
            job.finish(id, "contents", result=True, timeout=5)

        Arguments:
            item: the result's contents, ``str`` or ``bytes``; None is kept as an empty one.
            result: whether there is a result; default: whether `item` is given.
            timeout: seconds that the result is kept; None (default) keeps it until a job of the
                same id is put.
            force: also a job that somebody else has claimed.

        Raises :exc:`~phonon_kombu.errors.NotClaimed`,
        :exc:`~phonon_kombu.errors.ConfigurationError`.
        """
        ident, owner = job_id(id), b"" if force else self._hand.owner
        if result if result is not None else item is not None:
            contents = b"" if item is None else self._in(item)
            keep_ms = milliseconds("timeout", timeout, above=True)
            resolve = self._script("job/resolve", result=self.keys.result(id))
            args = (ident, owner, contents, keep_ms, self._channel("finish"))
            yield from self._end(resolve, args, ident, force)
        else:
            yield from self._end(self._script("job/finish"), (owner, ident), ident, force)

    def _cancel(
        self,
        id: str,
        delay_seconds: float | None = None,
        max_deliveries: int | None = None,
        *,
        force: bool = False,
    ) -> Steps[None]:
        """Give the claimed job back, to the front of its level; its failure count grows by one.

        Arguments:
            delay_seconds: it is scheduled instead, for so long.
            max_deliveries: a job that has failed so often is stalled instead. None: no limit.
            force: also a job that somebody else has claimed.

        Raises :exc:`~phonon_kombu.errors.NotClaimed`,
        :exc:`~phonon_kombu.errors.ConfigurationError`.
        """
        ident, owner = job_id(id), b"" if force else self._hand.owner
        limit = b""
        if max_deliveries is not None:
            if not isinstance(max_deliveries, int) or max_deliveries < 1:
                raise ConfigurationError(f"max_deliveries={max_deliveries!r}: 1 or more")
            limit = b"%d" % max_deliveries
        delay_ms = milliseconds("delay_seconds", delay_seconds)
        args = (owner, b"cancel", delay_ms, limit, self.keys.cancel_channel, ident)
        yield from self._end(self._script("job/cancel"), args, ident, force)

    def _end(
        self, script: Prepared, args: tuple[bytes, ...], ident: bytes, force: bool
    ) -> Steps[None]:
        hand = self._hand
        try:
            if not (yield from self._operate(script, args, force or ident in hand.ids)):
                whose = "" if force else " by this Job object"
                raise NotClaimed(f"job {text(ident)!r} is not claimed{whose}")
        except NotClaimed:
            hand.ids.discard(ident)
            raise
        hand.ids.discard(ident)

    def _operate(self, script: Prepared, args: tuple[bytes, ...], trusted: bool) -> Steps[bool]:
        """Run a script that must not be run twice; whether it did anything.

        When the first reply was lost and the repeat is refused, then because the first was
        carried out: if `trusted`, that is no error.
        """
        try:
            return bool((yield Send((script, args), repeat=False))[0])
        except CONNECTION_ERRORS:
            try:
                return bool((yield Send((script, args), repeat=False))[0]) or trusted
            except JobError:
                if not trusted:
                    raise
                return True

    # An operator's hand --------------------------------------------------------------------

    def _stall(self, id: str, reason: str = "") -> Steps[None]:
        """Take a job out of the running, whatever state it is in, until :meth:`retry`.

        Its failures are forgotten. A job that is stalled already keeps its reason.

        Raises :exc:`~phonon_kombu.errors.NotFound`.
        """
        ident = job_id(id)
        args = (ident, reason.encode("utf-8", "surrogateescape"), b"", self.keys.stall_channel)
        yield Send((self._script("job/stall"), args))
        self._hand.ids.discard(ident)

    def _retry(self, id: str) -> Steps[None]:
        """A stalled job is ready again, at the end of its level.

        Raises :exc:`~phonon_kombu.errors.NotStalled`.
        """
        args = (job_id(id), self.keys.retry_channel)
        yield from self._operate(self._script("job/retry"), args, True)

    def _retract(self, id: str, *, waiting: bool = False) -> Steps[bool]:
        """Delete a job, whatever state it is in; with `waiting` only one that nobody holds.

        Returns whether it was deleted. Raises :exc:`~phonon_kombu.errors.NotFound`.
        """
        ident = job_id(id)
        args = (ident, b"1" if waiting else b"")
        deleted = yield from self._operate(self._script("job/retract"), args, True)
        if deleted:
            self._hand.ids.discard(ident)
        return deleted


class Job(JobSteps):
    """A feed of jobs, made by :meth:`.Thoonk.job`. Safe between threads and after a fork."""

    put = blocking(JobSteps._put)
    get = blocking(JobSteps._get)
    finish = blocking(JobSteps._finish)
    cancel = blocking(JobSteps._cancel)
    get_result = blocking(JobSteps._get_result)
    stall = blocking(JobSteps._stall)
    retry = blocking(JobSteps._retry)
    retract = blocking(JobSteps._retract)
    get_ids = blocking(JobSteps._get_ids)
    get_item = blocking(JobSteps._get_item)
    get_failure_count = blocking(JobSteps._get_failure_count)
    get_reason = blocking(JobSteps._get_reason)
    stats = blocking(JobSteps._stats)
    describe = blocking(JobSteps._describe)
    look = blocking(JobSteps._look_at)
    pause = blocking(JobSteps._pause)
    resume = blocking(JobSteps._resume)

    @property
    def paused(self) -> bool:
        """Whether the feed is paused."""
        return perform(self.session, self._paused())

    configure = blocking(JobSteps._configure)
    maintenance = blocking(JobSteps._maintenance)
