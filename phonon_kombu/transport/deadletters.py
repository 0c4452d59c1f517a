"""Dead letters on their way from a queue to its dead-letter exchange.

What a queue drops or a consumer rejects stays in the queue's ``dead`` list, in the same script
that ends the job: a list of the same slot, from which nothing is lost. From there it is forwarded:
put under an id that does not change, then removed from the list. Whoever dies in between leaves it
there, and it is put again: at least once.

Who forwards: the consumer that has rejected a message, at once; and one elected process of all
that consume from the database or have declared such a queue, once a second. It also finds what
has expired in queues from which nobody consumes. If there is no such process, letters wait.
"""

from __future__ import annotations

import hashlib
import logging
import math
import threading
from time import monotonic
from typing import Any

from redis.exceptions import ResponseError

from ..errors import MalformedItem, OutOfMemory, PhononError, ScriptKilled
from ..phonon.recovery import limit
from ..store.client import CONNECTION_ERRORS
from ..store.keys import caretaker_key, lettered_key
from ..store.scripts import load
from . import codec
from .letter import note_death, read
from .routing import Router, binding_field

logger = logging.getLogger("phonon_kombu.transport")

#: How often the caretaker looks into the queues, seconds.
LOOK_SECONDS = 1.0

#: How often another process tries to become it, seconds.
CANDIDATE_SECONDS = 2.0

#: How long it stays it without a sign, ms.
ELECTION_MS = 3000

#: How often a consumer asks whether there are such queues, seconds.
ASK_SECONDS = 10.0

#: How long to leave letters alone that can go nowhere, seconds.
RETRY_SECONDS = 5.0

#: Letters read at once, and forwarded in one go.
SLICE = 50
MOST = 500

#: What may keep a letter from being forwarded, for a while.
PASSING_ERRORS: tuple[type[Exception], ...] = (*CONNECTION_ERRORS, PhononError)

#: What no letter could be put for. All else is wrong with one, or with the queue that it is for.
WAITING: tuple[type[Exception], ...] = (*CONNECTION_ERRORS, OutOfMemory, ScriptKilled)

#: So many letters that are in some of their queues and not in others are remembered.
PARTLY = 10_000

#: Letters that some of their queues do not take, by server and nonce -> the queues that have them.
_partly: dict[tuple[Any, str], set[str]] = {}


