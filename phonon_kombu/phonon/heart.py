"""The heartbeat of this process: a thread and a connection of its own for each database.

It beats while the process holds claims, however long a task keeps the main thread. Between beats
it sleeps on its socket, so that it notices a lost connection at once and shows itself again. One
heart among all that share a database is elected, for a moment at a time, to judge the others and
to recover what the dead held (:mod:`.recovery`).
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import socket
import threading
from dataclasses import dataclass
from time import monotonic, time
from typing import Any

from redis.exceptions import RedisError

from ..errors import PhononError
from ..store.client import CONNECTION_ERRORS, Link
from ..store.keys import NodeKeys
from ..store.patience import SILENCE_SECONDS
from ..store.scripts import load, pack_command
from .recovery import LOOK_SECONDS, MAX_DELIVERIES, Judge, finish_recovery
from .upkeep import Upkeep

logger = logging.getLogger("phonon_kombu.phonon")

#: How long an election holds, milliseconds. It is renewed at every look. A dead heart's must end
#: before another begins to look, so it is short: two maintainers at once do no harm.
ELECTION_MS = 1500

#: Seconds until a lost connection is tried again.
RETRY_SECONDS = 0.5

#: What may go wrong with a beat and go away again.
PASSING_ERRORS: tuple[type[Exception], ...] = (
    *CONNECTION_ERRORS,
    RedisError,
    PhononError,
    ValueError,  # a socket that was closed under the selector
)


@dataclass(frozen=True)
class Settings:
    """How liveness is judged, in seconds, and how often a job may fail."""

    node_ttl: float = 60.0
    presence_grace: float = 2.5
    heartbeat_interval: float = 15.0
    max_deliveries: int | None = MAX_DELIVERIES


class Heart:
    """Beats for this process at one database.

    Arguments:
        node: the name of this process at that database.
        link: a connection of the heart's own.
        prefix: the global key prefix.
    """

    def __init__(
        self,
        node: str,
        link: Link,
        prefix: str,
        settings: Settings,
    ) -> None:
        self.node = node
        self.keys = NodeKeys(prefix)
        self.users = 0
        self._link = link
        self._settings = settings
        # Others may beat more slowly than we do, but not so slowly that one late beat is death.
        patience = max(settings.heartbeat_interval, settings.node_ttl / 2)
        self._judge = Judge(self.keys, settings.node_ttl, settings.presence_grace, patience)
        self._upkeep = Upkeep(self.keys, settings.max_deliveries, patience)
        self._presence = b""
        self._connection: Any = None
        #: Of the link, when we showed ourselves last.
        self._generation = -1
        #: Queues of which we may hold jobs, as their keys have them.
        self._held: set[bytes] = set()
        self._lock = threading.RLock()
        self._wakeup_r, self._wakeup_w = socket.socketpair()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._beat_at = 0.0
        #: Whether there are other nodes, when the thread starts.
        self._others = True
        self.elected = False

    def start(self) -> None:
        """Join, then beat. Raises what the first beat raises."""
        nodes, dying = self._beat(joining=True)
        self._others = nodes > 1 or dying > 0
        self._greet()
        self._thread = threading.Thread(target=self._run, name="phonon-heart", daemon=True)
        self._thread.start()

    def hold(self, queue: bytes, link: Link) -> None:
        """Note, before the first claim, that this node may hold jobs of `queue`, a
        :func:`~..store.keys.wire_name`.

        `link` is the caller's connection; ours may be waiting.
        """
        with self._lock:
            if queue not in self._held:
                link.command(b"SADD", self.keys.held(self.node), queue)
                self._held.add(queue)

    def stop(self, goodbye: bool) -> None:
        """Stop beating. With `goodbye` nothing is held any more and nobody needs to look."""
        self._ended.set()
        self._wakeup_w.send(b"x")
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=2)
        try:
            if goodbye:
                self._link.close()
                calls: list[Any] = [
                    (
                        load("node/part").prepare(self.keys, held=self.keys.held(self.node)),
                        (self.node.encode(), b"", b""),
                    )
                ]
                if self.elected:
                    calls.append((load("lock/release").prepare(self.keys), (self.node.encode(),)))
                self._link.send(calls)
        except PASSING_ERRORS as error:
            logger.debug("goodbye: %r", error)
        finally:
            self._link.close()
            self._wakeup_r.close()
            self._wakeup_w.close()

    def after_fork(self) -> None:
        """In a forked child: the parent's socket must not be kept open by us."""
        self._ended.set()
        self._link.after_fork()
        self._wakeup_r.close()
        self._wakeup_w.close()

    # The thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        others = self._others
        while not self._ended.is_set():
            try:
                if self._lost():
                    self._link.close()
                self._link.connection()
                if (
                    self._link.generation != self._generation
                    or monotonic() - self._beat_at >= self._settings.heartbeat_interval
                ):
                    nodes, dying = self._beat()
                    others = nodes > 1 or dying > 0
                if others:
                    self._sleep(self._maintain())
                else:
                    with self._lock:
                        held = sorted(self._held)
                    others = self._upkeep.step(self._link, held) or self._await_mail(
                        LOOK_SECONDS
                        if self._upkeep.under_way
                        else self._settings.heartbeat_interval
                    )
            except Exception as error:
                if self._ended.is_set():
                    return
                if isinstance(error, PASSING_ERRORS):
                    logger.debug("heartbeat: %r", error)
                else:
                    # Whatever it is: a heart that stands still gives the jobs of a living away.
                    logger.exception("heartbeat")
                self._link.close()
                self._connection = None
                others = True
                self._ended.wait(RETRY_SECONDS)

    def _sleep(self, seconds: float) -> bool:
        """Sleep until something happens on our socket, or it is time; whether something has."""
        sock = getattr(self._connection, "_sock", None)
        with selectors.DefaultSelector() as selector:
            selector.register(self._wakeup_r, selectors.EVENT_READ)
            if sock is not None:
                selector.register(sock, selectors.EVENT_READ)
            return any(key.fileobj is sock for key, _ in selector.select(seconds))

    def _await_mail(self, seconds: float) -> bool:
        """Alone there is nobody to look after: block until another node joins, or it is time.

        Returns whether one has joined.
        """
        self._connection.send_packed_command(
            (pack_command(b"BZPOPMIN", self.keys.mail(self.node), b"%g" % seconds),)
        )
        if self._sleep(seconds + SILENCE_SECONDS):
            joined = self._connection.read_response() is not None
            self._judge.heard(waited_seconds=seconds)
            return joined
        self._link.close()
        return True

    def _greet(self) -> None:
        """Tell the others that they are not alone."""
        nodes = self._link.command(b"ZRANGE", self.keys.beats, b"0", b"-1")
        calls: list[Any] = []
        for node in nodes:
            if node != self.node.encode():
                mail = self.keys.mail(node.decode())
                calls += [(b"ZADD", mail, b"0", b"w"), (b"PEXPIRE", mail, b"60000")]
        if calls:
            self._link.send(calls)

    def _lost(self) -> bool:
        """Whether the server has closed the connection."""
        sock = getattr(self._connection, "_sock", None)
        if sock is None:
            return self._connection is not None
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_READ)
            if not selector.select(0):
                return False
        try:
            return bool(sock.recv(1, socket.MSG_PEEK) == b"")
        except ValueError:  # TLS does not peek: the next beat tells
            return False
        except OSError:
            return True

    def _beat(self, joining: bool = False) -> tuple[int, int]:
        connection, generation = self._link.connection(), self._link.generation
        presence = about = b""
        if generation != self._generation:
            presence, about = self._introduce(), self._about()
        nodes, dying = self._say(presence, about, joining)
        if nodes == 0:
            nodes, dying = self._risen(presence or self._presence, about or self._about())
        self._connection, self._generation = connection, generation
        self._presence = presence or self._presence
        self._beat_at = monotonic()
        return nodes, dying

    def _say(self, presence: bytes, about: bytes, joining: bool) -> tuple[int, int]:
        nodes, dying, server_ms = self._link.run(
            load("node/beat").prepare(self.keys),
            (self.node.encode(), presence, about, b"1" if joining else b"0"),
        )
        self._judge.heard(server_ms)
        return int(nodes), int(dying)

    def _risen(self, presence: bytes, about: bytes) -> tuple[int, int]:
        """We were declared dead, frozen or cut off as we were, and come back.

        What we held then is being given away, or is already. We join again: what we have claimed
        since, and what is not given away yet, stays ours. Returns what a beat does.
        """
        logger.warning("This process was taken for dead; its claims have been given to others")
        self._note_held()
        counted = self._say(presence, about, True)
        # Whoever gave our claims away may have forgotten us just before we joined.
        self._note_held()
        self._greet()
        return counted

    def _note_held(self) -> None:
        with self._lock:
            queues = list(self._held)
        if queues:
            self._link.command(b"SADD", self.keys.held(self.node), *queues)

    def _introduce(self) -> bytes:
        """Which connection shows that we live: ``<run id of the server>:<client id>``."""
        client, info = self._link.send(
            ((b"CLIENT", b"ID"), (b"INFO", b"server")), raise_first=False
        )
        if isinstance(client, Exception) or isinstance(info, Exception):
            return b""
        text = info.decode() if isinstance(info, bytes) else str(info)
        run_id = next(
            (line.partition(":")[2] for line in text.splitlines() if line.startswith("run_id:")),
            "",
        )
        return f"{run_id}:{int(client)}".encode()

    def _about(self) -> bytes:
        about = {
            "host": socket.gethostname(), "pid": os.getpid(), "since": round(time(), 3),
            "node_ttl": self._settings.node_ttl,
        }  # fmt: skip
        return json.dumps(about).encode()

    # Looking after the others --------------------------------------------------------------

    def _maintain(self) -> float:
        """Look after the others if we are elected. Returns the seconds until the next look."""
        left_ms = self._link.run(
            load("node/elect").prepare(self.keys), (self.node.encode(), b"%d" % ELECTION_MS)
        )
        self._judge.heard()
        self.elected = left_ms == 0
        if not self.elected:
            # Not before the office ends: it is renewed, or the elected one is dead.
            return float(left_ms) / 1000 + 0.01
        for node, dead_ms in self._judge.verdicts(self._link, self._presence).items():
            if node == self.node:
                continue
            given = self._give_back(node, dead_ms)
            # A process that held nothing and was killed is no news: `celery inspect` by a script.
            level = logging.WARNING if given else logging.INFO
            logger.log(level, "Node %s is dead: gave back %d job(s) that it held", node, given)
        self._upkeep.step(self._link)
        return LOOK_SECONDS

    def _give_back(self, node: str, dead_ms: bytes) -> int:
        settings = self._settings
        return finish_recovery(
            self._link,
            node,
            dead_ms,
            self.keys,
            settings.max_deliveries,
            settings.node_ttl,
        )
