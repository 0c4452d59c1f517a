"""Housekeeping of the queues that somebody consumes: what no claim does.

The elected heart does it for all nodes of its database. A claim promotes what is due and drops what
has expired where it comes across it, so this is for what no claim reaches: claims older than their
queue's `claim_timeout`, expired jobs deep in a queue, and claims of owners that nobody knows: of a
process that was taken for dead, claimed again, and was killed before it had joined again.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict, deque
from collections.abc import Iterable
from time import monotonic
from typing import Any

from ..store.client import Link
from ..store.keys import NodeKeys, keys_on_wire, shown_name
from ..store.scripts import load
from .recovery import limit

logger = logging.getLogger("phonon_kombu.phonon")

#: Seconds between two rounds over all queues.
ROUND_SECONDS = 30.0

#: Jobs of each kind in one slice, and queues looked after in one go.
SLICE = 100
QUEUES_AT_ONCE = 100

#: Owners of claims looked at in one step, of each queue.
OWNERS = 500

#: An owner's name; what stands in its place otherwise is a mark, or a stranger's.
_OWNER = re.compile(rb"([0-9a-f]{16})\.\d+")


class Upkeep:
    """Goes round the queues, in bounded steps.

    Arguments:
        max_deliveries: how often a job may fail, where its queue does not say.
        grace_seconds: how long a node that nobody knows has to join again, if it lives.
    """

    def __init__(self, keys: NodeKeys, max_deliveries: int | None, grace_seconds: float) -> None:
        self._grace_ms = b"%d" % (grace_seconds * 1000)
        self._keys = keys
        self._args = (b"%d" % SLICE, limit(max_deliveries))
        #: Queues, as their keys have them, and how far we have looked at the owners there.
        self._queues: deque[tuple[bytes, bytes]] = deque()
        self._next_at = 0.0

    @property
    def under_way(self) -> bool:
        """Whether a round was begun and is not at its end."""
        return bool(self._queues)

    def step(self, link: Link, queues: Iterable[bytes] | None = None) -> bool:
        """Do the next step if it is time for one.

        `queues` are those to look after, as their keys have them; None: of all nodes. Returns
        whether a node was found whose claims are to be given back.
        """
        if not self._queues:
            now = monotonic()
            if now < self._next_at:
                return False
            self._next_at = now + ROUND_SECONDS
            found = self._all(link) if queues is None else queues
            self._queues.extend((queue, b"0") for queue in found)
        part = [self._queues.popleft() for _ in range(min(len(self._queues), QUEUES_AT_ONCE))]
        if not part:
            return False
        script = load("job/maintain")
        calls: list[Any] = []
        for queue, cursor in part:
            keys = keys_on_wire(queue, self._keys.prefix)
            calls.append((script.prepare(keys), self._args))
            calls.append((b"HSCAN", keys.owners, cursor, b"COUNT", b"%d" % OWNERS))
        replies = iter(link.send(calls, raise_first=False))
        holders: defaultdict[bytes, set[bytes]] = defaultdict(set)
        for (queue, _), maintained, scanned in zip(part, replies, replies, strict=True):
            refused = next((r for r in (maintained, scanned) if isinstance(r, Exception)), None)
            if refused is not None:
                logger.warning("Housekeeping of queue %r: %s", shown_name(queue), refused)
                continue
            if maintained[2]:
                logger.warning(
                    "Took back %d job(s) of queue %r, claimed longer ago than its claim_timeout",
                    maintained[2],
                    shown_name(queue),
                )
            cursor, owners = scanned
            for owner in set(owners[1::2]):
                match = _OWNER.fullmatch(owner)
                if match:
                    holders[match[1]].add(queue)
            if max(maintained[:3]) >= SLICE or cursor != b"0":
                self._queues.append((queue, cursor))
        return self._recall(link, holders)

    def _recall(self, link: Link, holders: dict[bytes, set[bytes]]) -> bool:
        """Declare those dead that hold claims and that nobody knows."""
        if not holders:
            return False
        nodes, known, script = list(holders), self._keys, load("node/recall")
        beats, dying = link.send([(b"ZMSCORE", k, *nodes) for k in (known.beats, known.dying)])
        recalled = False
        for node, beat, dead in zip(nodes, beats, dying, strict=True):
            if beat is None and dead is None:
                prepared = script.prepare(known, held=known.held(node.decode()))
                if link.run(prepared, (node, self._grace_ms, *holders[node])):
                    # It may have ended properly since we saw its claims; then it holds nothing.
                    logger.info("Node %s is unknown: it is dead if it holds jobs", node.decode())
                    recalled = True
        return recalled

    def _all(self, link: Link) -> list[bytes]:
        nodes = link.command(b"ZRANGE", self._keys.beats, b"0", b"-1")
        if not nodes:
            return []
        held = [self._keys.held(node.decode()) for node in nodes]
        return sorted(link.command(b"SUNION", *held))
