"""What becomes of the records that a dead node held."""

from __future__ import annotations

from time import time
from typing import Any

from ..store.client import Link
from ..store.phonon_keys import ModelsKeys, RecordKeys
from ..store.scripts import load

#: Records in one write or one reply.
SLICE = 100


def abandon(link: Link, node: str, dead_ms: bytes, prefix: str = "") -> int:
    """Let go of all records that `node` held, which was declared dead at `dead_ms`.

    May be begun again at any point, by anybody. Returns how many it has begun to complete since
    then: it lives, and they are left to it.
    """
    keys = ModelsKeys(prefix)
    held, later, cursor = keys.held(node), 0, b"0"
    while True:
        cursor, entries = link.command(b"SSCAN", held, cursor, b"COUNT", b"%d" % SLICE)
        for at in range(0, len(entries), SLICE):
            later += let_go_of(link, keys, held, entries[at : at + SLICE], dead_ms, prefix)
        if cursor == b"0":
            return later


def let_go_of(
    link: Link, keys: ModelsKeys, held: bytes, entries: list[bytes], dead_ms: bytes, prefix: str
) -> int:
    """The same for some of its entries."""
    calls: list[Any] = []
    looks: dict[bytes, list[Any]] = {}
    for entry in entries:
        owner, _, name = entry.partition(b" ")
        record = RecordKeys(name.decode("utf-8", "surrogateescape"), prefix=prefix)
        calls.append((load("model/abandon").prepare(record), (owner, dead_ms)))
        looks[entry] = [(b"SISMEMBER", record.holders, owner), (b"HGET", record.row, b"~closer")]
    left = dict(zip(entries, link.send(calls, repeat=True), strict=True))
    at = b"%d" % (time() * 1000)
    found = [entry.partition(b" ")[2] for entry, outcome in left.items() if outcome == 1]
    if found:
        scored = [word for name in found for word in (at, name)]
        link.command(b"ZADD", keys.orphans, *scored)
    done = [entry for entry, outcome in left.items() if outcome != 2]
    if done:
        link.command(b"SREM", held, *done)
        # Whoever came back meanwhile, and holds or completes it, has noted so before.
        seen = link.send([look for entry in done for look in looks[entry]], repeat=True)
        back = [
            entry
            for entry, holds, closer in zip(done, seen[::2], seen[1::2], strict=True)
            if holds or closer == entry.partition(b" ")[0]
        ]
        if back:
            link.command(b"SADD", held, *back)
    return len(left) - len(done)
