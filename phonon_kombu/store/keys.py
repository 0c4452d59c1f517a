"""The names of all keys in Redis, spelled here and in ``phonon_keys`` and nowhere else.

The names follow Thoonk's contract, so that another Thoonk client can put and take jobs:
``<prefix>feed.<part>:{<queue>}``. The braces make all keys of one queue hash to one slot of a
Redis Cluster; with ``hash_tags=False`` they are left out, as the contract writes them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

#: Priorities of a job: level 0 is ``feed.ids``, the list of the contract, 1 to 9 stand beside it.
LEVELS = 10

#: Parts of a queue in Thoonk's contract -> what they hold.
CONTRACT_PARTS = {
    "ids": "LIST of ready job ids, put at the left, taken from the right",
    "items": "HASH id -> item",
    "published": "ZSET of job ids by the time they were put, ms",
    "claimed": "ZSET of claimed job ids by the time of the claim, ms",
    "cancelled": "HASH id -> how often the job was cancelled; an entry marks it redelivered",
    "stalled": "SET of stalled job ids",
    "publishes": "counter of puts",
    "finishes": "counter of finishes",
    "config": "HASH of the queue's settings; exists as long as the queue does",
}

#: Parts that this package adds.
ADDED_PARTS = {
    "scheduled": "ZSET of job ids by the time they fall due, ms",
    "owners": "HASH id -> owner of the claim",
    "reasons": "HASH id -> why the job is stalled",
    "wake": "ZSET with at most one member: somebody should look into this queue",
    "priorities": "HASH id -> level, for jobs whose level is not 0",
    "deadlines": "ZSET of job ids by the time they expire, ms",
    "ghosts": "HASH id -> how many entries of the ids lists no longer stand for the job",
    "dead": "LIST of jobs on their way to the dead-letter exchange, the oldest left",
    "tokens": "counter of ms, until when the queue's rate limit is used up, ms",
    "unique": "HASH deduplication id -> kind and id of the job that has it",
    "unique_ends": "ZSET of deduplication ids by when they end or are to be looked at, ms",
    "duplicates": "counter of puts that were left out as duplicates",
}


def hash_tag(name: str) -> str:
    """`name` in the braces that make Redis Cluster put all its keys into one slot.

    Redis hashes what stands between the first opening and the next closing brace. Where that is
    nothing it hashes the whole key, and the keys would part: the empty name is written as ``%``,
    and a closing brace or a percent sign at the beginning percent-coded.
    """
    if not name or name[0] in "}%":
        name = f"%{ord(name[0]):02X}{name[1:]}" if name else "%"
    return f"{{{name}}}"


def wire_name(feed: str, hash_tags: bool = True) -> bytes:
    """The name by which a client of Thoonk's contract knows `feed`: as its keys have it."""
    return (hash_tag(feed) if hash_tags else feed).encode("utf-8", "surrogateescape")


def feed_name(wire: bytes, hash_tags: bool = True) -> str | None:
    """The feed that has this :func:`wire_name`; None if none of ours can have it."""
    name = wire.decode("utf-8", "surrogateescape")
    if not hash_tags:
        return name
    if len(name) < 2 or name[0] != "{" or name[-1] != "}":
        return None
    name = name[1:-1]
    if name[:1] == "%":
        name = chr(int(name[1:3], 16)) + name[3:] if name[1:3] in ("7D", "25") else ""
    return name


def shown_name(wire: bytes) -> str:
    """The name of the queue that has this :func:`wire_name`, for people to read."""
    return feed_name(wire) or wire.decode("utf-8", "surrogateescape")


class QueueKeys:
    """The keys of one queue.

    Every part of :data:`CONTRACT_PARTS` and :data:`ADDED_PARTS` is an attribute (bytes);
    :attr:`levels` are the ten ids lists, level 0 first.
    """

    __slots__ = (
        "queue",
        "levels",
        "all",
        "finish_channel",
        "stall_channel",
        "retry_channel",
        "cancel_channel",
        "_head",
        "_tail",
        *CONTRACT_PARTS,
        *ADDED_PARTS,
    )

    levels: tuple[bytes, ...]
    all: tuple[bytes, ...]

    if TYPE_CHECKING:

        def __getattr__(self, part: str) -> bytes: ...

    def __init__(self, queue: str, prefix: str = "", hash_tags: bool = True) -> None:
        self.queue = queue
        self._head = f"{prefix}feed."
        self._tail = f":{hash_tag(queue)}" if hash_tags else f":{queue}"
        self.finish_channel = finish_channel(self._tail[1:], prefix)
        self.stall_channel, self.retry_channel, self.cancel_channel = (
            channel(kind, self._tail[1:].encode("utf-8", "surrogateescape"), prefix)
            for kind in ("stall", "retry", "cancel")
        )
        for part in (*CONTRACT_PARTS, *ADDED_PARTS):
            setattr(self, part, self.part(part))
        self.levels = (self.part("ids"), *(self.part(f"ids.{n}") for n in range(1, LEVELS)))
        self.all = (
            *self.levels,
            *(getattr(self, part) for part in (*CONTRACT_PARTS, *ADDED_PARTS) if part != "ids"),
        )

    def part(self, name: str) -> bytes:
        """Key of the part `name`."""
        return f"{self._head}{name}{self._tail}".encode("utf-8", "surrogateescape")

    def result(self, job_id: str) -> bytes:
        """Key of the result of a finished job. The id stands last: it may have braces."""
        return self.part("result") + f".{job_id}".encode("utf-8", "surrogateescape")


