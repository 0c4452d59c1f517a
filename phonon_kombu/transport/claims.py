"""What is said on the polling socket of a channel, and what the replies mean.

Exactly one batch of commands is outstanding there at any time, and :meth:`Claims.on_readable`
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

from functools import partial
from itertools import zip_longest
from time import monotonic
from typing import Any

from redis.exceptions import NoScriptError

from ..store.patience import alone
from ..store.scripts import Prepared, load
from .conversation import Entry, Handler
from .due import DueTimes
from .outbox import Job, keeper
from .pacing import Pacing

#: Jobs of one queue that are to be acknowledged: the queue, their ids.
Acks = tuple[str, list[bytes]]

#: Queues whose commands are kept.
MOST_PREPARED = 1000

NO_ACKS: Acks = ("", [])


class Claims(Pacing):
    """Part of :class:`~.waiter.Waiter`, whose arguments it has."""

    def __init__(self, channel: Any, polling_interval_seconds: float) -> None:
        super().__init__(channel)
        self.polling_interval_seconds = polling_interval_seconds
        #: Queues that may have jobs.
        self.hot: dict[str, None] = {}
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

    # Commands ------------------------------------------------------------------------------

    def _claim(self, queues: list[str], credit: int, now: float, one_by_one: bool) -> None:
        if self.unlimited:
            self._keep_pace(now)
            credit = max(self.credit(), 1)
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
        if keeper.asleep and self.unlimited:
            keeper.poke()  # it gives back what is not taken

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
            if len(self._claims) >= MOST_PREPARED:
                self._claims.clear()
            keys = self.channel.keys(queue)
            known = self._claims[queue] = (
                load("job/claim").prepare(keys),
                load("job/finish").prepare(keys),
            )
        return known

    def forget(self, queue: str) -> None:
        """`queue` is gone. Should it come back, the first claim is as the first was."""
        with alone(self.lock):
            self.claimed_queues.discard(queue)
            self._claims.pop(queue, None)

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
            self._full = self._full or len(reply) >= 2 + 3 * count
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
