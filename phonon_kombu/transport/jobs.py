"""What a channel does with claimed jobs: hands them over, finishes them, gives them back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from time import monotonic
from typing import Any

from ..errors import MalformedItem, NotClaimed, NotFound
from ..phonon import heart, hearts
from ..phonon.node import new_owner, node_id
from ..phonon.recovery import limit
from ..store.client import CONNECTION_ERRORS
from ..store.keys import QueueKeys, queue_keys, wire_name
from ..store.patience import alone
from ..store.scripts import load
from . import codec, orphans
from .deadletters import Letters
from .lost import Losing
from .message import Message
from .outbox import SLICE, Job, Outbox, keeper
from .returns import NEVER, Returned, Returning
from .waiter import Waiter
from .wishes import settle

logger = logging.getLogger("phonon_kombu.transport")


class Jobs(Losing):
    """The consuming half of a channel. Part of :class:`~.channel.Channel`."""

    polling_interval: float | None = None
    priority_order = "lowest_first"
    hash_tags = True
    node_ttl = heart.Settings.node_ttl
    presence_grace = heart.Settings.presence_grace
    heartbeat_interval = heart.Settings.heartbeat_interval
    max_deliveries = heart.Settings.max_deliveries
    claim_timeout: float | None = None

    #: Default for `polling_interval`, seconds.
    POLLING_INTERVAL_SECONDS = 4.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.outbox = Outbox(keeper)
        self._flushing = threading.RLock()
        self._sending: list[tuple[str, list[bytes]]] = []
        self.claims_lost = False
        self.returned = Returned()
        self.heart: heart.Heart | None = None
        self._receivers: dict[str, tuple[Any, bool]] = {}
        self._touched_at = 0.0
        super().__init__(*args, **kwargs)
        self.owner = new_owner(self.server_identity)
        self.letters = Letters(self)
        self.waiter = Waiter(self, float(self.polling_interval or self.POLLING_INTERVAL_SECONDS))
        #: Whether earlier queues go before later ones, instead of taking turns.
        self.strict = self.queue_order_strategy != "round_robin"
        self.order = b"highest" if self.priority_order == "highest_first" else b""

    def keys(self, queue: str) -> QueueKeys:
        """The keys of `queue`."""
        return queue_keys(queue, self.global_keyprefix, self.hash_tags)

    # Sharing credit between queues ---------------------------------------------------------

    def share(self, hot: list[str], credit: int) -> list[tuple[str, int]]:
        """How many jobs to claim from which queue."""
        if len(hot) == 1:
            return [(hot[0], credit)]
        order = [q for q in self._queue_cycle.consume(len(self.active_queues)) if q in hot]
        if not order:
            return []  # cancelled at this moment
        if self.strict:
            # The first gets all; the next is asked when that left something over.
            return [(order[0], credit)]
        each, rest = divmod(credit, len(order))
        shares = [(queue, each + (i < rest)) for i, queue in enumerate(order)]
        return [(queue, n) for queue, n in shares if n]

    def rotate(self, queue: str) -> None:
        """`queue` was served: it comes last in the next round."""
        try:
            self._queue_cycle.rotate(queue)
        except (ValueError, IndexError):  # its consumer was cancelled meanwhile
            pass

    # Handing over --------------------------------------------------------------------------

    def deliver(self, entry: tuple[str, bytes, bytes, bytes | None]) -> bool:
        """Hand a claimed job to its consumer; False if there was none to hand over."""
        queue, job_id, item, failures = entry
        receiver = self._receivers.get(queue)
        if receiver is None:
            self.waiter.in_hand = None
            if not self.closed:  # else it has been given back
                self.give_back([(queue, job_id, NEVER)], mode=b"release")
            return False
        callback, no_ack = receiver
        try:
            message = self.to_message(queue, job_id, item, failures)
        except BaseException:
            self.waiter.in_hand = None  # nobody will have it
            self.lose_claims()
            raise
        if message is None:
            self.waiter.in_hand = None
            return False
        if no_ack:
            self.outbox.add((queue, job_id))
        else:
            self.qos._delivered[message.delivery_tag] = message
        self.waiter.in_hand = None
        if failures is not None and failures != b"0":
            self._brace()
        callback(message)
        return True

    def _brace(self) -> None:
        """Before a message whose delivery has failed is handed over: it may kill this process, and
        take the acknowledgements of its neighbours along, again and again."""
        try:
            self.flush()
        except CONNECTION_ERRORS as error:
            logger.debug("a failed message comes: %r", error)  # sent again with the next claim

    def to_message(
        self, queue: str, job_id: bytes, item: bytes, failures: bytes | None
    ) -> Message | None:
        """The message in an item. A job whose item is no message is stalled: None."""
        try:
            payload = codec.decode(item, queue)
        except MalformedItem as error:
            logger.error(
                "Stalled job %s of queue %r, its item cannot be read: %s",
                job_id.decode("utf-8", "replace"),
                queue,
                error,
            )
            self.stall(queue, job_id, str(error))
            return None
        settle(payload, job_id)
        properties = payload["properties"]
        properties["delivery_tag"] = next(self._delivery_tags)
        if failures is not None:
            properties["delivery_info"]["redelivered"] = True
            payload["headers"]["redelivered"] = True
            if failures != b"0":
                payload["headers"]["x-delivery-count"] = int(failures)
        message = Message(payload, channel=self)
        message.job = (queue, job_id)
        return message

    def stall(self, queue: str, job_id: bytes, reason: str) -> None:
        """Take a job that we hold out of the running; it waits for an operator."""
        keys = self.keys(queue)
        args = (job_id, reason.encode("utf-8", "replace"), self.owner, keys.stall_channel)
        try:
            self.link.run(load("job/stall").prepare(keys), args)
        except (NotFound, NotClaimed) as error:
            # Retracted or stalled by somebody meanwhile, or given to another who lives.
            logger.warning("Job %r of queue %r was not ours to stall: %s", job_id, queue, error)

    # Finishing and giving back -------------------------------------------------------------

    def flush(self) -> None:
        """Send all acknowledgements that wait."""
        # One thread at a time: what another has taken is neither here nor there meanwhile.
        leaving: list[Job] = []
        with alone(self._flushing):
            before = self._sending
            try:
                taken = self.outbox.take(leaving)
                if not taken:
                    return
                script = load("job/finish")
                calls = [(script.prepare(self.keys(q)), (self.owner, *ids)) for q, ids in taken]
                self._sending = [*before, *taken]
                self.link.send(calls, repeat=True)
            except BaseException:
                self.outbox.put_back(leaving)
                raise
            finally:
                self._sending = before

    def after_fork(self) -> None:
        """In a forked child: what is claimed and to be said is the parent's.

        The sockets are closed, not shut down: the parent talks on.
        """
        self.owner = new_owner(self.server_identity)
        self.outbox = Outbox(keeper)
        self._flushing = threading.RLock()
        self._sending = []
        self.claims_lost = self.recovering = self.outliving = False
        self.returned = Returned()
        self.heart = None
        self.letters = Letters(self)
        if self._qos is not None:
            self._qos._delivered.clear()
            self._qos.saying.clear()
        waiter = self.__dict__.get("waiter")
        if waiter is not None:
            waiter.after_fork()
        link = self.__dict__.get("link")
        if link is not None:
            link.after_fork()
        self._disconnect_pools()

    def give_back(self, jobs: Sequence[Returning], mode: bytes, until_ms: bytes = b"") -> None:
        """Return jobs to the front of their queues, in this order, behind those that this channel
        returned before and that were delivered to it before these.

        `mode` is ``cancel`` (a failed delivery, counted), ``restore`` (marked redelivered) or
        ``release`` (was never handed over; with `until_ms` only what was claimed until then, so
        that a network which is late takes nothing that was claimed again).
        """
        by_queue: dict[str, list[tuple[bytes, float]]] = {}
        for queue, job_id, tag in jobs:
            by_queue.setdefault(queue, []).append((job_id, tag))
        calls: list[Any] = []
        script = load("job/cancel")
        most = limit(self.max_deliveries)
        for queue, entries in by_queue.items():
            keys = self.keys(queue)
            prepared = script.prepare(keys)
            told = keys.cancel_channel if mode == b"cancel" else b""
            # The last part first: each comes in front of the one before.
            for part, stay in reversed(list(self.returned.parts(queue, entries, SLICE))):
                after = (b"", *stay) if stay else ()
                calls.append((prepared, (self.owner, mode, until_ms, most, told, *part, *after)))
            # This is a use of the queue.
            calls += self.in_use(queue)
            if mode != b"release":
                self.returned.note(queue, entries)
        try:
            self.link.send(calls, repeat=True)
        except BaseException as error:
            self.lose_claims()
            if not self._closing or not isinstance(error, Exception):
                raise

    def reject(self, queue: str, job_id: bytes) -> None:
        """A job is not wanted: it goes to the dead-letter exchange of its queue, or nowhere."""
        script = load("job/reject").prepare(self.keys(queue))
        _, lettered = self.link.run(script, (self.owner, job_id))
        if lettered:
            self.letters.forward_now(queue)

    def rewake(self, queues: Sequence[str]) -> None:
        """A wake for these queues may have been lost: leave another where jobs are ready."""
        script = load("job/claim")
        calls = [
            (script.prepare(self.keys(queue)), (self.owner, b"0", self.order)) for queue in queues
        ]
        try:
            if calls:
                self.link.send(calls, repeat=True)
        except CONNECTION_ERRORS as error:
            logger.debug("rewake: %r", error)  # the others poll

    def hold(self, queue: str) -> None:
        """Before the first claim from `queue`: this process must be known to hold of it, so that
        the living can give back what it held when it dies."""
        # Not at the fork: a child looks after an inherited channel only if it consumes by it.
        keeper.watch(self)
        if self.heart is None:
            self.heart = hearts.join(self.server_identity, self._make_heart)
        self.heart.hold(wire_name(queue, self.hash_tags), self.link)
        self.waiter.claimed_queues.add(queue)

    def _make_heart(self) -> heart.Heart:
        return heart.Heart(
            node_id(self.server_identity),
            self.lasting_link(),
            self.global_keyprefix,
            heart.Settings(
                self.node_ttl, self.presence_grace, self.heartbeat_interval, self.max_deliveries
            ),
        )

    def leave(self) -> None:
        """The end: acknowledge, give back; note for later what the server does not hear."""
        try:
            self.flush()
            self.recover_lost()
        except Exception as error:
            logger.debug("closing a channel: %r", error)
        # Also what another thread is trying to say at this moment: twice does no harm.
        owed = [*self._sending, *self.outbox.take([])]
        beating, self.heart = self.heart, None
        lost = self.recovering or self.claims_lost  # the keeper may be at it, and fail
        if (owed or lost) and self.waiter.claimed_queues:
            orphans.note(
                self.server_identity,
                orphans.Orphan(
                    self.owner,
                    frozenset(self.waiter.claimed_queues) if lost else frozenset(),
                    owed,
                    self.global_keyprefix,
                    self.hash_tags,
                    beating,
                ),
            )
        elif beating is not None:
            orphans.let_go(self.server_identity, beating)

    def in_use(self, queue: str) -> list[Any]:
        """Calls that note the use of a queue that lives only while it is used."""
        if queue not in self._expires:
            return []
        return [(load("job/touch").prepare(self.keys(queue)), ())]

    # At intervals, from the keeper's thread ------------------------------------------------

    def chores(self) -> float | None:
        """Give back what is not used and what was lost, wake somebody for what is due, keep queues
        alive that have a lifetime and a consumer, see to dead letters.

        Returns the seconds until something is to be done again, None if nothing is.
        """
        if self.outliving:
            return self.after_life()
        waits = (
            self.waiter.return_unused(),
            self._recover_soon(),
            self.waiter.due.announce(self),
            self._touch(),
            self.letters.chores(),
        )
        return min((wait for wait in waits if wait is not None), default=None)

    def waits(self) -> bool:
        """Whether the keeper must not sleep before it has looked after this channel again."""
        return self.claims_lost or self.waiter.return_unused_in() is not None

    def _touch(self) -> float | None:
        known = self._expires
        lifetimes = {q: ms for q in self.active_queues if (ms := known.get(q)) is not None}
        if not lifetimes:
            return None
        every: float = min(lifetimes.values()) / 3000
        now = monotonic()
        if now - self._touched_at >= every:
            self.link.send([call for q in lifetimes for call in self.in_use(q)], repeat=True)
            self._touched_at = now
        return max(0.0, self._touched_at + every - now)
