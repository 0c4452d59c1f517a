"""The polling socket of a channel: commands out, replies in, and what becomes of a broken one."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from redis.exceptions import ConnectionError, NoScriptError, ResponseError

from ..store.client import CONNECTION_ERRORS, pack_calls
from ..store.patience import can_read, hurry, limit_silence
from ..store.refusals import Healable, translate

logger = logging.getLogger("phonon_kombu.transport")

#: Seconds to leave the server alone after it refused a claim.
REFUSED_SECONDS = 1.0

#: A claimed job: queue, job id, item, how often it failed (None: never delivered before).
Entry = tuple[str, bytes, bytes, bytes | None]

#: Seconds without a word after which a connection is looked at before it is used: while nobody
#: polled it (it lay in a pool, or its consumer was cancelled) the server may have closed it.
IDLE_SECONDS = 1.0

#: What to do with a reply. It gets :exc:`NoScriptError` itself where the server did not know the
#: script; it does by then.
Handler = Callable[[Any], None]


class Conversation:
    """One batch of commands is outstanding at any time; all their replies are read together.

    Arguments:
        channel: the channel; its ``async_pool`` gives the connection.
    """

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.connection: Any = None
        #: Whether the outstanding command is the wait, whose reply may take long.
        self.waiting = False
        #: When the outstanding batch was sent, by the monotonic clock, seconds.
        self.sent_at = 0.0
        #: When the last reply was read.
        self.heard_at = 0.0
        self._outstanding: deque[tuple[Any, Handler]] = deque()
        self._hold_until = 0.0

    @property
    def busy(self) -> bool:
        """Whether a reply is outstanding."""
        return bool(self._outstanding)

    # For those who know what the commands mean.

    def replies_read(self) -> None:
        """All replies of a batch were read."""

    def broken(self, unheard: list[Any]) -> None:
        """The replies to `unheard` will never come."""

    def send(self, calls: list[tuple[Any, Handler]]) -> None:
        """Send all `calls` in one write. A call is what :meth:`Link.send` takes."""
        alone = not self._outstanding
        self._outstanding.extend(calls)
        self.sent_at = started = monotonic()
        packed = pack_calls([call for call, _ in calls])
        try:
            connection = self.connection
            if connection is not None and started - self.heard_at > IDLE_SECONDS and alone:
                drop_if_closed(connection)
            if connection is None or connection._sock is None:
                connection = self.connect()
            connection.send_packed_command((packed,), check_health=False)
        except CONNECTION_ERRORS:
            self.disconnected()
            raise

    def connect(self) -> Any:
        """Make the connection and make it known to the poller."""
        channel = self.channel
        if self.connection is None:
            channel.check_server()
            self.connection = channel.acquire_connection(channel.async_pool)
        connection = self.connection
        if connection._sock is None:
            connection.connect()
        limit_silence(connection)
        channel.connection.cycle.watch(channel, connection)
        channel.recover_lost()
        return connection

    def on_readable(self) -> None:
        """Read the replies of all outstanding commands.

        Raises connection errors, and the named error of a command that the server refused.
        """
        connection = self.connection
        if connection is None:
            return
        if not self._outstanding:
            # Nothing is expected: the server has closed the idle connection.
            connection.disconnect()
            return
        self.waiting = False
        hurry(connection)
        while self._outstanding:
            call, handler = self._outstanding[0]
            try:
                reply = connection.read_response()
            except NoScriptError:
                self.channel.link.command(b"SCRIPT", b"LOAD", call[0].script.source)
                reply = NoScriptError
            except ResponseError as error:
                self._refused(translate(error))
            except CONNECTION_ERRORS:
                connection.disconnect()
                self.disconnected()
                raise
            self._outstanding.popleft()
            handler(reply)
        self.heard_at = monotonic()
        self.replies_read()

    def _refused(self, error: Exception) -> None:
        # What stands behind the refused command in the same write is answered too, and the
        # answers would be taken for others': begin anew.
        self.connection.disconnect()
        self.disconnected()
        if not isinstance(error, Healable):
            self._hold_until = monotonic() + REFUSED_SECONDS
            logger.error("Redis refused a command: %s", error)
        raise error

    def disconnected(self) -> None:
        """The conversation broke: no reply comes any more."""
        unheard = [call for call, _ in self._outstanding]
        self._outstanding.clear()
        self.waiting = False
        self.broken(unheard)

    def drop_socket(self) -> None:
        """Forget a connection that is the parent's."""
        connection, self.connection = self.connection, None
        self._outstanding.clear()
        self.waiting = False
        if connection is not None:
            connection.disconnect()

    def hang_up(self) -> None:
        """Give the connection back, for good: the channel is being closed."""
        connection, self.connection = self.connection, None
        if connection is not None:
            # Somebody may be about to claim by it, and redis-py would connect it again.
            connection.redis_connect_func = _refuse
            connection.disconnect()
            self.channel.async_pool.release(connection)


def _refuse(connection: Any) -> None:
    raise ConnectionError("the channel has been closed")


def drop_if_closed(connection: Any) -> None:
    """Disconnect a connection on which nothing is outstanding and yet something can be read."""
    try:
        if connection._sock is not None and can_read(connection, 0):
            connection.disconnect()
    except CONNECTION_ERRORS:
        connection.disconnect()
