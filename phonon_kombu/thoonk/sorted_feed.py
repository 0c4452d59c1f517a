"""Thoonk's sorted feed: items in the order that its users give them."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigurationError, Exists, ItemNotFound
from .base import Item, job_id, text
from .items import Items
from .live import live
from .steps import Fresh, Send, Steps, blocking, once, send

#: A place: where, the id that it refers to, and both as a position notice has them.
Place = tuple[bytes, bytes, bytes]

BEGIN: Place = (b"begin", b"", b"begin:")
END: Place = (b"end", b"", b":end")

#: Ids that a position could not tell from them.
NO_IDS = ("begin", "end")


def before(id: str) -> Place:
    """The place before an item."""
    return b"before", job_id(id), b":" + job_id(id)


def after(id: str) -> Place:
    """The place behind an item."""
    return b"after", job_id(id), job_id(id) + b":"


def place(position: str) -> Place:
    """The place that a position names: ``begin:``, ``:end``, ``:42`` (before 42), ``42:`` (after).

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    if position == "begin:":
        return BEGIN
    if position == ":end":
        return END
    if isinstance(position, str) and len(position) > 1:
        if position[0] == ":":
            return before(position[1:])
        if position[-1] == ":":
            return after(position[:-1])
    raise ConfigurationError(f"position={position!r}: one of 'begin:', ':end', ':ID', 'ID:'")


