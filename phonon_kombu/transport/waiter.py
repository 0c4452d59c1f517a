"""The polling socket of a channel: waits for work and claims it.

Exactly one batch of commands is outstanding there at any time, and :meth:`Waiter.on_readable`
handles the replies of all of them:

* a **claim**: one `job/claim` for each queue that may have jobs, for as many jobs as the consumer
  has credit, which also finishes those that are to be acknowledged; before it a `job/finish` for
  acknowledgements of other queues, or of more jobs than one call takes; all in one write;
* the **wait**: BZPOPMIN on the wake keys of the queues. A wake may be lost, a job may not: when
  nothing comes within the polling interval the lists are looked at;
* that **look**: one EXISTS over all ids lists, which finds what a foreign client has put.

A consumer that gets all it asked for claims again without ever waiting. A queue whose claim left
nothing behind is *cold* until it is woken.
"""

from __future__ import annotations

import logging
from collections import deque
from functools import partial
from itertools import zip_longest
from time import monotonic
from typing import Any

from redis.exceptions import NoScriptError

from ..store.scripts import Prepared, load
from .conversation import Entry, Handler
from .due import DueTimes
from .outbox import Job, keeper
from .pacing import LARGEST_CLAIM, Pacing
from .returns import NEVER

logger = logging.getLogger("phonon_kombu.transport")

#: Prefetch count from which the next claim is always sent while the last one is worked on. With
#: fewer it is where the work takes longer than a round trip: else the claims that are half as large
#: cost more than the wait that they save.
AHEAD_FROM = 32

#: Jobs of one queue that are to be acknowledged: the queue, their ids.
Acks = tuple[str, list[bytes]]

NO_ACKS: Acks = ("", [])

#: Seconds for which messages are handed over before the event loop gets a turn.
DELIVERY_SLICE_SECONDS = 0.02


