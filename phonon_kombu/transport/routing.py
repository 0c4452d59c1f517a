"""Where a message for a named exchange goes, without asking Redis for every message.

Each exchange has a table of bindings and a version that grows with every change of it. A
publisher keeps the table and sends, in the same write as the message, a question for the version:
when the answer differs, the queues that were added get the message too. A queue that is no longer
bound is noticed by the put itself: a queue's config names its bindings, and `job/put` refuses
with UNBOUND where the one that led to it is gone. So a cached table never delivers to a wrong
queue, never misses a right one, and costs no round trip while nothing changes.
"""

from __future__ import annotations

import random
from time import monotonic
from typing import Any, NamedTuple

from ..store.client import Link
from ..store.keys import exchange_keys, queue_keys
from ..store.scripts import load

#: Separates the parts of a binding (the same as in kombu's Redis transport).
SEP = "\x06\x16"


#: A table with more bindings than this is looked through for dead ones, at times, in slices.
SWEEP_ABOVE = 50
SWEEP_SECONDS = 30.0
SWEEP_SLICE = 200


class Table(NamedTuple):
    """The bindings of an exchange at one version."""

    version: bytes | None
    rows: list[tuple[str, str, str]]  # routing key, pattern, queue


def binding_field(exchange: str, routing_key: str, pattern: str | None) -> bytes:
    """Field of a queue's config that says: bound to this exchange by this key."""
    return SEP.join(("bind:", exchange, routing_key or "", pattern or "")).encode()


class Router:
    """The bindings that one channel knows and makes."""

    def __init__(self, link: Link, prefix: str, hash_tags: bool) -> None:
        self._link = link
        self._prefix = prefix
        self._hash_tags = hash_tags
        self._tables: dict[str, Table] = {}
        self._swept_at: dict[str, float] = {}

    def table(self, exchange: str, fresh: bool = False) -> Table:
        """Bindings of `exchange`; from Redis at the first time, or if `fresh`."""
        known = self._tables.get(exchange)
        if known is None or fresh:
            keys = exchange_keys(exchange, self._prefix)
            # The version first: a change in between makes the version look old, not new.
            version, members = self._link.send(
                ((b"GET", keys.version), (b"SMEMBERS", keys.bindings)), repeat=True
            )
            rows = [_row(member) for member in members]
            if len(rows) > SWEEP_ABOVE:
                rows = self._swept(exchange, rows)
            known = self._tables[exchange] = Table(version, rows)
        return known

    def _swept(self, exchange: str, rows: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
        """Drop the bindings of queues that have expired, as those for replies do when their
        owner died; a slice of them, the oldest cannot be told."""
        now = monotonic()
        if now - self._swept_at.get(exchange, 0.0) < SWEEP_SECONDS:
            return rows
        self._swept_at[exchange] = now
        part = random.sample(rows, min(len(rows), SWEEP_SLICE))
        there = self._link.send([(b"EXISTS", self._queue(row[2]).config) for row in part])
        for row, exists in zip(part, there, strict=True):
            if not exists:
                self.unbind(exchange, *row)
                rows.remove(row)
        return rows

    def version_question(self, exchange: str) -> tuple[bytes, ...]:
        """The command whose reply :meth:`is_current` judges."""
        return (b"GET", exchange_keys(exchange, self._prefix).version)

    def is_current(self, exchange: str, version: bytes | None) -> bool:
        """Whether the table that this channel keeps has this version."""
        known = self._tables.get(exchange)
        return known is not None and known.version == version

    def bind(self, exchange: str, routing_key: str, pattern: str | None, queue: str) -> None:
        """Bind `queue`; the queue's side first, so that no publisher is led to a refusal."""
        keys = exchange_keys(exchange, self._prefix)
        field = binding_field(exchange, routing_key, pattern)
        self._link.send(
            (
                (b"HSET", self._queue(queue).config, field, b"1"),
                (load("exchange/bind").prepare(keys), (_member(routing_key, pattern, queue),)),
            ),
            repeat=True,
        )

    def unbind(self, exchange: str, routing_key: str, pattern: str | None, queue: str) -> None:
        """Undo :meth:`bind`; the exchange's side first."""
        keys = exchange_keys(exchange, self._prefix)
        self._link.send(
            (
                (load("exchange/unbind").prepare(keys), (_member(routing_key, pattern, queue),)),
                (
                    b"HDEL",
                    self._queue(queue).config,
                    binding_field(exchange, routing_key, pattern),
                ),
            ),
            repeat=True,
        )

    def bindings_of(self, queue: str) -> list[tuple[str, str, str]]:
        """All bindings of `queue`, whoever made them: (exchange, routing key, pattern)."""
        fields = self._link.command(b"HKEYS", self._queue(queue).config)
        found = []
        for field in fields:
            parts = field.decode().split(SEP)
            if parts[0] == "bind:" and len(parts) == 4:
                found.append((parts[1], parts[2], parts[3]))
        return found

    def drop_exchange(self, exchange: str) -> None:
        """Delete all bindings of `exchange`."""
        for routing_key, pattern, queue in self.table(exchange, fresh=True).rows:
            self.unbind(exchange, routing_key, pattern, queue)
        self._tables.pop(exchange, None)

    def _queue(self, queue: str) -> Any:
        return queue_keys(queue, self._prefix, self._hash_tags)


def _member(routing_key: str, pattern: str | None, queue: str) -> bytes:
    return SEP.join((routing_key or "", pattern or "", queue)).encode()


def _row(member: bytes) -> tuple[str, str, str]:
    routing_key, pattern, queue = member.decode().split(SEP, 2)
    return routing_key, pattern, queue
