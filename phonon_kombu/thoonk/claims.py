"""Claiming jobs, and knowing which ones are in hand."""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from typing import Any, NamedTuple

from ..errors import MalformedItem, NotClaimed, NotFound
from ..phonon.heart import Heart
from ..phonon.node import new_owner
from ..store.client import CONNECTION_ERRORS
from .base import Base, Item, text
from .steps import Acquire, Join, Part, Send, Steps

#: The fewest claims in hand at which it is asked which of them are still ours.
FEWEST_TO_PRUNE = 4096

#: Ids in one question.
SLICE = 500


class ClaimedJob(NamedTuple):
    """A claimed job. Unpacks as ``id, item, cancelled``."""

    id: str
    item: Item
    #: How often it was cancelled before: its failed deliveries.
    cancelled: int


class Hand:
    """What one :class:`~.job.Job` in one process holds."""

    def __init__(self, session: Any) -> None:
        self.owner = new_owner(session.server_identity)
        self.lock = session.make_lock()
        self.ids: set[bytes] = set()
        self.prune_at = FEWEST_TO_PRUNE
        #: A claim was sent and its reply not noted: we may hold a job that nobody here knows of.
        self.in_doubt = False


_all: weakref.WeakSet[Claims] = weakref.WeakSet()


def _after_fork() -> None:
    # What the parent has claimed is the parent's, and its lock may be taken for good.
    for claims in list(_all):
        claims._hand = Hand(claims.session)
        claims._heart = None


os.register_at_fork(after_in_child=_after_fork)


class Claims(Base):
    """How jobs are claimed. Steps of :class:`~.job.Job`."""

    def __init__(self, session: Any, name: str, **options: Any) -> None:
        super().__init__(session, name, **options)
        self._hand = Hand(session)
        self._heart: Heart | None = None
        _all.add(self)

    def _get(self, timeout: float | None = None) -> Steps[ClaimedJob]:
        """Claim the next job, waiting for one.

        Arguments:
            timeout: seconds to wait at the most; 0 does not wait; None (default) waits for ever.

        A job whose item the serializer cannot read is stalled, with its reason.

        Raises :exc:`queue.Empty` if nothing came in time,
        :exc:`~phonon_kombu.errors.MalformedItem` for such a job, and redis-py's ``ConnectionError``
        when the connection breaks: call again, and what may have been claimed without our knowing
        is given back first.
        """
        until = self._deadline(timeout)
        while True:
            more, due_ms, job = yield from self._claim()
            if job is not None:
                return job
            if not more:
                yield from self._until_woken(until, due_ms)

    def _claim(self) -> Steps[tuple[bool, int, ClaimedJob | None]]:
        """Whether more are ready, milliseconds until the next one is due (-1: none), a job.

        One claim steps over some leftovers of stalled, retracted and expired jobs only: it may
        bring nothing and yet say that there is more.
        """
        hand = self._hand
        # A claim that another thread has made and not yet noted would look like a lost one.
        yield Acquire(hand.lock)
        try:
            try:
                reply = yield from self._claim_once(hand)
            except CONNECTION_ERRORS:
                reply = yield from self._claim_once(hand)
            if len(hand.ids) >= hand.prune_at:
                yield from self._prune(hand)
            more, due_ms, *found = reply
            if not found:
                return bool(more), due_ms, None
            try:
                item = self._out(found[1])
            except MalformedItem as error:
                yield from self._set_aside(hand, found[0], error)
                raise
        finally:
            hand.lock.release()
        return bool(more), -1, ClaimedJob(text(found[0]), item, int(found[2] or 0))

    def _set_aside(self, hand: Hand, ident: bytes, error: MalformedItem) -> Steps[None]:
        """Stall a job that nobody could be given: claimed it would stay ours for ever."""
        # If this breaks, the next claim gives it back.
        hand.ids.discard(ident)
        hand.in_doubt = True
        args = (ident, str(error).encode("utf-8", "replace"), hand.owner)
        # It was stalled, and the reply was lost; or it was taken from us, or retracted.
        with suppress(NotClaimed, NotFound):
            yield Send((self._script("job/stall"), (*args, self.keys.stall_channel)))
        hand.in_doubt = False

    def _claim_once(self, hand: Hand) -> Steps[list[Any]]:
        if self._heart is None:
            # Before the first claim: this process must be known to hold of this feed.
            self._heart = yield Join(self.name)
        yield from self._settle(hand)
        hand.in_doubt = True
        claim = (self._script("job/claim"), (hand.owner, b"1", b""))
        reply: list[Any]
        (reply,) = yield Send(claim, repeat=False)
        if len(reply) > 2:
            hand.ids.add(reply[2])
        hand.in_doubt = False
        return reply

    def _settle(self, hand: Hand) -> Steps[None]:
        """Give back what was claimed in a conversation that broke."""
        cursor = b"0"
        while hand.in_doubt:
            args = (hand.owner, cursor, b"restore", b"", b"", *hand.ids)
            ((cursor, *_),) = yield Send((self._script("job/recover"), args))
            hand.in_doubt = cursor != b"0"

    def _prune(self, hand: Hand) -> Steps[None]:
        """Forget the claims that others have finished or taken back."""
        ids = list(hand.ids)
        for start in range(0, len(ids), SLICE):
            part = ids[start : start + SLICE]
            (owners,) = yield Send((b"HMGET", self.keys.owners, *part))
            hand.ids.difference_update(
                ident for ident, owner in zip(part, owners, strict=True) if owner != hand.owner
            )
        hand.prune_at = max(FEWEST_TO_PRUNE, 2 * len(hand.ids))

    def _deleted(self) -> Steps[None]:
        self._hand.ids.clear()  # they are gone with it
        yield from self._leave()

    def _leave(self) -> Steps[None]:
        hand = self._hand
        yield Acquire(hand.lock)
        try:
            yield from self._settle(hand)
            # What is claimed stays claimed, as long as this process lives.
            if self._heart is not None and not hand.ids:
                beating, self._heart = self._heart, None
                yield Part(beating)
        finally:
            hand.lock.release()
