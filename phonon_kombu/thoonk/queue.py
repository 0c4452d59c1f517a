"""Thoonk's simple queue: an item goes to exactly one taker and is gone."""

from __future__ import annotations

import uuid

from ..errors import ConfigurationError
from .base import HIGH, Base, Item
from .steps import Fresh, Send, Steps, blocking, send


class QueueSteps(Base):
    """Taking an item deletes it, in one step on the server. A taker that dies has taken the item
    with it, and so has one whose connection breaks while the reply is on its way: work that must
    not be lost belongs into a :class:`~.job.Job`.
    """

    TYPE = "queue"

    def _put(self, item: Item, priority: str | bool | None = None) -> Steps[str]:
        """Add `item` at the end; with ``priority=queue.HIGH`` before all others.

        It is repeated if its reply is lost: the item is put twice if it was taken in that moment.

        Returns the item's id. Raises :exc:`~phonon_kombu.errors.ConfigurationError` for an item
        that is neither ``str`` nor ``bytes`` or another priority,
        :exc:`~phonon_kombu.errors.FeedNotFound` if the queue was deleted,
        :exc:`~phonon_kombu.errors.ItemTooLarge`, :exc:`~phonon_kombu.errors.OutOfMemory`.
        """
        if priority not in (None, False, True, HIGH):
            raise ConfigurationError(
                f"priority={priority!r}: a queue knows queue.HIGH and None; jobs have levels"
            )
        item_id = uuid.uuid4().hex
        args = (item_id.encode(), self._in(item), b"1" if priority else b"", self._type)
        yield from self._changed(send((self._script("queue/put"), args)))
        return item_id

    def _get(self, timeout: float | None = None) -> Steps[Item]:
        """Take the next item, waiting for one.

        Arguments:
            timeout: seconds to wait at the most; 0 does not wait; None (default) waits for ever.

        Raises :exc:`queue.Empty` if nothing came in time. If the connection breaks it raises
        redis-py's ``ConnectionError`` and does not ask again by itself: an item may have been
        taken and lost with the reply. What the queue's serializer cannot read raises
        :exc:`~phonon_kombu.errors.MalformedItem`, with the item's bytes; it is taken all the same.
        """
        until = self._deadline(timeout)
        while True:
            # A connection that was closed while nobody used it can still be told from one that
            # breaks with our item.
            yield Fresh()
            call = (self._script("queue/get"), (self._type,))
            (item,) = yield from self._changed(send(call, repeat=False))
            if item is not None:
                return self._out(item)
            yield from self._until_woken(until)

    def _size(self) -> Steps[int]:
        """How many items wait."""
        (found,) = yield Send((b"LLEN", self.keys.ids))
        return int(found)


class PyQueueSteps(QueueSteps):
    """A queue of Python data.

    They go through JSON by default: numbers, text, None, lists, dictionaries; also dates, decimals
    and UUIDs, as kombu's JSON has them. Who needs more, and trusts everybody who can write to this
    Redis, makes it with ``serializer="pickle"``.
    """

    TYPE = "pyqueue"
    DEFAULT_SERIALIZER = "json"


class Queue(QueueSteps):
    """A queue of items, made by :meth:`.Thoonk.queue`. Safe between threads and after a fork."""

    put = blocking(QueueSteps._put)
    get = blocking(QueueSteps._get)
    size = blocking(QueueSteps._size)


class PyQueue(PyQueueSteps):
    """A queue of Python data, made by :meth:`.Thoonk.pyqueue`."""

    put = blocking(PyQueueSteps._put)
    get = blocking(PyQueueSteps._get)
    size = blocking(PyQueueSteps._size)