class Waiter(Pacing):
    """Waits, claims and hands over for one channel.

    Arguments:
        channel: the channel; its ``async_pool`` gives the connection.
        polling_interval_seconds: how long an idle wait lasts at the most.
    """

    def __init__(self, channel: Any, polling_interval_seconds: float) -> None:
        super().__init__(channel)
        self.polling_interval_seconds = polling_interval_seconds
        #: Queues that may have jobs.
        self.hot: dict[str, None] = {}
        self._dropped: set[str] = set()
        #: Queues of which jobs were ever claimed.
        self.claimed_queues: set[str] = set()
        self._fresh: list[list[Entry]] = []
        #: Acknowledged jobs in the outstanding write, or the one about to be sent.
        self.leaving: list[Job] = []
        self._claims: dict[str, tuple[Prepared, Prepared]] = {}
        self._woken: dict[bytes, str] = {}
        #: When delayed jobs fall due.
        self.due = DueTimes()
        self._looked_at = 0.0
        #: How long the last claim that was waited for took, seconds.
        self._round_trip = 0.0
        self._ahead = False
        self._wake: str | None = None

    # What the poller and the channel ask ---------------------------------------------------

    def add_queue(self, queue: str) -> None:
        """A consumer of `queue` was added: look into it at once."""
        self.hot[queue] = None
        self.channel.connection.cycle.soon(self._stop_waiting)

    def drop_queue(self, queue: str) -> None:
        """The last consumer of `queue` was cancelled: what it was not given goes back."""
        self.hot.pop(queue, None)
        self.due.forget(queue)
        self._dropped.add(queue)
        self.channel.connection.cycle.soon(self.give_back_dropped)

    def give_back_dropped(self) -> None:
        """Give back what was claimed from queues without a consumer."""
        if self._outstanding and not self.waiting:
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

    # Handing over --------------------------------------------------------------------------

    def claim_ahead(self) -> None:
        """Claim the next jobs while the consumer works on the last ones, once half are done."""
        if self._outstanding or not self.hot or self.channel.strict:
            return
        count = self.channel.qos.prefetch_count or LARGEST_CLAIM
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
            return self.buffer.popleft()
        except IndexError:
            return None  # the channel was closed at this moment

    def deliver(self) -> None:
        """Hand over what there is, for a while; then the rest waits for the next tick."""
        channel = self.channel
        can_consume = channel.qos.can_consume
        run_acks = channel.connection.cycle.run_acks
        until = monotonic() + DELIVERY_SLICE_SECONDS
        while self.buffer and can_consume():
            self.claim_ahead()
            entry = self._next()
            if entry is None:
                break
            channel.deliver(entry)
            run_acks()
            if self._dropped:
                self.give_back_dropped()
            if monotonic() > until:
                break
        if self.buffer and not self._outstanding and can_consume():
            # Make the socket readable, so that the loop comes back here without sleeping.
            self.send([((b"PING",), self._nothing)])

    # Commands ------------------------------------------------------------------------------

    def _claim(self, queues: list[str], credit: int, now: float, one_by_one: bool) -> None:
        self._claimed_at = now
        self._wake = None
        channel = self.channel
        calls: list[tuple[Any, Handler]] = []
        if channel.strict and one_by_one:
            credit = 1
        shares = channel.share(list(self.hot), credit)
        for queue, _ in shares:
            # Before acknowledgements are taken out of the outbox: it may meet a broken connection.
            if queue not in self.claimed_queues:
                channel.hold(queue)
        riders: dict[str, Acks] = dict.fromkeys((queue for queue, _ in shares), NO_ACKS)
        for acks in channel.outbox.take(self.leaving):
            queue, ids = acks
            if riders.get(queue) is NO_ACKS:
                riders[queue] = acks
            else:
                finish = self._prepared(queue)[1]
                calls.append(((finish, (channel.owner, *ids)), partial(self._on_finished, acks)))
        for queue, count in shares:
            claim, acks = self._prepared(queue)[0], riders[queue]
            calls.append(
                (
                    (claim, (channel.owner, b"%d" % count, channel.order, *acks[1])),
                    partial(self._on_claimed, queue, count, acks),
                )
            )
        cold = [queue for queue in queues if queue not in self.hot]
        if cold:
            wakes = [channel.keys(queue).wake for queue in cold]
            calls.append(((b"EXISTS", *wakes), partial(self._on_wakes, cold)))
        if calls:
            self.send(calls)

    def _wait(self, queues: list[str], now: float) -> None:
        seconds = self.due.limit(self.polling_interval_seconds, now)
        self._woken = {self.channel.keys(queue).wake: queue for queue in queues}
        self.waiting = True
        self.send([((b"BZPOPMIN", *self._woken, b"%.3f" % max(seconds, 0.001)), self._on_woken)])

    def _look(self, queues: list[str]) -> None:
        self._looked_at = monotonic()
        parts = [
            key
            for queue in queues
            for keys in (self.channel.keys(queue),)
            for key in (*keys.levels, keys.scheduled)
        ]
        self.send([((b"EXISTS", *parts), partial(self._on_wakes, queues))])

    def _prepared(self, queue: str) -> tuple[Prepared, Prepared]:
        known = self._claims.get(queue)
        if known is None:
            keys = self.channel.keys(queue)
            known = self._claims[queue] = (
                load("job/claim").prepare(keys),
                load("job/finish").prepare(keys),
            )
        return known

    # Replies -------------------------------------------------------------------------------

    def replies_read(self) -> None:
        self.leaving = []
        fresh = self._fresh
        if fresh:
            if not self._ahead:
                self._round_trip = self.heard_at - self.sent_at
            self._ahead = False
            if len(fresh) == 1:
                self.buffer.extend(fresh[0])
            else:
                # One of each queue in turn, so that none waits for the whole batch of another.
                for turn in zip_longest(*fresh):
                    self.buffer.extend(entry for entry in turn if entry is not None)
            self._fresh = []

    def _nothing(self, reply: Any) -> None:
        pass

    def _on_finished(self, acks: Acks, reply: Any) -> None:
        if reply is NoScriptError:
            # Sent again with the next claim; finishing twice is finishing once.
            self.channel.outbox.put_back([(acks[0], job_id) for job_id in acks[1]])

    def _on_claimed(self, queue: str, count: int, acks: Acks, reply: Any) -> None:
        if acks is not NO_ACKS:
            self._on_finished(acks, reply)
        if reply is NoScriptError:
            return
        if self.channel.strict and len(reply) >= 2 + 3 * count:
            # The next claim begins with the first queue again.
            self.hot = dict.fromkeys(self.channel.active_queues)
        elif not reply[0]:
            self.hot.pop(queue, None)
        if self.due.note(queue, reply[1]):
            keeper.poke()  # it announces them
        if len(reply) > 2:
            self._fresh.append(
                [(queue, reply[i], reply[i + 1], reply[i + 2]) for i in range(2, len(reply), 3)]
            )
            self.channel.rotate(queue)

    def _on_woken(self, reply: Any) -> None:
        if reply is None:
            queues = self.channel.active_queues
            if queues and not self.due.has_come():
                self._look(queues)
            return
        queue = self._woken.get(reply[0])
        if queue is None:
            return
        if queue in self.channel.active_queues:
            self.hot[queue] = None
            self._wake = queue
        else:
            # Cancelled in the meantime: somebody else must hear of it.
            self.channel.link.command(b"ZADD", reply[0], b"0", b"w")

    def _on_wakes(self, queues: list[str], reply: Any) -> None:
        if reply:
            self.hot.update(dict.fromkeys(q for q in queues if q in self.channel.active_queues))

    # Endings -------------------------------------------------------------------------------

    def broken(self, unheard: list[Any]) -> None:
        if any(isinstance(c[0], Prepared) and c[0].script.name == "job/claim" for c in unheard):
            # What was claimed there is ours without our knowing which jobs.
            self.channel.claims_lost = True
        if self.leaving:
            self.channel.outbox.put_back(self.leaving)
        # What was read before the break is known, and ours; of the round trip it says nothing.
        self._ahead = True
        self.replies_read()
        self.hot.update(dict.fromkeys(self.channel.active_queues))

    def interrupted(self) -> None:
        """Something has come in between, at whatever line: what was claimed and is not known is to
        be given back."""
        self.channel.claims_lost = True
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
        self.buffer.clear()
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
            if self.channel.connection is not None and self.channel.connection.cycle.busy:
                self.interrupted()  # somebody is about to read that reply
            if self.waiting:
                self.interrupt()
            while self._outstanding:
                self.on_readable()
        except Exception as error:
            logger.debug("closing a channel: %r", error)
            self.disconnected()
        if self.buffer:
            rest = list(self.buffer)
            self.buffer.clear()  # somebody may be in the midst of handing it over
            self._release(rest)
        self.hang_up()

    def _release(self, entries: list[Entry]) -> None:
        self.channel.give_back([(entry[0], entry[1], NEVER) for entry in entries], mode=b"release")
