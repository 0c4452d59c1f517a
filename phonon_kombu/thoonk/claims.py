"""Claiming jobs, and knowing which ones are in hand."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from ..phonon.heart import Heart
from ..phonon.node import new_owner
from ..store.client import CONNECTION_ERRORS
from .base import Base, Item, text

if TYPE_CHECKING:
    from .session import Thoonk

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

    def __init__(self, session: Thoonk) -> None:
        self.owner = new_owner(session.server_identity)
        self.lock = threading.Lock()
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
    """How jobs are claimed. Part of :class:`~.job.Job`."""

    def __init__(self, session: Thoonk, name: str) -> None:
        super().__init__(session, name)
        self._hand = Hand(session)
        self._heart: Heart | None = None
        _all.add(self)

    def get(self, timeout: float | None = None) -> ClaimedJob:
        """Claim the next job, waiting for one.

        Arguments:
            timeout: seconds to wait at the most; 0 does not wait; None (default) waits for ever.

        Raises :exc:`queue.Empty` if nothing came in time. When the connection breaks, redis-py's
        ``ConnectionError``: call again, and what may have been claimed without our knowing is
        given back first.
        """
        until = self._deadline(timeout)
        while True:
            more, due_ms, job = self._claim()
            if job is not None:
                return job
            if not more:
                self._wait(until, due_ms)

    def _claim(self) -> tuple[bool, int, ClaimedJob | None]:
        """Whether more are ready, milliseconds until the next one is due (-1: none), a job.

        One claim steps over some leftovers of stalled, retracted and expired jobs only: it may
        bring nothing and yet say that there is more.
        """
        hand = self._hand
        # A claim that another thread has made and not yet noted would look like a lost one.
        with hand.lock:
            try:
                reply = self._claim_once(hand)
            except CONNECTION_ERRORS:
                reply = self._claim_once(hand)
            if len(hand.ids) >= hand.prune_at:
                self._prune(hand)
        more, due_ms, *found = reply
        if not found:
            return bool(more), due_ms, None
        return bool(more), -1, ClaimedJob(text(found[0]), self._out(found[1]), int(found[2] or 0))

    def _claim_once(self, hand: Hand) -> list[Any]:
        if self._heart is None:
            # Before the first claim: this process must be known to hold of this feed.
            self._heart = self.session.join()
            self._heart.hold(self.name, self._link)
        self._settle(hand)
        hand.in_doubt = True
        claim = (self._script("job/claim"), (hand.owner, b"1", b""))
        reply: list[Any] = self._link.send((claim,))[0]
        if len(reply) > 2:
            hand.ids.add(reply[2])
        hand.in_doubt = False
        return reply

    def _settle(self, hand: Hand) -> None:
        """Give back what was claimed in a conversation that broke."""
        cursor = b"0"
        while hand.in_doubt:
            cursor, _ = self._link.run(
                self._script("job/recover"), (hand.owner, cursor, b"restore", b"", b"", *hand.ids)
            )
            hand.in_doubt = cursor != b"0"

    def _prune(self, hand: Hand) -> None:
        """Forget the claims that others have finished or taken back."""
        ids = list(hand.ids)
        for start in range(0, len(ids), SLICE):
            part = ids[start : start + SLICE]
            owners = self._link.command(b"HMGET", self.keys.owners, *part)
            hand.ids.difference_update(
                ident for ident, owner in zip(part, owners, strict=True) if owner != hand.owner
            )
        hand.prune_at = max(FEWEST_TO_PRUNE, 2 * len(hand.ids))

    def leave(self) -> None:
        with self._hand.lock:
            self._settle(self._hand)
            # What is claimed stays claimed, as long as this process lives.
            if self._heart is not None and not self._hand.ids:
                beating, self._heart = self._heart, None
                self.session.leave(beating)
