"""Live queries: the items of a feed that match, and from then on every change of them.

Between reading a feed and hearing of its changes nothing may be missed or told twice. So a live
query subscribes first, and then reads in slices (``feed/scan``), each of which publishes a *mark*
at the very moment of its reading. In the stream of notices the marks tell what each slice has seen
already: a notice before the mark is in the slice, one behind it is not. After a lost connection it
reads again, and tells what has changed meanwhile.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from time import monotonic
from typing import Any

from ..errors import MalformedItem
from .base import seconds, text
from .items import Items
from .notices import GAP, Notice, Topic, logger
from .steps import Send, Steps, perform
from .streams import Stream
from .subscription import Subscription

Match = Callable[[Any], bool]


@dataclass(frozen=True)
class Change:
    """Of a live query: an item that is there, or what became of one."""

    #: ``item``: it was there when the query began. ``publish``: it is new, or matches now.
    #: ``edit``, ``position``. ``retract``: it is gone, or does not match any more.
    kind: str
    id: str
    item: Any = None
    position: str | None = None


class Query:
    """What a live query knows. No input or output here, but for steps."""

    def __init__(self, feed: Items, match: Match | None) -> None:
        self.feed = feed
        self._match = match
        #: Id -> digest of the item, of those that match and that the reader knows of.
        self._known: dict[str, bytes] = {}
        self._begun = False
        #: Mark -> what the slice has brought that it stands for; the last one is `_last`.
        self._slices: dict[str, dict[str, bytes]] = {}
        self._last: str | None = None
        #: All is read, and the order is wanted: :meth:`complete`. Until it is had, ask again.
        self.due = False
        #: Id -> item, while slices are outstanding: all items as of what was heard last.
        self._state: dict[str, bytes] = {}
        self.changes: deque[Change] = deque()

    def topics(self) -> list[Topic]:
        kinds = ("publish", "edit", "retract", "position", "delete", "mark")
        return [Topic(kind, self.feed.name) for kind in kinds]

    def read(self) -> Steps[None]:
        """Read all items, once we are subscribed."""
        self._state, self._slices = {}, {}
        token, cursor, number = uuid.uuid4().hex, b"0", 0
        scan, told = self.feed._script("feed/scan"), self.feed._channel("mark")
        while True:
            mark = f"{token}.{number}"
            ((cursor, *found),) = yield Send((scan, (cursor, told, mark.encode())))
            self._slices[mark] = {
                text(ident): item for ident, item in zip(found[::2], found[1::2], strict=True)
            }
            self._last = mark
            if cursor == b"0":
                return
            number += 1

    def hear(self, notice: Notice) -> bool:
        """Take in a notice. Returns whether all must be read again, because of a gap."""
        if notice.kind == GAP:
            return True
        ident = notice.id or ""
        if notice.kind == "mark":
            self._state.update(self._slices.pop(ident, {}))
            if ident == self._last:
                self._last, self.due = None, True
        elif self._last is not None:
            if notice.kind in ("publish", "edit"):
                self._state[ident] = notice.data
            elif notice.kind == "retract":
                self._state.pop(ident, None)
            elif notice.kind == "delete":
                self._state.clear()
        elif notice.kind == "delete":
            for known in list(self._known):
                self._gone(known)
        elif notice.kind == "retract":
            self._gone(ident)
        elif notice.kind == "position":
            if ident in self._known:
                self.changes.append(Change("position", ident, position=notice.position))
        else:
            self._there(ident, notice.data)
        return False

    def order(self) -> Steps[list[str]]:
        return (yield from self.feed._get_ids())

    def complete(self, order: Collection[str]) -> None:
        """All is read; `order` is that of the feed, as far as it is known."""
        state, self._state, self.due = self._state, {}, False
        for known in [known for known in self._known if known not in state]:
            self._gone(known)
        for ident in dict.fromkeys([*(i for i in order if i in state), *state]):
            if self._known.get(ident) != _digest(state[ident]):
                self._there(ident, state[ident])
        if self._begun and hasattr(self.feed, "ORDERS"):
            # What was moved meanwhile was not heard: this makes any order the right one.
            for ident in (i for i in order if i in self._known):
                self.changes.append(Change("position", ident, position=":end"))
        self._begun = True

    def _there(self, ident: str, data: bytes) -> None:
        try:
            item = self.feed._out(data)
        except MalformedItem as error:
            logger.warning("item %r of %r: %s", ident, self.feed, error.args[0])
            item = data
        if not self._matches(ident, item):
            self._gone(ident)
            return
        kind = "edit" if ident in self._known else "publish" if self._begun else "item"
        self._known[ident] = _digest(data)
        self.changes.append(Change(kind, ident, item))

    def _matches(self, ident: str, item: Any) -> bool:
        try:
            return self._match is None or bool(self._match(item))
        except Exception:
            logger.exception("%r cannot say whether item %r matches", self._match, ident)
            return False

    def _gone(self, ident: str) -> None:
        if self._known.pop(ident, None) is not None:
            self.changes.append(Change("retract", ident))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


class Live(Stream[Change]):
    """A live query: an iterator of :class:`Change`, a context manager. Made by ``feed.live()``.

    First come the items that are there, each as a change of the kind ``item``, in the feed's order;
    then the changes as they happen. After a lost connection come those that have happened since,
    and of a sorted feed each item as one that was moved to the end, in their order. To be read by
    one thread.
    """

    def __init__(self, feed: Items, match: Match | None = None) -> None:
        self._query = Query(feed, match)
        self._session = feed.session
        self._subscription = Subscription(self._session, self._query.topics())
        self._reading = True

    def get(self, timeout: float | None = None) -> Change:
        """The next change, waiting for it.

        Arguments:
            timeout: seconds to wait at the most; None (default) waits for ever.

        Raises :exc:`queue.Empty` if none came in time, or the query is closed.
        """
        until = None if timeout is None else monotonic() + seconds("timeout", timeout)
        query = self._query
        while not query.changes:
            if self._reading:
                perform(self._session, query.read())
                self._reading = False
            if query.due:
                query.complete(perform(self._session, query.order()))
                continue
            left = None if until is None else max(until - monotonic(), 0)
            self._reading = query.hear(self._subscription.get(left))
        return query.changes.popleft()

    def close(self) -> None:
        """End the query."""
        self._subscription.close()


def live(self: Any, match: Match | None = None) -> Live:
    """A live query: first the items that match, and then each change of them.

    ::

        with feed.live(lambda item: "urgent" in item) as changes:
            for change in changes:
                print(change.kind, change.id, change.item)

    It does not end by itself, and hears of every change, in whichever process it is made.

    Arguments:
        match: is asked about each item whether it belongs to the query; None: all do. An item that
            is edited so that it matches comes as ``publish``, and one that does not match any more
            goes as ``retract``. What `match` raises is logged: that item does not match.
    """
    return Live(self, match)
