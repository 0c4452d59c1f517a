"""The polling socket of a channel: waits for work, claims it and hands it over."""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import Any

from ..phonon.recovery import clock_ms
from ..store.patience import alone, at_most, relax
from ..store.scripts import Prepared
from .claims import Claims
from .conversation import Entry
from .deadletters import PASSING_ERRORS
from .pacing import UNUSED_SECONDS
from .returns import NEVER

logger = logging.getLogger("phonon_kombu.transport")

#: Prefetch count from which the next claim is always sent while the last one is worked on. With
#: fewer it is where the work takes longer than a round trip: else the claims that are half as large
#: cost more than the wait that they save.
AHEAD_FROM = 32

#: Seconds for which messages are handed over before the event loop gets a turn.
DELIVERY_SLICE_SECONDS = 0.02

#: So long may the server be silent while the keeper gives back what is not used, and the consumer
#: waits for it.
RETURN_SECONDS = 1.0

#: Seconds until the keeper looks again while the consumer itself is at it.
AGAIN_SECONDS = 0.05


class Waiter(Claims):
    """Waits, claims and hands over for one channel.

    Arguments:
        channel: the channel; its ``async_pool`` gives the connection.
        polling_interval_seconds: how long an idle wait lasts at the most.
    """

    def __init__(self, channel: Any, polling_interval_seconds: float) -> None:
        super().__init__(channel, polling_interval_seconds)
        #: Queues whose last consumer was cancelled.
        self._dropped: set[str] = set()

    # What the poller and the channel ask ---------------------------------------------------

    def add_queue(self, queue: str) -> None:
        """A consumer of `queue` was added: look into it at once."""
        self.hot[queue] = None
        self.channel.connection.cycle.midst.soon(self._stop_waiting)

    def drop_queue(self, queue: str) -> None:
        """The last consumer of `queue` was cancelled: what it was not given goes back."""
        self.hot.pop(queue, None)
        self.due.forget(queue)
        self._dropped.add(queue)
        self.channel.connection.cycle.midst.soon(self.give_back_dropped)

    def give_back_dropped(self) -> None:
        """Give back what was claimed from queues without a consumer."""
        if not self._dropped:
            return
        with alone(self.lock):
            if self.claiming:
                self.on_readable()
            gone = self._dropped.difference(self.channel.active_queues)
            self._dropped = set()
            mine = [entry for entry in self.buffer if entry[0] in gone]
            if mine:
                self.buffer = deque(entry for entry in self.buffer if entry[0] not in gone)
                self._release(mine)

    def _stop_waiting(self) -> None:
        if self.waiting:
            self.interrupt()

    def step(self, may_linger: bool = False) -> None:
        """Send the next command if there is any to send.

        With `may_linger` a busy consumer lets a moment pass to claim for more credit at once;
        without it somebody waits for a message now.
        """
        with alone(self.lock):
            self._step(may_linger)

    def _step(self, may_linger: bool) -> None:
        if self._outstanding or monotonic() < self._hold_until:
            return
        channel = self.channel
        queues = channel.active_queues
        if not queues or not channel.qos.can_consume():
            if self._wake is not None:
                # It was taken to claim, and now there is no credit: others must hear of it.
                queue, self._wake = self._wake, None
                channel.rewake([queue])
            return
        credit = self.credit()
        if credit <= 0:
            return
        now = monotonic()
        if now - self._looked_at >= self.polling_interval_seconds and len(self.hot) < len(queues):
            # Every queue is asked at times, whatever its wakes say.
            self._looked_at = now
            if self.hot:
                self.hot.update(dict.fromkeys(queues))
        for queue in self.due.take(now, queues):
            self.hot[queue] = None
        if not self.hot:
            self._wait(queues, now)
        elif not may_linger or self._ripe(credit, now):
            self._claim(queues, credit, now, not may_linger)

    def on_readable(self) -> None:
        with alone(self.lock):
            super().on_readable()

    # From the keeper's thread --------------------------------------------------------------

    def return_unused_in(self) -> float | None:
        """The seconds until what is claimed has waited too long, None if nothing is claimed."""
        if not (self.buffer or self.claiming) or not self.unlimited:
            return None
        return self._claimed_at + UNUSED_SECONDS - monotonic()

    def return_unused(self) -> float | None:
        """Give back what a consumer without a prefetch limit has claimed and does not take: it is
        at work on something, or gone. Others wait for it.

        Returns the seconds until that is to be done, None if nothing is claimed.
        """
        left = self.return_unused_in()
        if left is None or left > 0:
            return left
        if not self.lock.acquire(blocking=False):
            return AGAIN_SECONDS
        try:
            with at_most(RETURN_SECONDS):
                if self.claiming:
                    if self.channel.connection.cycle.attentive:
                        return AGAIN_SECONDS
                    self._hear_aside()
                self._pace = 1
                rest: deque[Entry] = deque()
                while self.buffer:
                    # From behind: what comes first is the consumer's, should it come now.
                    with suppress(IndexError):
                        rest.appendleft(self.buffer.pop())
                if rest:
                    self._release(list(rest), bounded=True)
        finally:
            self.lock.release()
        return None

    def _hear_aside(self) -> None:
        """Read the outstanding replies in the place of the consumer."""
        connection = self.connection
        self._ahead = True  # of the round trip this says nothing
        try:
            if connection is None or connection._sock is None:
                self.disconnected()  # redis-py would connect it again, and wait
            else:
                self.on_readable()
                relax(connection)
        except PASSING_ERRORS as error:
            logger.debug("the reply to a claim: %r", error)  # the consumer meets it, too

    # Handing over --------------------------------------------------------------------------

    def claim_ahead(self) -> None:
        """Claim the next jobs while the consumer works on the last ones, once half are done."""
        if self._outstanding or not self.hot or self.channel.strict:
            return
        count = self.channel.qos.prefetch_count or self._pace
        if count < AHEAD_FROM and monotonic() - self.heard_at < self._round_trip:
            return
        if self.credit() * 2 >= count:
            self._ahead = True
            self.step()

    def deliver_one(self) -> bool:
        """Hand over one message if there is one and the consumer may have it."""
        if self.buffer:
            self.claim_ahead()
        while self.buffer and self.channel.qos.can_consume():
            entry = self._next()
            if entry is not None and self.channel.deliver(entry):
                return True
        return False

    def _next(self) -> Entry | None:
        try:
            # First there, then gone here: it is known to whoever looks for what we do not know.
            self.in_hand = self.buffer[0]
            return self.buffer.popleft()
        except IndexError:
            self.in_hand = None
            return None  # the channel was closed at this moment, or it was given back

    def deliver(self) -> None:
        """Hand over what there is, for a while; then the rest waits for the next tick."""
        channel = self.channel
        can_consume = channel.qos.can_consume
        run_acks = channel.connection.cycle.run_acks
        channel.connection.cycle.attentive = False
        until = monotonic() + DELIVERY_SLICE_SECONDS
        while self.buffer and can_consume():
            self.claim_ahead()
            entry = self._next()
            if entry is None:
                break
            channel.deliver(entry)
            run_acks()
            self.give_back_dropped()
            if monotonic() > until:
                break
        with alone(self.lock):
            if self.buffer and not self._outstanding and can_consume():
                # Make the socket readable, so that the loop comes back here without sleeping.
                self.send([((b"PING",), self._nothing)])

    # Endings -------------------------------------------------------------------------------

    def broken(self, unheard: list[Any]) -> None:
        if any(isinstance(c[0], Prepared) and c[0].script.name == "job/claim" for c in unheard):
            # What was claimed there is ours without our knowing which jobs.
            self.channel.lose_claims()
        if self.leaving:
            self.channel.outbox.put_back(self.leaving)
        # What was read before the break is known, and ours; of the round trip it says nothing.
        self._ahead = True
        self.replies_read()
        self.hot.update(dict.fromkeys(self.channel.active_queues))

    def interrupted(self) -> None:
        """Something has come in between, at whatever line: what was claimed and is not known is to
        be given back."""
        with alone(self.lock):
            self.channel.claims_lost = True
            self.in_hand = None  # nobody is going to hand it over
            if self.connection is not None:
                self.connection.disconnect()
            self.disconnected()

    def interrupt(self) -> None:
        """Stop waiting, and see that a wake taken on the way out is not missed by others."""
        waited = list(self._woken.values())
        connection = self.connection
        self._outstanding.clear()
        self.waiting = False
        if connection is not None:
            connection.disconnect()
        self.channel.rewake(waited)

    def after_fork(self) -> None:
        """In a forked child: the parent's claims are not ours."""
        self.lock = threading.RLock()
        self.buffer.clear()
        self.in_hand, self._pace = None, 1
        self._fresh, self.leaving = [], []
        self._wake = None
        self._lingering = self._asking = False
        self.claimed_queues = set()
        self.hot = dict.fromkeys(self.channel.active_queues)
        self.drop_socket()

    def close(self) -> None:
        """Hear the outstanding reply, give back what was not handed over, disconnect.

        Never raises: what cannot be given back now is noted by the channel.
        """
        try:
            with alone(self.lock):
                self._end_conversation()
        except Exception as error:
            logger.debug("closing a channel: %r", error)
            self.disconnected()
        if self.buffer:
            rest = list(self.buffer)
            self.buffer.clear()  # somebody may be in the midst of handing it over
            self._release(rest)
        self.hang_up()

    def _end_conversation(self) -> None:
        if self.channel.connection is not None and self.channel.connection.cycle.midst.busy:
            self.interrupted()  # somebody is about to read that reply
        if self.waiting:
            self.interrupt()
        while self._outstanding:
            self.on_readable()

    def _release(self, entries: list[Entry], bounded: bool = False) -> None:
        """Give back what was not handed over. With `bounded` this channel may claim it again."""
        jobs = [(entry[0], entry[1], NEVER) for entry in entries]
        try:
            until_ms = clock_ms(self.channel.link) if bounded else b""
        except BaseException:
            self.channel.lose_claims()
            raise
        self.channel.give_back(jobs, b"release", until_ms)
