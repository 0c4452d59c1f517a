"""The living recover what the dead held."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from time import monotonic
from typing import Any

from ..errors import ScriptRefused
from ..store.client import Link
from ..store.keys import NodeKeys, QueueKeys, keys_on_wire
from ..store.scripts import load
from .orphans import abandon

logger = logging.getLogger("phonon_kombu.phonon")

#: Seconds between two looks of the elected heart at the others.
LOOK_SECONDS = 0.7

#: Seconds without an answer, or by which the server's clock has jumped, after which old beats tell
#: nothing. Whoever looks hears from the server more often.
STANDSTILL_SECONDS = 3.0

#: How often a job may fail before it is stalled, where neither its queue nor an option says.
MAX_DELIVERIES = 20


def limit(max_deliveries: int | None) -> bytes:
    """`max_deliveries` as the scripts take it; None is no limit."""
    return b"%d" % (max_deliveries or 0)


def recover(
    link: Link,
    keys: QueueKeys,
    owner: bytes,
    mode: bytes,
    keep: Iterable[bytes] = (),
    max_deliveries: int | None = None,
    until_ms: bytes = b"",
) -> int:
    """Give back what `owner` holds in a queue, in slices, but for the ids in `keep`.

    Arguments:
        owner: an owner's name, or with a full stop at its end the beginning of names.
        mode: ``cancel`` counts a failed delivery, ``restore`` only marks it.
        max_deliveries: with ``cancel``, a job that has failed so often is stalled, where its
            queue does not say otherwise.
        until_ms: only what was claimed until then (:func:`clock_ms`), however late the network is.

    Returns how many jobs were given back.
    """
    return _recover(link, keys, (owner, mode, limit(max_deliveries), until_ms), keep)[0]


def clock_ms(link: Link) -> bytes:
    """The server's clock, by which claims are noted."""
    seconds, microseconds = link.command(b"TIME")
    return b"%d" % (int(seconds) * 1000 + int(microseconds) // 1000)


def _recover(
    link: Link, keys: QueueKeys, args: tuple[bytes, bytes, bytes, bytes], keep: Iterable[bytes]
) -> tuple[int, int]:
    """How many jobs were given back, and how many were claimed too late for that."""
    prepared = load("job/recover").prepare(keys)
    owner, *rest = args
    cursor, given, later, kept = b"0", 0, 0, tuple(keep)
    while True:
        cursor, count, since_then = link.run(prepared, (owner, cursor, *rest, *kept))
        given += int(count)
        later += int(since_then)
        if cursor == b"0":
            return given, later


def finish_recovery(
    link: Link,
    node: str,
    dead_ms: bytes,
    keys: NodeKeys,
    max_deliveries: int | None,
    again_seconds: float = 60.0,
) -> int:
    """Give back all that the dead `node` held, then forget it.

    May be begun again at any point, by anybody: a maintainer that dies in the middle leaves the
    node among the dying. What the node claimed, or began to complete, after it was declared dead
    (at `dead_ms`, by the server's clock) is left alone: it lives, and is about to join again. If it
    has not done so after `again_seconds`, that is given back too.
    """
    held = keys.held(node)
    queues = link.command(b"SMEMBERS", held)
    args = (f"{node}.".encode(), b"cancel", limit(max_deliveries), dead_ms)
    given = later = 0
    for queue in queues:
        count, since_then = _recover(link, keys_on_wire(queue, keys.prefix), args, ())
        given += count
        later += since_then
    try:
        later += abandon(link, node, dead_ms, keys.prefix)
    except ScriptRefused as error:
        # Our user may not touch records of models: those who may look after them.
        logger.debug("recovering %s: %s", node, error)
    again = b"%d" % (again_seconds * 1000) if later else b""
    link.run(load("node/part").prepare(keys, held=held), (node.encode(), dead_ms, again))
    return given


class Judge:
    """Decides who is dead. Two signs of life count, and either is enough to live on:

    * the beat, not older than `node_ttl_seconds`;
    * presence: the connection over which a node beats is still open at the server. A server closes
      it the moment the process dies. A living node has `presence_grace_seconds` to connect again.

    Where CLIENT LIST is refused, or does not show our own connection (a proxy), beats alone count.

    While the server stood still, or we did, nobody could beat; after its clock has jumped all beats
    look old. Then everybody has `patience_seconds` to beat again, and so has who came before us.
    Time in which nobody could do anything does not count; all else does, so that where a server
    stands still again and again the dead are found too.
    """

    def __init__(
        self,
        keys: NodeKeys,
        node_ttl_seconds: float,
        presence_grace_seconds: float,
        patience_seconds: float,
    ) -> None:
        self._keys = keys
        self._ttl_ms = b"%d" % (node_ttl_seconds * 1000)
        self._grace = presence_grace_seconds
        self._patience = patience_seconds
        self._heard_at: float | None = None
        #: Seconds of :meth:`_clock` that did not count.
        self._stood_still = 0.0
        self._patient_until = float("-inf")
        #: Nodes whose beat is too old -> when they are dead for that (:meth:`_clock`).
        self._overdue: dict[bytes, float] = {}
        #: By how much the server's clock was ahead of ours, seconds.
        self._ahead: float | None = None
        self._missing: dict[bytes, tuple[bytes, float]] = {}
        self._run_id: bytes | None = None

    def heard(self, server_ms: int | None = None, waited_seconds: float = 0.0) -> None:
        """The server has answered: with the time, or after it was asked to wait for so long."""
        now = monotonic()
        if self._heard_at is None:
            self._be_patient()
        else:
            silence = now - self._heard_at - waited_seconds
            if silence > STANDSTILL_SECONDS:
                self._stood_still += silence - LOOK_SECONDS
                self._be_patient()
        self._heard_at = now
        if server_ms is not None:
            ahead = server_ms / 1000 - now
            if self._ahead is not None and abs(ahead - self._ahead) > STANDSTILL_SECONDS:
                self._be_patient()
            self._ahead = ahead

    def _clock(self) -> float:
        """Seconds, without those in which all stood still."""
        return monotonic() - self._stood_still

    def _be_patient(self) -> None:
        self._patient_until = self._clock() + self._patience

    def verdicts(self, link: Link, mine: bytes) -> dict[str, bytes]:
        """Nodes that are dead now -> since when, ms of the server's clock.

        `mine` is our own presence, ``<run id of the server>:<client id>``. Includes nodes whose
        recovery somebody has begun and not finished.
        """
        overdue, presence, dying, server_ms = link.run(
            load("node/census").prepare(self._keys), (self._ttl_ms,)
        )
        self.heard(server_ms)
        now = self._clock()
        # Whoever was given time once is not given more by the next standstill.
        self._overdue = {n: self._overdue.get(n, self._patient_until) for n in overdue}
        overdue = [node for node, dead_at in self._overdue.items() if dead_at <= now]
        shown = dict(zip(presence[::2], presence[1::2], strict=True))
        dead = dict(zip(dying[::2], dying[1::2], strict=True))
        judged = [(node, b"") for node in overdue]
        judged += [(node, shown[node]) for node in self._gone(link, shown, mine)]
        for node, showing in judged:
            dead_ms = self._bury(link, node, showing)
            if dead_ms:
                dead[node] = b"%d" % dead_ms
        return {node.decode(): dead_ms for node, dead_ms in dead.items()}

    def _bury(self, link: Link, node: bytes, presence: bytes) -> int:
        dead_ms = link.run(load("node/bury").prepare(self._keys), (node, presence, self._ttl_ms))
        self._missing.pop(node, None)
        return int(dead_ms)

    def _gone(self, link: Link, shown: dict[bytes, bytes], mine: bytes) -> list[bytes]:
        """Nodes whose connection has been gone for longer than the grace."""
        run_id, _, own = mine.partition(b":")
        now = self._clock()
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
    # Redis begins a line with the id, fakeredis does not.
    return {word[3:] for word in text.split() if word.startswith(b"id=")}
