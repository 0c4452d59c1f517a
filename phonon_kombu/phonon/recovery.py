"""The living recover what the dead held."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from ..store.client import Link
from ..store.keys import NodeKeys, QueueKeys
from ..store.scripts import load
from .orphans import abandon

logger = logging.getLogger("phonon_kombu.phonon")

KeysOf = Callable[[str], QueueKeys]


def recover(
    link: Link, keys: QueueKeys, owner: bytes, mode: bytes, keep: Iterable[bytes] = ()
) -> int:
    """Give back what `owner` holds in a queue, in slices, but for the ids in `keep`.

    Arguments:
        owner: an owner's name, or with a full stop at its end the beginning of names.
        mode: ``cancel`` counts a failed delivery, ``restore`` only marks it.

    Returns how many jobs were given back.
    """
    prepared = load("job/recover").prepare(keys)
    cursor, given, kept = b"0", 0, tuple(keep)
    while True:
        cursor, count = link.run(prepared, (owner, cursor, mode, *kept))
        given += int(count)
        if cursor == b"0":
            return given


def finish_recovery(link: Link, node: str, keys: NodeKeys, keys_of: KeysOf) -> int:
    """Give back all that the dead `node` held, then forget it.

    May be begun again at any point, by anybody: a maintainer that dies in the middle leaves the
    node among the dying.
    """
    held = keys.held(node)
    queues = [queue.decode() for queue in link.command(b"SMEMBERS", held)]
    given = 0
    for queue in queues:
        given += recover(link, keys_of(queue), f"{node}.".encode(), b"cancel")
    abandon(link, node, keys.prefix)
    link.run(load("node/part").prepare(keys, held=held), (node.encode(),))
    return given


class Judge:
    """Decides who is dead. Two signs of life count, and either is enough to live on:

    * the beat, not older than `node_ttl_seconds`;
    * presence: the connection over which a node beats is still open at the server. A server closes
      it the moment the process dies. A living node has `presence_grace_seconds` to connect again.

    Where CLIENT LIST is refused, or does not show our own connection (a proxy), beats alone count.
    """

    def __init__(
        self, keys: NodeKeys, node_ttl_seconds: float, presence_grace_seconds: float
    ) -> None:
        self._keys = keys
        self._ttl_ms = b"%d" % (node_ttl_seconds * 1000)
        self._grace = presence_grace_seconds
        self._missing: dict[bytes, tuple[bytes, float]] = {}
        self._run_id: bytes | None = None

    def verdicts(self, link: Link, mine: bytes) -> list[str]:
        """Nodes that are dead now and of which nobody may give a job back but us.

        `mine` is our own presence, ``<run id of the server>:<client id>``. Includes nodes whose
        recovery somebody has begun and not finished.
        """
        overdue, presence, dying = link.run(
            load("node/census").prepare(self._keys), (self._ttl_ms,)
        )
        shown = dict(zip(presence[::2], presence[1::2], strict=True))
        dead = {node for node in overdue if self._bury(link, node, b"")}
        for node in self._gone(link, shown, mine):
            if node not in dead and self._bury(link, node, shown[node]):
                dead.add(node)
        return [node.decode() for node in {*dead, *dying}]

    def _bury(self, link: Link, node: bytes, presence: bytes) -> bool:
        buried = link.run(load("node/bury").prepare(self._keys), (node, presence, self._ttl_ms))
        self._missing.pop(node, None)
        return bool(buried)

    def _gone(self, link: Link, shown: dict[bytes, bytes], mine: bytes) -> list[bytes]:
        """Nodes whose connection has been gone for longer than the grace."""
        run_id, _, own = mine.partition(b":")
        now = monotonic()
        if run_id != self._run_id:
            # The server is another, or was restarted: everybody has to connect again.
            self._run_id = run_id
            self._missing.clear()
        ids = {value.partition(b":")[2] for value in shown.values() if value.startswith(run_id)}
        open_ids = open_clients(link, {*ids, own}) if own else None
        if open_ids is None or own not in open_ids:
            return []
        gone = []
        for node, value in shown.items():
            if value.startswith(run_id + b":") and value.partition(b":")[2] in open_ids:
                self._missing.pop(node, None)
                continue
            seen, since = self._missing.get(node, (b"", now))
            if seen != value:
                # Missing since now, or connected anew and missing again.
                seen, since = value, now
            self._missing[node] = (seen, since)
            if now - since >= self._grace:
                gone.append(node)
        for node in [n for n in self._missing if n not in shown]:
            del self._missing[node]
        return gone


def open_clients(link: Link, ids: Iterable[bytes]) -> set[bytes] | None:
    """Which of these client ids are connected; None where the server does not tell."""
    reply: Any = link.send([(b"CLIENT", b"LIST", b"ID", *ids)], raise_first=False)[0]
    if isinstance(reply, Exception):
        logger.debug("CLIENT LIST: %r", reply)
        return None
    text = reply if isinstance(reply, bytes) else str(reply).encode()
    return {
        line.split(b" ", 1)[0].partition(b"=")[2]
        for line in text.splitlines()
        if line.startswith(b"id=")
    }
