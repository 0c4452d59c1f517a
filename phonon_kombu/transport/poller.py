"""Polls the sockets of all channels of a connection, with or without an event loop."""

from __future__ import annotations

import logging
from queue import Empty
from time import monotonic
from typing import Any

from kombu.transport import redis as stock
from kombu.utils.eventio import poll
from redis.exceptions import ConnectionError

from ..store.client import CONNECTION_ERRORS
from .message import is_answer
from .midst import Midst
from .pacing import CREDIT_SECONDS

logger = logging.getLogger("phonon_kombu.transport")

#: How long to wait for the reply of a claim when the caller wants no waiting, seconds.
SHORTEST_POLL_SECONDS = 0.1


class Poller(stock.MultiChannelPoller):
    """Stock's poller with claims in the place of BRPOP; PUB/SUB stays as it is.

    A socket is registered when it is connected, not at every tick.

    All that the channels do with their polling connections is done in the :class:`Midst` of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._loop: Any = None
        self._on_readable: Any = None
        #: redis connection -> its file descriptor, also after it was closed.
        self._fds: dict[Any, int] = {}
        self.midst = Midst(self._interrupted)
        #: Whether somebody is about to read what comes, and not at work on a message.
        self.attentive = False
        self.closed = False

    # Registration --------------------------------------------------------------------------

    def attach(self, loop: Any, on_readable: Any) -> None:
        """Use the event loop `loop` from now on."""
        self._loop, self._on_readable = loop, on_readable
        self.poller = loop.poller
        self._fd_to_chan.clear()
        self._chan_to_sock.clear()
        self._fds.clear()
        for channel in self._channels:
            connection = channel.waiter.connection
            if connection is not None and connection._sock is not None:
                self.watch(channel, connection)

    def watch(self, channel: Any, connection: Any, kind: str = "JOBS") -> None:
        """Poll the socket of `connection` for `channel`."""
        fd = connection._sock.fileno()
        self._fds[connection] = fd
        self._fd_to_chan[fd] = (channel, kind)
        self._register_fd(fd)

    def _register_fd(self, fd: int) -> None:
        if self._loop is not None:
            self._loop.add_reader(fd, self._on_readable, fd)
        else:
            self.poller.register(fd, self.eventflags)

    def _register(self, channel: Any, client: Any, type: str) -> None:
        connection = client.connection
        if connection._sock is None:
            connection.connect()
        self._chan_to_sock[(channel, client, type)] = connection._sock
        self.watch(channel, connection, type)

    def _on_connection_disconnect(self, connection: Any) -> None:
        fd = self._fds.pop(connection, None)
        if fd is None:
            return
        self._fd_to_chan.pop(fd, None)
        for ident in [
            i for i in self._chan_to_sock if getattr(i[1], "connection", 0) is connection
        ]:
            del self._chan_to_sock[ident]
        try:
            if self._loop is not None:
                self._loop.remove(fd)
            else:
                self.poller.unregister(fd)
        except (KeyError, ValueError, OSError, AttributeError):
            pass

    def after_fork(self) -> None:
        """In a forked child: poll for ourselves. The parent's epoll must not be touched."""
        self._fds.clear()
        self._fd_to_chan.clear()
        self._chan_to_sock.clear()
        self._loop = self._on_readable = None
        self.poller = poll()

    def close(self) -> None:
        self.closed = True
        for connection in list(self._fds):
            self._on_connection_disconnect(connection)
        self._channels.clear()
        self._fd_to_chan.clear()
        self._chan_to_sock.clear()
        if self._loop is None:
            close = getattr(self.poller, "close", None)
            if close is not None:
                close()

    def discard(self, channel: Any) -> None:
        self._channels.discard(channel)

    # One tick ------------------------------------------------------------------------------

    def on_poll_start(self) -> None:
        """Before every poll: hand over what could not be before, send what is to be sent."""
        loop = self._loop
        with self.midst:
            for channel in list(self._channels):
                waiter = channel.waiter
                if loop is not None:
                    if waiter.buffer:
                        waiter.deliver()
                    self.attentive = True
                waiter.step(may_linger=loop is not None)
                if channel.active_fanout_queues:
                    self._register_LISTEN(channel)
            if loop is not None:
                readers = loop.readers
                for fd in list(self._fd_to_chan):  # the keeper may drop one
                    if fd not in readers:
                        self._register_fd(fd)

    def on_readable(self, fileno: int) -> None:
        entry = self._fd_to_chan.get(fileno)
        if entry is None:
            logger.debug("on_readable: fd %r not mapped, ignoring", fileno)
            return
        channel, kind = entry
        with self.midst:
            if kind != "JOBS":
                self.attentive = False
                channel.handlers[kind]()
                return
            channel.waiter.on_readable()
            if self._loop is not None:
                channel.waiter.deliver()
                channel.waiter.limit_linger(self._loop.call_later)
                channel.waiter.await_credit(self._loop.call_later)

    def run_acks(self) -> None:
        """Run the acknowledgements that Celery has put off until the event loop's next round.

        In the solo pool a task runs while its message is handed over: what the one before has to
        say would wait until the next one is done, for hours maybe, and die with it.
        """
        loop = self._loop
        if loop is None or not loop._ready:
            return
        for callback in loop._pop_ready():
            if is_answer(callback):
                callback()
            else:
                loop.call_soon(callback)

    def handle_event(self, fileno: int, event: int) -> Any:
        # An error on a socket is read like a message: the reading tells which error it is.
        self.on_readable(fileno)

    def get(self, callback: Any, timeout: float | None = None) -> None:
        """Hand over one message, waiting up to `timeout` seconds (None: until there is one).

        Raises :exc:`queue.Empty` when none came, a connection error when it is closed meanwhile.
        """
        with self.midst:
            if self._deliver_one():
                return
        try:
            self._get(timeout)
        finally:
            self.attentive = False

    def _get(self, timeout: float | None) -> None:
        until = None if timeout is None else monotonic() + timeout
        while True:
            self.attentive = True
            self.on_poll_start()
            left = None if until is None else until - monotonic()
            if any(c.waiter.busy and not c.waiter.waiting for c in self._channels):
                left = SHORTEST_POLL_SECONDS if left is None else max(left, SHORTEST_POLL_SECONDS)
            elif not any(c.waiter.busy for c in self._channels):
                # No credit: another thread may acknowledge.
                left = CREDIT_SECONDS if left is None else min(left, CREDIT_SECONDS)
            elif left is None:
                left = 1.0
            try:
                events = self.poller.poll(max(left, 0)) or ()
            except (ValueError, OSError):
                self._check_open()
                raise
            self._check_open()
            with self.midst:
                fanout = False
                for fileno, _ in events:
                    kind = self._fd_to_chan.get(fileno, (None, None))[1]
                    self.on_readable(fileno)
                    fanout = fanout or kind == "LISTEN"
                if self._deliver_one() or fanout:
                    return
                self.check_overdue()
            if until is not None and monotonic() >= until:
                raise Empty()

    def _check_open(self) -> None:
        if self.closed:
            raise ConnectionError("the connection has been closed")

    def _interrupted(self) -> None:
        for channel in list(self._channels):
            channel.waiter.interrupted()

    def _deliver_one(self) -> bool:
        self.attentive = False
        return any(channel.waiter.deliver_one() for channel in list(self._channels))

    # Timers --------------------------------------------------------------------------------

    def check_overdue(self) -> None:
        """Drop a polling connection whose reply is long overdue: it is half open."""
        now = monotonic()
        for channel in list(self._channels):
            waiter = channel.waiter
            if not waiter.busy or not channel.health_check_interval:
                continue
            allowed = channel.health_check_interval + (
                waiter.polling_interval_seconds if waiter.waiting else 0
            )
            if now - waiter.sent_at > allowed:
                logger.warning(
                    "Redis has not answered for %.0f seconds, connecting again",
                    now - waiter.sent_at,
                )
                waiter.connection.disconnect()
                waiter.disconnected()
                # The other connection leads to the same server, and it would be waited for too.
                channel.link.close()

    def check_health(self) -> None:
        """What is done every few seconds with an event loop."""
        self.check_overdue()
        self.maybe_check_subclient_health()
        # kombu 5.6 has no rotating credentials.
        reauthenticate = getattr(self, "maybe_reauth", None)
        if reauthenticate is not None:
            try:
                reauthenticate()
            except CONNECTION_ERRORS as error:
                logger.debug("re-authentication: %r", error)
