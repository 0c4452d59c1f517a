"""Thoonk's feed: items by id, in the order of their publishing; whoever listens is told."""

from __future__ import annotations

import uuid

from ..errors import ItemNotFound
from .base import Item, job_id, text
from .catalog import trim
from .items import SLICE, Items
from .live import Live, live
from .steps import Send, Steps, blocking, once, send


class FeedSteps(Items):
    """What a feed does, for both faces."""

    TYPE = "feed"
    TRIMMED = True

    def _publish(self, item: Item, id: str | None = None) -> Steps[str]:
        """Put an item at the end. An id that is there already is edited, and moves to the end.

        Where the feed has a `max_length`, the oldest items are retracted. A publish whose reply was
        lost is repeated: who listens may then be told of an edit too.

        Arguments:
            item: ``str`` or ``bytes``; with a serializer whatever that one takes.
            id: a name for it; default a new one.

        Returns the id. Raises :exc:`~phonon_kombu.errors.FeedNotFound` if the feed was deleted,
        :exc:`~phonon_kombu.errors.ConfigurationError` for an item or id that makes no sense,
        :exc:`~phonon_kombu.errors.ItemTooLarge`, :exc:`~phonon_kombu.errors.OutOfMemory`.
        """
        ident = uuid.uuid4().hex.encode() if id is None else job_id(id)
        told = (self._channel("publish"), self._channel("edit"), self._channel("retract"))
        call = (self._script("feed/publish"), (ident, self._in(item), *told, self._type))
        ((_, excess),) = yield from self._changed(send(call))
        if excess:
            yield from trim(self.session, self.name)
        return text(ident)

    def _retract(self, id: str) -> Steps[None]:
        """Take an item out.

        Raises :exc:`~phonon_kombu.errors.ItemNotFound`, :exc:`~phonon_kombu.errors.FeedNotFound`.
        """
        args = (job_id(id), self._channel("retract"), self._type)
        yield from self._changed(once((self._script("feed/retract"), args), ItemNotFound))

    def _ids(self) -> Steps[list[bytes]]:
        """In slices. What is published meanwhile moves ahead of us, and nothing else moves."""
        found: dict[bytes, None] = {}
        after, same = b"-inf", 0
        while True:
            # Those of the last score are read again: places are no guide, what was seen may be
            # gone. Peers may publish any number in one millisecond.
            limit = same + SLICE
            (part,) = yield Send(
                (
                    b"ZRANGEBYSCORE", self.keys.ids, after, b"+inf", b"WITHSCORES",
                    b"LIMIT", b"0", b"%d" % limit,
                )
            )  # fmt: skip
            ids, scores = part[::2], part[1::2]
            for ident in ids:
                found.pop(ident, None)  # its last place is the one that counts
                found[ident] = None
            if len(ids) < limit:
                return list(found)
            after = scores[-1]
            same = scores.count(after)


class Feed(FeedSteps):
    """A feed, made by :meth:`.Thoonk.feed`. Safe between threads and after a fork."""

    publish = blocking(FeedSteps._publish)
    retract = blocking(FeedSteps._retract)
    get_ids = blocking(FeedSteps._get_ids)
    get_all = get_items = blocking(FeedSteps._get_all)
    get_item = blocking(FeedSteps._get_item)
    has_id = blocking(FeedSteps._has_id)
    size = blocking(FeedSteps._size)
    live = live


__all__ = ["Feed", "FeedSteps", "Live"]
