"""What closed channels of this process could not tell the server.

A channel may be closed while the server is away: Celery does so at every lost connection. Its
acknowledgements are still to be sent and its claims to be given back, and nobody else does it,
since the process lives. It is noted here and settled by the next channel that reaches the same
database.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import NamedTuple

from ..phonon import hearts
from ..phonon.heart import Heart
from ..phonon.recovery import recover
from ..store.client import CONNECTION_ERRORS, Link
from ..store.keys import queue_keys
from ..store.scripts import load

logger = logging.getLogger("phonon_kombu.transport")


class Orphan(NamedTuple):
    """One closed channel's debts."""

    owner: bytes
    queues: frozenset[str]
    finished: list[tuple[str, list[bytes]]]
    prefix: str
    hash_tags: bool
    #: It beats on until the debts are settled: the claims are still this process's.
    beating: Heart | None = None


_lock = threading.RLock()  # the handler of a signal may come while it is held
_orphans: dict[tuple[object, ...], list[Orphan]] = {}

#: Servers at which a channel was closed that was to leave its claims as they are.
_left: set[tuple[object, ...]] = set()


def _forget() -> None:
    # They are the parent's: it settles them.
    global _lock
    _lock = threading.RLock()
    _orphans.clear()
    _left.clear()


os.register_at_fork(after_in_child=_forget)


def note(server: tuple[object, ...], orphan: Orphan) -> None:
    """Remember `orphan` until :func:`settle` reaches its server."""
    with _lock:
        _orphans.setdefault(server, []).append(orphan)


def leave_claimed(server: tuple[object, ...]) -> None:
    """Claims were left at `server` that nobody in this process is going to give back: when it goes,
    it must not say goodbye, so that the living do."""
    _left.add(server)


def settle(server: tuple[object, ...], link: Link) -> None:
    """Send the acknowledgements and give the claims back that are noted for `server`."""
    if not _orphans:
        return
    with _lock:
        mine = _orphans.pop(server, [])
    while mine:
        orphan = mine[-1]
        try:
            for queue, ids in orphan.finished:
                keys = queue_keys(queue, orphan.prefix, orphan.hash_tags)
                link.run(load("job/finish").prepare(keys), (orphan.owner, *ids))
            given = sum(
                recover(
                    link,
                    queue_keys(queue, orphan.prefix, orphan.hash_tags),
                    orphan.owner,
                    b"restore",
                )
                for queue in orphan.queues
            )
        except CONNECTION_ERRORS:
            with _lock:
                _orphans.setdefault(server, []).extend(mine)
            raise
        mine.pop()
        if orphan.beating is not None:
            hearts.leave(server, orphan.beating, goodbye=not (mine or pending(server)))
        if given:
            logger.info("Gave back %d message(s) of a connection that was lost", given)


def let_go(server: tuple[object, ...], beating: Heart) -> None:
    """Leave the heart of a closed channel; it says goodbye unless something is noted here."""
    hearts.leave(server, beating, goodbye=not pending(server))


def pending(server: tuple[object, ...]) -> bool:
    """Whether anything is noted for `server`, or left there."""
    return bool(_orphans.get(server)) or server in _left
