"""The declaring half of a channel: queues, exchanges, bindings."""

from __future__ import annotations

import logging
import math
import random
from itertools import islice
from typing import Any

from amqp.protocol import queue_declare_ok_t
from kombu.exceptions import ChannelError
from kombu.transport.base import to_rabbitmq_queue_arguments
from redis.exceptions import ResponseError

from ..errors import PhononError
from ..store.keys import FeedKeys, feeds_key, lettered_key
from ..store.scripts import load
from . import arguments, codec
from .publish import Publishing

logger = logging.getLogger("phonon_kombu.transport")

#: Jobs deleted in one step of a purge.
PURGE_SLICE = 400

#: So many names of queues are looked at for each queue with a lifetime that is declared: more than
#: one, so that the list of names does not grow when they expire.
NAMES_LOOKED_AT = 2


class Declaring(Publishing):
    """Part of :class:`~.channel.Channel`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: Queues with a lifetime that this channel declared -> milliseconds.
        self._expires: dict[str, int] = {}
        self._names_cursor = b"0"
        super().__init__(*args, **kwargs)

    # Queues --------------------------------------------------------------------------------

    def queue_declare(
        self, queue: str | None = None, passive: bool = False, **kwargs: Any
    ) -> queue_declare_ok_t:
        """Declare `queue`, or with `passive` only see that it exists.

        Arguments make the queue's rules, in the place of earlier ones (:mod:`.arguments`). A
        declaration that brings none leaves them.

        Raises ``kombu.exceptions.ChannelError`` (404) where a passive one does not, and
        :exc:`~phonon_kombu.errors.ConfigurationError` for arguments that make no sense.
        """
        queue = queue or f"amq.gen-{codec.new_id()}"
        if not passive:
            self._new_queue(queue, **kwargs)
        stats = self._stats(queue)
        if passive and not stats[7]:
            raise ChannelError(
                f"NOT_FOUND - no queue {queue!r} in vhost "
                f"{self.connection.client.virtual_host or '/'!r}",
                (50, 10),
                "Channel.queue_declare",
                "404",
            )
        return queue_declare_ok_t(queue, stats[0], 0)

    def _new_queue(self, queue: str, auto_delete: bool = False, **kwargs: Any) -> None:
        if auto_delete:
            self.auto_delete_queues.add(queue)
        keys, prefix = self.keys(queue), self.global_keyprefix
        rules = arguments.fields_of(queue, kwargs.get("arguments"))
        calls: list[Any] = [
            (b"HSET", keys.config, b"type", b"job"),
            (b"SADD", feeds_key(prefix), queue.encode()),
        ]
        if self.claim_timeout is not None and b"claim_timeout" not in (rules or ()):
            ms = math.ceil(self.claim_timeout * 1000)
            calls.append((b"HSET", keys.config, b"claim_timeout", b"%d" % ms))
        if rules is not None:
            # All or none: a declaration without rules, such as a publisher's, leaves them alone.
            gone = [field for field in arguments.FIELDS if field not in rules]
            calls += [
                (b"HSET", keys.config, *(part for rule in rules.items() for part in rule)),
                (b"HDEL", keys.config, *gone),
            ]
            if b"dead_exchange" in rules:
                calls.append((b"SADD", lettered_key(prefix), queue.encode()))
                self.letters.watch()
            if b"rules" in rules:
                self._ruled.add(queue)
        *_, lifetime = self.link.send([*calls, (load("job/touch").prepare(keys), ())], repeat=True)
        if lifetime:
            self._expires[queue] = lifetime
            try:
                self._forget_expired()
            except (PhononError, ResponseError) as error:
                # A user who may touch single queues only declares them all the same.
                logger.debug("names of expired queues: %r", error)
        else:
            self._expires.pop(queue, None)

    def _forget_expired(self) -> None:
        """Nobody is there to take the name of a queue that expires off the list of all queues, or
        off ours."""
        names = feeds_key(self.global_keyprefix)
        ours = list(islice(self._expires, NAMES_LOOKED_AT))
        (self._names_cursor, listed), *there = self.link.send(
            [
                (b"SSCAN", names, self._names_cursor, b"COUNT", b"%d" % NAMES_LOOKED_AT),
                *((b"EXISTS", self.keys(queue).config) for queue in ours),
            ],
            repeat=True,
        )
        for queue, exists in zip(ours, there, strict=True):
            lifetime = self._expires.pop(queue, None)
            if exists and lifetime:
                self._expires[queue] = lifetime  # looked at again after all others
            elif not exists:
                self._forget_queue(queue)
        # Of a small set it gives all.
        for name in random.sample(listed, min(len(listed), NAMES_LOOKED_AT)):
            feed = name.decode("utf-8", "surrogateescape")
            exist = (
                b"EXISTS",
                *FeedKeys(feed, self.global_keyprefix).all,
                *FeedKeys(feed, self.global_keyprefix, hash_tags=False).all,
            )
            if self.link.command(*exist):
                continue
            # Whoever declares it now makes its keys first, and lists it then.
            _, exists = self.link.send([(b"SREM", names, name), exist], repeat=True)
            if exists:
                self.link.command(b"SADD", names, name)

    def _forget_queue(self, queue: str) -> None:
        """It is gone, and what was claimed of it."""
        self._expires.pop(queue, None)
        self._ruled.discard(queue)
        self.waiter.forget(queue)

    def queue_delete(
        self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any
    ) -> int | None:
        """Delete `queue` with its bindings and all its jobs; returns how many were ready."""
        if if_empty and self._size(queue):
            return None
        for exchange, routing_key, pattern in self.router.bindings_of(queue):
            self.router.unbind(exchange, routing_key, pattern or None, queue)
        self.auto_delete_queues.discard(queue)
        keys = self.keys(queue)
        stats, *_ = self.link.send(
            (
                (load("job/stats").prepare(keys), ()),
                (b"UNLINK", *keys.all),
                (b"SREM", feeds_key(self.global_keyprefix), queue.encode()),
                (b"SREM", lettered_key(self.global_keyprefix), queue.encode()),
            ),
            repeat=True,
        )
        self._forget_queue(queue)
        self._fanout_queues.pop(queue, None)
        return int(stats[0])

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        self.queue_delete(queue)

    def _stats(self, queue: str) -> list[int]:
        found: list[int] = self.link.run(load("job/stats").prepare(self.keys(queue)), ())
        return found

    def _size(self, queue: str) -> int:
        return self._stats(queue)[0]

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        return bool(self._stats(queue)[7])

    def _purge(self, queue: str) -> int:
        purge = load("job/purge").prepare(self.keys(queue))
        total, more = 0, 1
        while more:
            count, more = self.link.run(purge, (b"%d" % PURGE_SLICE,))
            total += count
        return total

    # Exchanges -----------------------------------------------------------------------------

    def queue_bind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str = "",
        arguments: Any = None,
        **kwargs: Any,
    ) -> None:
        """Bind `queue`. kombu's own notes what is bound, in notes that only grow, and does not bind
        a queue again that has expired and is declared anew."""
        self._queue_bind(*self._row_of(queue, exchange, routing_key, arguments))

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str | None, queue: str) -> None:
        if self.typeof(exchange).type == "fanout":
            self._fanout_queues[queue] = (exchange, routing_key.replace("#", "*"))
        self.router.bind(exchange, routing_key, pattern, queue)

    def queue_unbind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str = "",
        arguments: Any = None,
        **kwargs: Any,
    ) -> None:
        """Undo a binding."""
        self.router.unbind(*self._row_of(queue, exchange, routing_key, arguments))

    def _row_of(
        self, queue: str, exchange: str | None, routing_key: str, arguments: Any
    ) -> tuple[str, str, str | None, str]:
        """An exchange, and what its table says of a binding: key, pattern, queue."""
        exchange = exchange or "amq.direct"
        kind = self.typeof(exchange)
        return exchange, *kind.prepare_bind(queue, exchange, routing_key, arguments)

    def exchange_delete(self, exchange: str, if_unused: bool = False, nowait: bool = False) -> None:
        """Delete `exchange` and its bindings; the queues stay."""
        self.router.drop_exchange(exchange)
        self.state.exchanges.pop(exchange, None)

    def get_table(self, exchange: str) -> list[tuple[str, str, str]]:
        return list(self.router.table(exchange, fresh=True).rows)

    def prepare_queue_arguments(self, arguments: Any, **kwargs: Any) -> Any:
        return to_rabbitmq_queue_arguments(arguments, **kwargs)
