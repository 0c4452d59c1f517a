"""Notices: what feeds announce by PUBLISH, and how they are asked for. No input or output here."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigurationError, MalformedItem
from ..store.keys import CHANNELS, FEEDWIDE, channel, feed_name, wire_name
from .base import encoded, text

logger = logging.getLogger("phonon_kombu.thoonk")

#: What can be asked for.
KINDS = tuple(kind for kind in CHANNELS if kind != "mark")

#: The kind that comes unasked: the connection was lost for a time, and so were notices.
GAP = "gap"

#: Kind -> the attributes of a notice that its handlers are given.
ARGUMENTS = {
    "create": ("feed",),
    "delete": ("feed",),
    "config": ("feed",),
    "publish": ("feed", "item", "id"),
    "edit": ("feed", "item", "id"),
    "retract": ("feed", "id"),
    "position": ("feed", "id", "position"),
    "finish": ("feed", "id", "item"),
    "stall": ("feed", "id", "reason"),
    "retry": ("feed", "id"),
    "cancel": ("feed", "id"),
    GAP: ("seconds",),
}

_KIND_OF = {name.encode(): kind for kind, name in CHANNELS.items()}
_CONFIRMATIONS = (b"subscribe", b"psubscribe", b"unsubscribe", b"punsubscribe")


@dataclass(frozen=True)
class Notice:
    """What has happened. Attributes that a kind does not have are None."""

    #: One of :data:`KINDS`, or ``gap``.
    kind: str
    #: Name of the feed.
    feed: str | None = None
    #: Of the item or job.
    id: str | None = None
    #: Of a publish and an edit the item, of a finish the job's result.
    item: Any = None
    #: Of a sorted feed's item: ``begin:``, ``:end``, ``:X`` (before X), ``X:`` (behind X).
    position: str | None = None
    #: Why a job is stalled.
    reason: str | None = None
    #: Of the session that made, configured or deleted a feed.
    instance: str | None = None
    #: How long a gap was.
    seconds: float | None = None
    #: What stood in the message behind the id.
    data: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True)
class Topic:
    """A kind of notices, of one feed or of all (None)."""

    kind: str
    feed: str | None = None


def topic_of(name: str, feed: str | None) -> Topic:
    """What a caller named: ``publish`` or, as in Thoonk.py, ``publish_notice``; a feed or None.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    kind = name.removesuffix("_notice") if isinstance(name, str) else name
    if kind not in ARGUMENTS:
        raise ConfigurationError(f"{name!r}: notices are {', '.join(ARGUMENTS)}")
    if feed is not None:
        encoded("name of a feed", feed)
    return Topic(kind, feed)


class Dialogue:
    """What is said on a connection that listens for notices: commands, and replies understood.

    A channel that a pattern covers is not asked for by itself: its messages would come twice.
    """

    def __init__(self, session: Any, topics: Iterable[Topic] = ()) -> None:
        self._session = session
        self._prefix = session.prefix.encode("utf-8", "surrogateescape")
        self.topics = frozenset(topics)
        #: Confirmations that the server owes us.
        self.owed = 0

    def opening(self) -> list[tuple[bytes, ...]]:
        """What to say on a new connection."""
        self.owed = 0
        return self._commands(self._asked(self.topics), b"")

    def change(self, topics: Iterable[Topic]) -> list[tuple[bytes, ...]]:
        """What to say so that it is these topics from now on."""
        before, self.topics = self._asked(self.topics), frozenset(topics)
        now = self._asked(self.topics)
        return [*self._commands(now - before, b""), *self._commands(before - now, b"UN")]

    def _commands(self, asked: set[tuple[bytes, bytes]], un: bytes) -> list[tuple[bytes, ...]]:
        self.owed += len(asked)
        found = []
        for word in (b"SUBSCRIBE", b"PSUBSCRIBE"):
            names = sorted(name for kind, name in asked if kind == word)
            if names:
                found.append(((b"P" if word[0] == 80 else b"") + un + b"SUBSCRIBE", *names))
        return found

    def _asked(self, topics: Iterable[Topic]) -> set[tuple[bytes, bytes]]:
        wide = {topic.kind for topic in topics if topic.feed is None}
        found = set()
        for topic in topics:
            prefix = self._session.prefix
            if topic.kind in FEEDWIDE:
                found.add((b"SUBSCRIBE", channel(topic.kind, prefix=prefix)))
            elif topic.kind in wide:
                found.add((b"PSUBSCRIBE", _literally(channel(topic.kind, b"", prefix)) + b"*"))
            else:
                assert topic.feed is not None
                wire = wire_name(topic.feed, self._session.hash_tags)
                found.add((b"SUBSCRIBE", channel(topic.kind, wire, prefix)))
        return found

    def hear(self, reply: Any) -> Notice | None:
        """The notice in a reply; None if it is none of ours, or a confirmation, or a PONG."""
        if not isinstance(reply, list) or len(reply) < 3:
            return None
        if reply[0] in _CONFIRMATIONS:
            self.owed = max(self.owed - 1, 0)
            return None
        if reply[0] not in (b"message", b"pmessage"):
            return None
        where, data = reply[-2:]
        head, _, wire = where[len(self._prefix) :].partition(b":")
        kind = _KIND_OF.get(head)
        if kind is None:
            return None
        rest = b""
        if kind in FEEDWIDE:
            wire, _, rest = data.partition(b"\0")
        else:
            data, _, rest = data.partition(b"\0")
        feed = feed_name(wire, self._session.hash_tags)
        if feed is None or not {Topic(kind), Topic(kind, feed)} & self.topics:
            return None
        return self._notice(kind, feed, text(data), rest)

    def _notice(self, kind: str, feed: str, id: str, rest: bytes) -> Notice:
        if kind in FEEDWIDE:
            return Notice(kind, feed, instance=text(rest))
        if kind in ("publish", "edit", "finish"):
            codec = self._session.codec_of(feed)
            try:
                item = codec.decode(rest)
            except MalformedItem as error:
                logger.warning("%s of %r in feed %r: %s", kind, id, feed, error.args[0])
                item = rest
            return Notice(kind, feed, id, item, data=rest)
        if kind == "position":
            return Notice(kind, feed, id, position=text(rest))
        if kind == "stall":
            return Notice(kind, feed, id, reason=text(rest))
        return Notice(kind, feed, id, data=rest)


def _literally(name: bytes) -> bytes:
    """A name in a pattern that matches only itself."""
    return b"".join(b"\\" + c if c in b"*?[]^-\\" else c for c in (bytes([n]) for n in name))
