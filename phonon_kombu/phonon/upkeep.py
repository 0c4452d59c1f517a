"""Housekeeping of the queues that somebody consumes: what no claim does.

The elected heart does it for all nodes of its database. A claim promotes what is due and drops what
has expired where it comes across it, so this is for what no claim reaches: claims older than their
queue's `claim_timeout`, and expired jobs deep in a queue.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic

from ..store.client import Link
from ..store.keys import NodeKeys, QueueKeys
from ..store.scripts import load
from .recovery import limit

logger = logging.getLogger("phonon_kombu.phonon")

#: Seconds between two rounds over all queues.
ROUND_SECONDS = 30.0

#: Jobs of each kind in one slice, and queues looked after in one go.
SLICE = 100
QUEUES_AT_ONCE = 100


class Upkeep:
    """Goes round the queues, in bounded steps.

    Arguments:
        keys_of: queue name -> its keys.
        max_deliveries: how often a job may fail, where its queue does not say.
    """

    def __init__(
        self, keys: NodeKeys, keys_of: Callable[[str], QueueKeys], max_deliveries: int | None
    ) -> None:
        self._keys = keys
        self._keys_of = keys_of
        self._args = (b"%d" % SLICE, limit(max_deliveries))
        self._queues: deque[str] = deque()
        self._next_at = 0.0

    @property
    def under_way(self) -> bool:
        """Whether a round was begun and is not at its end."""
        return bool(self._queues)

    def step(self, link: Link, queues: Iterable[str] | None = None) -> None:
        """Do the next step if it is time for one.

        `queues` are those to look after; None: of all nodes.
        """
        if not self._queues:
            now = monotonic()
            if now < self._next_at:
                return
            self._next_at = now + ROUND_SECONDS
            self._queues.extend(self._all(link) if queues is None else queues)
        part = [self._queues.popleft() for _ in range(min(len(self._queues), QUEUES_AT_ONCE))]
        if not part:
            return
        script = load("job/maintain")
        calls = [(script.prepare(self._keys_of(queue)), self._args) for queue in part]
        for queue, reply in zip(part, link.send(calls, raise_first=False), strict=True):
            if isinstance(reply, Exception):
                logger.warning("Housekeeping of queue %r: %s", queue, reply)
                continue
            if reply[2]:
                logger.warning(
                    "Took back %d job(s) of queue %r, claimed longer ago than its claim_timeout",
                    reply[2],
                    queue,
                )
            if max(reply[:3]) >= SLICE:
                self._queues.append(queue)

    def _all(self, link: Link) -> list[str]:
        nodes = link.command(b"ZRANGE", self._keys.beats, b"0", b"-1")
        if not nodes:
            return []
        held = [self._keys.held(node.decode()) for node in nodes]
        return sorted(queue.decode() for queue in link.command(b"SUNION", *held))
