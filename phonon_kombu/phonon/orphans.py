"""What becomes of the records that a dead node held."""

from __future__ import annotations

from time import time

from ..store.client import Link
from ..store.phonon_keys import ModelsKeys, RecordKeys
from ..store.scripts import load

#: Records in one write or one reply.
SLICE = 100


def abandon(link: Link, node: str, prefix: str = "") -> int:
    """Let go of all records that the dead `node` held; how many have become orphans.

    May be begun again at any point, by anybody.
    """
    keys = ModelsKeys(prefix)
    held, orphans, cursor = keys.held(node), 0, b"0"
    while True:
        cursor, entries = link.command(b"SSCAN", held, cursor, b"COUNT", b"%d" % SLICE)
        for at in range(0, len(entries), SLICE):
            orphans += _abandon(link, keys, held, entries[at : at + SLICE], prefix)
        if cursor == b"0":
            return orphans


def _abandon(link: Link, keys: ModelsKeys, held: bytes, entries: list[bytes], prefix: str) -> int:
    calls = []
    for entry in entries:
        owner, _, name = entry.partition(b" ")
        record = RecordKeys(name.decode("utf-8", "surrogateescape"), prefix=prefix)
        calls.append((load("model/abandon").prepare(record), (owner,)))
    left = link.send(calls, repeat=True)
    at = b"%d" % (time() * 1000)
    found = [e.partition(b" ")[2] for e, orphan in zip(entries, left, strict=True) if orphan]
    if found:
        scored = [word for name in found for word in (at, name)]
        link.command(b"ZADD", keys.orphans, *scored)
    link.command(b"SREM", held, *entries)
    return len(found)
