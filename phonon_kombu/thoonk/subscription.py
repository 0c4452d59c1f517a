"""Listening for notices, on a connection of its own that is made anew when it breaks."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from queue import Empty
from time import monotonic
from typing import Any

import redis

from ..store.client import CONNECTION_ERRORS
from ..store.patience import can_read
from ..store.refusals import translate
from ..store.scripts import pack_command
from .base import seconds
from .notices import GAP, KINDS, Dialogue, Notice, Topic, topic_of
from .streams import Stream

#: Seconds of silence after which the server is asked whether it is there.
PING_SECONDS = 15.0

#: Seconds in which it must answer; also in which it must confirm a subscription.
PATIENCE_SECONDS = 10.0

#: What is said when it does not.
UNCONFIRMED = "the server has not confirmed a subscription in time"

#: Seconds between two tries to connect again: the first pause, and the longest.
PAUSES_SECONDS = (0.05, 2.0)


def topics_of(kinds: Sequence[str], feed: str | None) -> list[Topic]:
    """What a caller of ``listen`` wants: some kinds, or all."""
    wanted = [topic_of(kind, feed) for kind in kinds or KINDS]
    return [topic for topic in wanted if topic.kind != GAP]


class Listening:
    """What both kinds of subscription know about their connection. No input or output here."""

    def __init__(self, session: Any, topics: Iterable[Topic]) -> None:
        self._session = session
        self._dialogue = Dialogue(session, topics)
        self._pool = session.listening_pool(PATIENCE_SECONDS)
        self._connection: Any = None
        self._heard_at = 0.0
        self._pinged = False
        self._lost_at: float | None = None
        self._pause_seconds = PAUSES_SECONDS[0]
        self._closed = False
        #: Notices that came between the confirmations.
        self._early: deque[Notice] = deque()

    def _opened(self) -> None:
        self._heard_at = monotonic()
        self._pinged = False
        self._pause_seconds = PAUSES_SECONDS[0]

    def _understand(self, reply: Any) -> Notice | None:
        self._heard_at = monotonic()
        self._pinged = False
        return self._dialogue.hear(reply)

    def _gap(self) -> Notice | None:
        """The notice that is due on a new connection, if one was lost before."""
        if self._lost_at is None:
            return None
        lost_at, self._lost_at = self._lost_at, None
        return Notice(GAP, seconds=monotonic() - lost_at)

    def _lost(self) -> None:
        if self._lost_at is None:
            self._lost_at = monotonic()

    def _pause(self) -> float:
        pause = self._pause_seconds
        self._pause_seconds = min(2 * pause, PAUSES_SECONDS[1])
        return pause

    def _silence(self) -> tuple[bool, float]:
        """Whether to send a PING now, and how long the server may stay silent yet.

        Raises redis-py's ``TimeoutError`` if that was too long.
        """
        left = self._heard_at + PING_SECONDS - monotonic()
        if left > 0:
            return False, left
        if left + PATIENCE_SECONDS < 0:
            raise redis.TimeoutError("the server has fallen silent")
        return not self._pinged, left + PATIENCE_SECONDS


class Subscription(Listening, Stream[Notice]):
    """Notices as they come: an iterator, a context manager. Made by :meth:`.Thoonk.listen`.

    It has subscribed when it is made: what happens from then on is noticed. When the connection
    breaks it connects again by itself, and then a notice of the kind ``gap`` tells for how long
    nothing was heard. To be read by one thread.
    """

    def __init__(self, session: Any, topics: Iterable[Topic]) -> None:
        super().__init__(session, topics)
        self._lock = threading.RLock()
        self._confirmed = threading.Condition(self._lock)
        self._closing = threading.Event()
        self._listening = False
        self._connect()

    def get(self, timeout: float | None = None) -> Notice:
        """The next notice, waiting for it.

        Arguments:
            timeout: seconds to wait at the most; None (default) waits for ever.

        Raises :exc:`queue.Empty` if none came in time, or the subscription is closed.
        """
        until = None if timeout is None else monotonic() + seconds("timeout", timeout)
        while True:
            left = PING_SECONDS if until is None else max(until - monotonic(), 0)
            with self._lock:
                self._listening = not self._closed
            try:
                notice = self._listen(left) if self._listening else None
            finally:
                with self._lock:
                    self._listening = False
                    if self._closed:
                        self._drop()
            if notice is not None:
                return notice
            if self._closed:
                raise Empty("the subscription is closed")
            if until is not None and until - monotonic() <= 0:
                raise Empty("no notice came in time")

    def change(self, topics: Iterable[Topic]) -> None:
        """Other topics from now on; any thread may say so."""
        with self._lock:
            commands = self._dialogue.change(topics)
            if self._connection is not None:
                try:
                    self._say(commands)
                except CONNECTION_ERRORS:
                    self._end()  # the new connection begins with these topics

    def wait_confirmed(self) -> None:
        """Wait, while another thread reads, until the server has confirmed all topics.

        Raises redis-py's ``TimeoutError`` if that takes too long.
        """
        with self._confirmed:
            if not self._confirmed.wait_for(
                lambda: self._closed or (self._connection is not None and not self._dialogue.owed),
                PATIENCE_SECONDS,
            ):
                raise redis.TimeoutError(UNCONFIRMED)

    def close(self) -> None:
        """Stop listening. Any thread may say so; who waits for a notice gets :exc:`queue.Empty`."""
        with self._lock:
            self._closed = True
            self._closing.set()
            self._confirmed.notify_all()
            if not self._listening:
                self._drop()
                return
            self._end()

    def after_fork(self) -> None:
        """In a forked child: close our copy of the parent's socket, and say nothing."""
        self._closed = True
        self._lock = threading.RLock()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    # The connection --------------------------------------------------------------------------

    def _listen(self, left: float) -> Notice | None:
        """One try to hear something, for so many seconds at the most."""
        try:
            if self._connection is None:
                self._connect()
                gap = self._gap()
                if gap is not None:
                    return gap
            if self._early:
                return self._early.popleft()
            ping, silence = self._silence()
            if ping:
                with self._lock:
                    self._pinged = True
                    self._say([(b"PING",)])
            connection = self._connection
            if connection is None or not can_read(connection, min(left, silence)):
                return None
            reply = connection.read_response()
        except redis.ResponseError as error:
            self._drop()
            raise translate(error) from None
        except CONNECTION_ERRORS:
            self._lost()
            self._drop()
            if not self._closed:
                self._closing.wait(min(self._pause(), left))
            return None
        with self._confirmed:
            notice = self._understand(reply)
            if not self._dialogue.owed:
                self._confirmed.notify_all()
        return notice

    def _connect(self) -> None:
        with self._lock:
            self._connection = self._session.connect(self._pool)
            try:
                if self._closed:
                    raise redis.ConnectionError("the subscription was closed meanwhile")
                self._say(self._dialogue.opening())
                until = monotonic() + PATIENCE_SECONDS
                while self._dialogue.owed:
                    if not can_read(self._connection, max(until - monotonic(), 0)):
                        raise redis.TimeoutError(UNCONFIRMED)
                    # What comes between the confirmations must not be lost.
                    notice = self._dialogue.hear(self._connection.read_response())
                    if notice is not None:
                        self._early.append(notice)
            except redis.ResponseError as error:
                self._drop()
                raise translate(error) from None
            except BaseException:
                self._drop()
                raise
            self._opened()
            self._confirmed.notify_all()

    def _say(self, commands: Iterable[tuple[bytes, ...]]) -> None:
        # In one write: between two, topics that are exchanged would bring a notice twice. Not by
        # redis-py: where the socket is gone it would connect again in silence, and where the write
        # fails it would take the connection out of the reader's hands.
        sock = getattr(self._connection, "_sock", None)
        if sock is None:
            raise redis.ConnectionError("the connection is gone")
        sock.sendall(b"".join(pack_command(*command) for command in commands))

    def _end(self) -> None:
        """The reader has the connection in its hands: it hears what has come yet, and drops it."""
        sock = getattr(self._connection, "_sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _drop(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                with contextlib.suppress(Exception):
                    connection.disconnect()
                self._pool.release(connection)