#: Parts of a feed of items -> what they hold. The first four are of Thoonk's contract, where the
#: ids of a sorted feed are a LIST; that one is kept only if interop is asked for.
FEED_PARTS = {
    "ids": "feed: ZSET of item ids by the time they were published, ms; sorted feed: LIST of ids",
    "items": "HASH id -> item",
    "publishes": "counter of publishes",
    "idincr": "counter of the ids that were made for a sorted feed",
    "config": "HASH of the feed's settings; exists as long as the feed does",
    "next": "HASH id -> the id behind it in a sorted feed; the empty id stands for both ends",
    "previous": "HASH id -> the id before it in a sorted feed; the empty id for both ends",
    "moves": "counter of changes in the order of a sorted feed, but for appends",
}


class FeedKeys:
    """The keys of one feed or sorted feed; every part of :data:`FEED_PARTS` is an attribute.

    :attr:`all` are also those that a queue or job feed of this name has: what must go with it.
    """

    __slots__ = ("feed", "all", *FEED_PARTS)

    if TYPE_CHECKING:

        def __getattr__(self, part: str) -> bytes: ...

    all: tuple[bytes, ...]

    def __init__(self, feed: str, prefix: str = "", hash_tags: bool = True) -> None:
        self.feed = feed
        keys = QueueKeys(feed, prefix, hash_tags)
        for part in FEED_PARTS:
            setattr(self, part, keys.part(part))
        self.all = tuple(dict.fromkeys([*keys.all, *(getattr(self, part) for part in FEED_PARTS)]))


class ExchangeKeys:
    """The keys of one exchange's routing table."""

    __slots__ = ("exchange", "bindings", "version")

    def __init__(self, exchange: str, prefix: str = "") -> None:
        self.exchange = exchange
        self.bindings = f"{prefix}exchange.bindings:{hash_tag(exchange)}".encode(
            "utf-8", "surrogateescape"
        )
        self.version = f"{prefix}exchange.version:{hash_tag(exchange)}".encode(
            "utf-8", "surrogateescape"
        )


class NodeKeys:
    """The keys about the processes that share a database, and those of one of them."""

    __slots__ = ("beats", "presence", "about", "dying", "lock", "scratch", "prefix")

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        for part in ("beats", "presence", "about", "dying", "lock", "scratch"):
            setattr(self, part, f"{prefix}node.{part}:{{nodes}}".encode())

    if TYPE_CHECKING:

        def __getattr__(self, part: str) -> bytes: ...

    def mail(self, node: str) -> bytes:
        """ZSET on which the only node waits, until another one joins and leaves a word."""
        return f"{self.prefix}node.mail.{node}:{{nodes}}".encode()

    def held(self, node: str) -> bytes:
        """SET of the queues of which `node` has ever claimed jobs, by their :func:`wire_name`: who
        looks after it may have other hash tags than those who claimed."""
        return f"{self.prefix}node.held.{node}:{{nodes}}".encode()


def layout_key(prefix: str = "") -> bytes:
    """Key that holds the version of this key layout."""
    return f"{prefix}phonon.layout".encode()


def feeds_key(prefix: str = "") -> bytes:
    """Key of the SET with the names of all feeds (Thoonk's contract)."""
    return f"{prefix}feeds".encode()


def lettered_key(prefix: str = "") -> bytes:
    """Key of the SET with the names of all queues that have a dead-letter exchange."""
    return f"{prefix}feeds.lettered".encode()


def caretaker_key(prefix: str = "") -> bytes:
    """Key of the lock of the process that looks after those queues."""
    return f"{prefix}feeds.caretaker".encode()


#: Kind of a notice -> the PUBLISH channel on which it is announced. The first three tell the feed
#: in the message, the others in the channel's name. The last four are ours, the rest Thoonk's
#: contract.
CHANNELS = {
    "create": "newfeed",
    "delete": "delfeed",
    "config": "conffeed",
    "publish": "feed.publish",
    "edit": "feed.edit",
    "retract": "feed.retract",
    "position": "feed.position",
    "finish": "job.finish",
    "stall": "job.stall",
    "retry": "job.retry",
    "cancel": "job.cancel",
    "mark": "feed.mark",
}

#: Kinds of notices about a feed as a whole, on one channel for all feeds.
FEEDWIDE = ("create", "delete", "config")


def channel(kind: str, feed: bytes = b"", prefix: str = "") -> bytes:
    """PUBLISH channel of notices of this kind; `feed` is the :func:`wire_name` (or a pattern)."""
    head = f"{prefix}{CHANNELS[kind]}".encode("utf-8", "surrogateescape")
    return head if kind in FEEDWIDE else head + b":" + feed


def finish_channel(feed: str, prefix: str = "") -> bytes:
    """PUBLISH channel on which results of finished jobs are announced (Thoonk's contract).

    `feed` is the name by which a peer knows the queue: with the braces of its keys, if any.
    """
    return channel("finish", feed.encode("utf-8", "surrogateescape"), prefix)


@lru_cache(maxsize=4096)
def queue_keys(queue: str, prefix: str = "", hash_tags: bool = True) -> QueueKeys:
    """Keys of `queue`, made once per process."""
    return QueueKeys(queue, prefix, hash_tags)


def keys_on_wire(wire: bytes, prefix: str = "") -> QueueKeys:
    """Keys of the queue that has this :func:`wire_name`, with hash tags or without."""
    return queue_keys(wire.decode("utf-8", "surrogateescape"), prefix, False)


@lru_cache(maxsize=4096)
def feed_keys(feed: str, prefix: str = "", hash_tags: bool = True) -> FeedKeys:
    """Keys of the feed or sorted feed `feed`, made once per process."""
    return FeedKeys(feed, prefix, hash_tags)


@lru_cache(maxsize=1024)
def exchange_keys(exchange: str, prefix: str = "") -> ExchangeKeys:
    """Keys of `exchange`, made once per process."""
    return ExchangeKeys(exchange, prefix)