class SortedFeedSteps(Items):
    """The order is a ring of links: for each id a hash says which one follows, and another which
    one precedes it. Nothing is compared or counted, so that there is nothing to run out of, and
    each insert and move touches three or four entries, however long the feed is. With `interop`
    the order is the contract's LIST, in which a move or an insert in the middle takes time with
    its length.
    """

    TYPE = "sorted_feed"

    #: How the order is kept, by `interop`, as the configuration has it.
    ORDERS = {False: b"links", True: b"list"}

    def __init__(
        self, session: Any, name: str, serializer: str | None = None, interop: bool = False
    ) -> None:
        super().__init__(session, name, serializer)
        self.interop = interop

    def _ordering(self, operation: str) -> Any:
        return self._script(f"sorted_feed/{'list_' if self.interop else ''}{operation}")

    # Inserting -------------------------------------------------------------------------------

    def _insert(self, item: Item, where: Place, id: str | None) -> Steps[str]:
        call = (
            self._ordering("insert"),
            (
                b"" if id is None else job_id(id), self._in(item), where[0], where[1],
                self._channel("publish"), self._channel("position"), where[2], self._type,
            ),
        )  # fmt: skip
        if id in NO_IDS:
            raise ConfigurationError(f"id={id!r}: in a position it names an end of the feed")
        while True:
            if id is None:
                yield Fresh()
            try:
                # Without an id it cannot be told whether a first try was carried out.
                (made,) = yield from self._changed(send(call, repeat=id is not None))
            except Exists:
                if id is None:
                    continue  # other items have the next thousand numbers
                raise
            return text(made)

    def _append(self, item: Item, id: str | None = None) -> Steps[str]:
        """Put a new item at the end.

        Arguments:
            item: ``str`` or ``bytes``; with a serializer whatever that one takes.
            id: a name for it, not ``begin`` or ``end``; default the next number. The same id with
                the same item again is a no-op. Only with an id is an insert whose reply was lost
                repeated by itself.

        Returns the id. Raises :exc:`~phonon_kombu.errors.Exists` if another item has the id,
        :exc:`~phonon_kombu.errors.FeedNotFound`, :exc:`~phonon_kombu.errors.ConfigurationError`,
        :exc:`~phonon_kombu.errors.ItemTooLarge`, :exc:`~phonon_kombu.errors.OutOfMemory`.
        """
        return (yield from self._insert(item, END, id))

    def _prepend(self, item: Item, id: str | None = None) -> Steps[str]:
        """Put a new item at the beginning. As :meth:`append`."""
        return (yield from self._insert(item, BEGIN, id))

    def _publish_before(self, before_id: str, item: Item, id: str | None = None) -> Steps[str]:
        """Put a new item before the one of id `before_id`.

        As :meth:`append`; raises also :exc:`~phonon_kombu.errors.ItemNotFound`.
        """
        return (yield from self._insert(item, before(before_id), id))

    def _publish_after(self, after_id: str, item: Item, id: str | None = None) -> Steps[str]:
        """Put a new item behind the one of id `after_id`.

        As :meth:`append`; raises also :exc:`~phonon_kombu.errors.ItemNotFound`.
        """
        return (yield from self._insert(item, after(after_id), id))

    def _edit(self, id: str, item: Item) -> Steps[None]:
        """Another item under the same id, in the same place.

        Raises :exc:`~phonon_kombu.errors.ItemNotFound`, :exc:`~phonon_kombu.errors.FeedNotFound`.
        """
        args = (job_id(id), self._in(item), self._channel("edit"), self._type)
        yield from self._changed(send((self._script("sorted_feed/edit"), args)))

    # Moving ----------------------------------------------------------------------------------

    def _move_to(self, id: str, where: Place) -> Steps[None]:
        args = (job_id(id), where[0], where[1], self._channel("position"), where[2], self._type)
        yield from self._changed(send((self._ordering("move"), args)))

    def _move(self, position: str, id: str) -> Steps[None]:
        """Move an item to a position: ``begin:``, ``:end``, ``:42`` (before 42), ``42:`` (after).

        Raises :exc:`~phonon_kombu.errors.ItemNotFound` if one of the two is not there,
        :exc:`~phonon_kombu.errors.FeedNotFound`, :exc:`~phonon_kombu.errors.ConfigurationError`.
        """
        yield from self._move_to(id, place(position))

    def _move_first(self, id: str) -> Steps[None]:
        """Move an item to the beginning. Raises :exc:`~phonon_kombu.errors.ItemNotFound`."""
        yield from self._move_to(id, BEGIN)

    def _move_last(self, id: str) -> Steps[None]:
        """Move an item to the end. Raises :exc:`~phonon_kombu.errors.ItemNotFound`."""
        yield from self._move_to(id, END)

    def _move_before(self, before_id: str, id: str) -> Steps[None]:
        """Move an item before another. Raises :exc:`~phonon_kombu.errors.ItemNotFound`."""
        yield from self._move_to(id, before(before_id))

    def _move_after(self, after_id: str, id: str) -> Steps[None]:
        """Move an item behind another. Raises :exc:`~phonon_kombu.errors.ItemNotFound`."""
        yield from self._move_to(id, after(after_id))

    def _retract(self, id: str) -> Steps[None]:
        """Take an item out.

        Raises :exc:`~phonon_kombu.errors.ItemNotFound`, :exc:`~phonon_kombu.errors.FeedNotFound`.
        """
        args = (job_id(id), self._channel("retract"), self._type)
        yield from self._changed(once((self._ordering("retract"), args), ItemNotFound))

    # Reading ---------------------------------------------------------------------------------

    def _ids(self) -> Steps[list[bytes]]:
        if self.interop:
            return (yield Send((b"LRANGE", self.keys.ids, b"0", b"-1")))[0]  # type: ignore[no-any-return]
        found: list[bytes] = [b""]
        seen = b""
        while True:
            ((moves, *part),) = yield Send((self._script("sorted_feed/walk"), (found[-1], seen)))
            found += part
            seen = moves
            if not part:
                return (yield from self._ids_at_once())
            if not part[-1]:
                return found[1:-1]

    def _ids_at_once(self) -> Steps[list[bytes]]:
        """A long feed that is being rearranged, in one command instead of in slices."""
        (reply,) = yield Send((b"HGETALL", self.keys.next))
        following = dict(zip(reply[::2], reply[1::2], strict=True))
        found = []
        ident = following.get(b"", b"")
        while ident:
            found.append(ident)
            ident = following[ident]
        return found


class SortedFeed(SortedFeedSteps):
    """A sorted feed, made by :meth:`.Thoonk.sorted_feed`. Safe between threads and after a fork."""

    append = publish = blocking(SortedFeedSteps._append)
    prepend = blocking(SortedFeedSteps._prepend)
    publish_before = blocking(SortedFeedSteps._publish_before)
    publish_after = blocking(SortedFeedSteps._publish_after)
    edit = blocking(SortedFeedSteps._edit)
    move = blocking(SortedFeedSteps._move)
    move_first = blocking(SortedFeedSteps._move_first)
    move_last = blocking(SortedFeedSteps._move_last)
    move_before = blocking(SortedFeedSteps._move_before)
    move_after = blocking(SortedFeedSteps._move_after)
    retract = blocking(SortedFeedSteps._retract)
    get_ids = blocking(SortedFeedSteps._get_ids)
    get_all = get_items = blocking(SortedFeedSteps._get_all)
    get_item = blocking(SortedFeedSteps._get_item)
    has_id = blocking(SortedFeedSteps._has_id)
    size = blocking(SortedFeedSteps._size)
    live = live
