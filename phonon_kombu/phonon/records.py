"""What happens to a record in Redis: held, flushed, left, completed; and given back by the living.

A record is held by owners, one for each registry. The last one to leave becomes its *closer*: it
completes the record and then deletes it, and until it has nothing is folded into it. What a node
holds stands in a set of its own before it holds it, so that the living can find it when it dies:
then they let go in its place, and a record that nobody holds any more becomes an *orphan*, which a
registry that knows its model adopts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..store.phonon_keys import ModelsKeys, RecordKeys
from ..store.scripts import load
from .connections import Host
from .fields import Layout
from .orphans import SLICE, let_go_of


@dataclass
class Delta:
    """What is folded into a record in one step, and cannot be folded twice: it has a number."""

    number: int
    delta: list[bytes]
    #: What is folded instead by the last one out; only where the record is left.
    last: list[bytes] | None = None
    #: Ids of the messages that the values came with, and of some that will not come again.
    messages: list[bytes] = field(default_factory=list)
    acknowledged: list[bytes] = field(default_factory=list)
    #: Whether the last message is the tail's, whose values the last one out does not fold.
    tail: bool = False
    #: Whether anything was registered that had not been folded before.
    fresh: bool = True

    def args(self, owner: bytes, id: bytes) -> tuple[bytes, ...]:
        """The arguments of the script that folds it."""
        told = (*self.messages, *self.acknowledged)
        counts = (b"%d" % len(self.messages), b"%d" % len(self.acknowledged))
        head = (owner, b"%d" % self.number, id, *counts)
        if self.last is None:
            return (*head, *told, *self.delta)
        marks = (b"t" if self.tail else b"") + (b"" if self.fresh else b"n")
        return (*head, b"%d" % len(self.delta), marks, *told, *self.delta, *self.last)


class Records:
    """The records that one owner holds on one host.

    :attr:`lock` is taken by whoever holds or leaves, so that the two never cross.
    """

    def __init__(self, host: Host, owner: bytes) -> None:
        self.host = host
        self.owner = owner
        self.keys = ModelsKeys(host.prefix)
        self.lock = threading.RLock()
        self._look_at = 0
        #: Entries of records that we hold, perhaps: the reply was lost.
        self._doubtful: set[bytes] = set()
        self._held = self.keys.held(owner.partition(b".")[0].decode())

    def keys_of(self, layout: Layout, name: str) -> RecordKeys:
        """The keys of a record."""
        return layout.keys(name, self.host.prefix)

    def hold(self, keys: RecordKeys) -> None:
        """Work on a record from now on. Noted before it is held: a death in between is seen."""
        self.host.live()
        entry = self._entry(keys)
        self._doubtful.add(entry)
        self.host.link.send(
            (
                (b"SADD", self._held, entry),
                (load("model/hold").prepare(keys), (self.owner,)),
            ),
            repeat=True,
        )
        self._doubtful.discard(entry)

    def undo(self, is_wanted: Callable[[str], bool]) -> None:
        """Let go of what we hold without having heard of it, unless it is wanted by now: else
        nobody would be the last one out while we live."""
        with self.lock:
            for entry in list(self._doubtful):
                if not is_wanted(entry.partition(b" ")[2].decode("utf-8", "surrogateescape")):
                    link, prefix = self.host.link, self.host.prefix
                    let_go_of(link, self.keys, self._held, [entry], b"0", prefix)
                    self._doubtful.discard(entry)

    def fold(self, todo: Sequence[tuple[RecordKeys, bytes, Delta]]) -> list[Any]:
        """Flush or leave records: (keys, id, delta). Returns for each what its script returns
        (flush: 0 or 1; leave: 1 if it is ours to complete, 2 if it was; a list of messages that
        have been folded before: nothing was done), or the error that it was refused by.
        """
        calls: list[Any] = []
        for keys, id, delta in todo:
            script = load("model/flush" if delta.last is None else "model/leave")
            calls.append((script.prepare(keys), delta.args(self.owner, id)))
        # May be repeated on a new connection: each delta has its number.
        return self.host.link.send(calls, repeat=True, raise_first=False) if calls else []

    def forget(self, records: Sequence[RecordKeys]) -> None:
        """What was left, or completed, is not ours any more."""
        if records:
            entries = [self._entry(keys) for keys in records]
            self.host.link.command(b"SREM", self._held, *entries)

    def close(self, keys: RecordKeys) -> bool:
        """A record has been completed: delete it; whether it was still ours to complete."""
        link = self.host.link
        closed = link.run(load("model/close").prepare(keys), (self.owner,))
        if closed:
            # Else it may be an orphan: we were taken for dead, and nobody has adopted it yet.
            link.command(b"ZREM", self.keys.orphans, keys.name.encode("utf-8", "surrogateescape"))
        return bool(closed)

    def orphans(self) -> list[str]:
        """Some records whose holders have all died, the next ones at each call."""
        first, last = self._look_at, self._look_at + SLICE - 1
        found = self.host.link.command(b"ZRANGE", self.keys.orphans, b"%d" % first, b"%d" % last)
        self._look_at = last + 1 if len(found) == SLICE else 0
        return [name.decode("utf-8", "surrogateescape") for name in found]

    def adopt(self, keys: RecordKeys) -> bytes | None:
        """Become the closer of an orphan; its id (JSON), or None if it is none (any more)."""
        name = keys.name.encode("utf-8", "surrogateescape")
        link = self.host.link
        link.command(b"SADD", self._held, self._entry(keys))
        id: bytes | None = link.run(load("model/adopt").prepare(keys), (self.owner,))
        if id is None:
            # Somebody holds it, or completes it: if that one dies too, it is found again.
            link.command(b"ZREM", self.keys.orphans, name)
        return id

    def _entry(self, keys: RecordKeys) -> bytes:
        return self.owner + b" " + keys.name.encode("utf-8", "surrogateescape")