class Letters:
    """The dead letters that one channel sees to."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._watching = False
        self._next_at = self._asked_at = 0.0
        self._complained: set[str] = set()
        #: Held while this process forwards for this channel: one thread is enough.
        self._forwarding = threading.RLock()
        #: Queue -> how many letters in front cannot go, and when to try these again: not before
        #: those behind them were tried.
        self._stuck: dict[str, tuple[int, float]] = {}

    def watch(self) -> None:
        """There is a queue with a dead-letter exchange: take part in looking after it."""
        from .outbox import keeper

        self._watching = True
        keeper.poke()

    # At intervals, from the keeper's thread ------------------------------------------------

    def chores(self) -> float | None:
        """Look after all such queues of the database if that is up to us.

        Returns the seconds until this is to be done again, None if it is not.
        """
        channel, now = self._channel, monotonic()
        if not self._watching:
            if not channel.active_queues:
                return None
            if now < self._next_at:
                return self._next_at - now
            self._watching = bool(
                channel.link.command(b"EXISTS", lettered_key(channel.global_keyprefix))
            )
            if not self._watching:
                self._next_at = now + ASK_SECONDS
                return ASK_SECONDS
        elif now < self._next_at:
            return self._next_at - now
        wait = self._look_after_all()
        self._next_at = monotonic() + wait
        return wait

    def _look_after_all(self) -> float:
        channel, prefix = self._channel, self._channel.global_keyprefix
        lock = load("lock/acquire").prepare(None, lock=caretaker_key(prefix))
        if not channel.link.run(lock, (channel.owner, b"%d" % ELECTION_MS)):
            return CANDIDATE_SECONDS
        wait, queues = LOOK_SECONDS, channel.link.command(b"SMEMBERS", lettered_key(prefix))
        if not queues:
            self._watching = False
            return ASK_SECONDS
        most = limit(channel.max_deliveries)
        names = [queue.decode() for queue in queues]
        for start in range(0, len(names), SLICE):
            part = names[start : start + SLICE]
            calls: list[Any] = []
            for queue in part:
                keys = channel.keys(queue)
                calls += [
                    (load("job/maintain").prepare(keys), (b"100", most)),
                    (b"LLEN", keys.dead),
                    (b"HEXISTS", keys.config, b"dead_exchange"),
                ]
            replies = channel.link.send(calls, repeat=True, raise_first=False)
            for i, queue in enumerate(part):
                answers = replies[3 * i : 3 * i + 3]
                if any(isinstance(answer, Exception) for answer in answers):
                    logger.debug("dead letters of queue %r: %r", queue, answers)
                    continue
                (*done, soonest_ms), letters, lettered = answers
                if letters:
                    self.forward_now(queue)
                elif not letters and not lettered:
                    channel.link.command(b"SREM", lettered_key(prefix), queue.encode())
                if max(done) >= 100:
                    wait = 0.0
                elif soonest_ms >= 0:
                    wait = min(wait, soonest_ms / 1000)
        return max(wait, 0.005)

    # Forwarding ----------------------------------------------------------------------------

    def forward_now(self, queue: str) -> None:
        """Forward what lies in a queue, without being in anybody's way."""
        try:
            self.forward(queue)
        except Exception as error:
            logger.warning("Dead letters of queue %r wait for another try: %s", queue, error)

    def forward(self, queue: str) -> int:
        """Forward the letters of a queue, up to :data:`MOST`; returns how many."""
        if not self._forwarding.acquire(blocking=False):
            return 0  # another thread is at it
        try:
            return self._forward(queue)
        finally:
            self._forwarding.release()

    def _forward(self, queue: str) -> int:
        channel = self._channel
        keys = channel.keys(queue)
        stuck, retry_at = self._stuck.pop(queue, (0, math.inf))
        if monotonic() >= retry_at:
            stuck, retry_at = 0, math.inf
        before, done = stuck, 0
        while done + stuck - before < MOST:
            (exchange, key), letters = channel.link.send(
                (
                    (b"HMGET", keys.config, b"dead_exchange", b"dead_routing_key"),
                    (b"LRANGE", keys.dead, b"%d" % stuck, b"%d" % (stuck + SLICE - 1)),
                ),
                repeat=True,
            )
            if not letters or exchange is None:
                retry_at = min(retry_at, monotonic() + RETRY_SECONDS)
                break
            for entry in letters:
                if self._delivered(queue, entry, exchange, key):
                    # From the left, where it stands.
                    channel.link.command(b"LREM", keys.dead, b"1", entry)
                    done += 1
                else:
                    stuck += 1
        if stuck:
            self._stuck[queue] = (stuck, retry_at)
        if stuck > before and queue not in self._complained:
            self._complained.add(queue)
            logger.warning(
                "%d dead letter(s) of queue %r stay there: no queue is bound to its dead-letter "
                "exchange for them, or it takes none",
                stuck,
                queue,
            )
        return done

    def _delivered(self, queue: str, entry: bytes, exchange: bytes, key: bytes | None) -> bool:
        try:
            return self._deliver(queue, entry, exchange.decode(), key)
        except WAITING:
            raise
        except Exception as error:
            # One letter must not hold up the others.
            logger.debug("a dead letter of queue %r: %r", queue, error)
            return False

    def _deliver(self, queue: str, entry: bytes, exchange: str, key: bytes | None) -> bool:
        """Put one letter; whether it need not be kept any longer."""
        channel, letter = self._channel, read(entry)
        try:
            message = codec.decode(letter.item, queue)
        except MalformedItem:
            message = None
        info = message["properties"]["delivery_info"] if message else {}
        routing_key = key.decode() if key is not None else str(info.get("routing_key", queue))
        routes = self._routes(exchange, routing_key)
        if not routes:
            return False
        nonce = hashlib.sha1(entry, usedforsecurity=False).hexdigest()[:12]
        job_id, item, level = letter.job_id, letter.item, 0
        if message is not None:
            headers, delayed = message["headers"], bool(message.get("delayed"))
            if "task" in headers and isinstance(headers.get("id"), str):
                job_id = codec.job_id_of(headers["id"])
            note_death(message, letter, queue)
            circle = {d["queue"] for d in headers["x-death"] if d["reason"] != "rejected"}
            rejected = any(d["reason"] == "rejected" for d in headers["x-death"])
            if not rejected and any(target in circle for target, _ in routes):
                logger.warning(
                    "Dropped job %r: its queues dead-letter it in a circle (%s)",
                    letter.job_id,
                    ", ".join(sorted(circle)),
                )
                return True
            level = channel._get_message_priority(message)
            item = codec.encode(message, exchange, routing_key, nonce, delayed)
        self._put_all(routes, nonce, level, (job_id, item, job_id + b"~"))
        return True

    def _put_all(
        self, routes: list[tuple[str, bytes]], nonce: str, level: int, job: tuple[bytes, ...]
    ) -> None:
        """Put a letter into all its queues; raises, at the end, what one of them refuses."""
        channel, refusal = self._channel, None
        # Whoever consumes from one of them must not get it again whenever another is tried.
        if len(_partly) > PARTLY:
            _partly.clear()
        letter = (channel.server_identity, nonce)
        have = _partly.setdefault(letter, set())
        for target, binding in routes:
            if target in have:
                continue
            put = load("job/put").prepare(
                channel.keys(target), ids=channel.keys(target).levels[level]
            )
            try:
                channel.link.run(
                    put,
                    (
                        *job, b"%d" % level, b"0", b"", b"", binding, b"", b"", b"", channel.order,
                    ),
                )  # fmt: skip
                have.add(target)
            except (PhononError, ResponseError) as error:
                refusal = error
        if refusal is not None:
            raise refusal
        _partly.pop(letter, None)

    def _routes(self, exchange: str, routing_key: str) -> list[tuple[str, bytes]]:
        """Queues for a letter, each with the binding that its put must find."""
        channel = self._channel
        if not exchange:
            return [(routing_key, b"")]
        # A table of our own: this may be another thread than the channel's.
        table = Router(channel.link, channel.global_keyprefix, channel.hash_tags).table(exchange)
        kind = channel.typeof(exchange)
        if kind.type == "fanout":
            return []
        if any(row[1] for row in table.rows) and kind.type == "direct":
            # Declared as a topic exchange, by another process.
            kind = channel.exchange_types["topic"]
        found: dict[str, bytes] = {}
        for row in table.rows:
            if row[2] not in found and kind.lookup([row], exchange, routing_key, None):
                found[row[2]] = binding_field(exchange, row[0], row[1])
        return list(found.items())
