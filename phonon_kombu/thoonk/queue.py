"""Thoonk's simple queue: an item goes to exactly one taker and is gone."""

from __future__ import annotations

import uuid

from ..errors import ConfigurationError
from ..store.client import CONNECTION_ERRORS
from .base import HIGH, Base, Item


class Queue(Base):
    """A queue of items, made by :meth:`.Thoonk.queue`. Safe between threads and after a fork.

    Taking an item deletes it, in one step on the server. A taker that dies has taken the item
    with it, and so has one whose connection breaks while the reply is on its way: work that must
    not be lost belongs into a :class:`~.job.Job`.
    """

    TYPE = "queue"

    def put(self, item: Item, priority: str | bool | None = None) -> str:
        """Add `item` at the end; with ``priority=queue.HIGH`` before all others.

        Returns the item's id. Raises :exc:`~phonon_kombu.errors.ConfigurationError` for an item
        that is neither ``str`` nor ``bytes`` or another priority,
        :exc:`~phonon_kombu.errors.ItemTooLarge`, :exc:`~phonon_kombu.errors.OutOfMemory`.
        """
        if priority not in (None, False, True, HIGH):
            raise ConfigurationError(
                f"priority={priority!r}: a queue knows queue.HIGH and None; jobs have levels"
            )
        item_id = uuid.uuid4().hex
        self._link.run(
            self._script("queue/put"),
            (item_id.encode(), self._in(item), b"1" if priority else b""),
        )
        return item_id

    def get(self, timeout: float | None = None) -> Item:
        """Take the next item, waiting for one.

        Arguments:
            timeout: seconds to wait at the most; 0 does not wait; None (default) waits for ever.

        Raises :exc:`queue.Empty` if nothing came in time. If the connection breaks it raises
        redis-py's ``ConnectionError`` and does not ask again by itself: an item may have been
        taken and lost with the reply.
        """
        until = self._deadline(timeout)
        while True:
            item = self._take()
            if item is not None:
                return self._out(item)
            self._wait(until, -1)

    def size(self) -> int:
        """How many items wait."""
        return int(self._link.command(b"LLEN", self.keys.ids))

    def _take(self) -> bytes | None:
        link = self._link
        with link.lock:
            try:
                # A connection that was closed while nobody used it can still be told from one
                # that breaks with our item.
                stale = link.connection().can_read(timeout=0)
            except CONNECTION_ERRORS:
                stale = True
            if stale:
                link.close()
            found: bytes | None = link.send(((self._script("queue/get"), ()),))[0]
            return found
