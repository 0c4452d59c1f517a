"""How long to wait for a server that says nothing.

Normally a command's reply may take :data:`SILENCE_SECONDS`. Where somebody must not be held up, at
the end of a connection and when one is made, :func:`at_most` bounds all that its thread says to
any server.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from time import monotonic
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import AuthenticationError, ConnectionError, TimeoutError

#: How long a command may remain without a reply before its connection is given up.
SILENCE_SECONDS = 30.0

#: How long a new connection may remain without an answer to its greeting.
GREETING_SECONDS = 4.0

_bound = threading.local()


class _Bound:
    """Lives as long as its ``with``, however that ends.

    An exception that a signal's handler raises may come in the midst of leaving it.
    """

    __slots__ = ("until", "__weakref__")

    def __init__(self, until: float) -> None:
        self.until = until


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Give up after `seconds`, all waits of this thread within it taken together.

    An outer bound that ends earlier stays in force.
    """
    outer: weakref.ref[_Bound] | None = getattr(_bound, "current", None)
    left = _left(outer)
    bound = _Bound(monotonic() + (seconds if left is None else min(left, seconds)))
    _bound.current = weakref.ref(bound)
    try:
        yield
    finally:
        _bound.current = outer


def _left(current: weakref.ref[_Bound] | None) -> float | None:
    """The seconds that are left of a bound, none or fewer too; None without one."""
    bound = None if current is None else current()
    return None if bound is None else bound.until - monotonic()


def seconds_left() -> float | None:
    """What is left of the bound of this thread, None if it has none.

    Raises ``redis.exceptions.TimeoutError`` where nothing is left.
    """
    left = _left(getattr(_bound, "current", None))
    if left is not None and left <= 0:
        raise TimeoutError("the server has not answered in time")
    return left


def limit_silence(connection: Any, seconds: float = SILENCE_SECONDS) -> None:
    """Let the kernel give up a read or write on `connection` after so many seconds.

    A timeout of Python's own would cost a system call before each read and write.
    """
    timeval = struct.pack("ll", int(seconds), 0)
    sock = connection._sock
    if sock is not None and connection.socket_timeout is None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
        if _is_green(sock):
            sock.settimeout(seconds)


def _is_green(sock: Any) -> bool:
    """Whether this is a socket of gevent or eventlet: it does not block in the kernel, so that the
    kernel cannot give up for it."""
    return type(sock).__module__.startswith(("gevent", "eventlet"))


def hurry(connection: Any) -> bool:
    """Where this thread has a bound, keep to it on `connection` until :func:`relax`.

    Returns whether it has one.
    """
    left = seconds_left()
    if left is None or connection._sock is None:
        return False
    # Python's own timeout, which TLS and green threads know too.
    connection._sock.settimeout(left)
    return True


def relax(connection: Any) -> None:
    """Wait on `connection` again as it was made to."""
    sock = connection._sock
    if sock is not None:
        own = connection.socket_timeout
        sock.settimeout(SILENCE_SECONDS if own is None and _is_green(sock) else own)


def can_read(connection: Any, seconds: float) -> bool:
    """Whether something can be read on `connection` within so many seconds.

    redis-py's own leaves the socket of a green thread without a limit, and connects anew one that
    has been closed. Raises what reading raises.
    """
    if connection._sock is None:
        raise ConnectionError("the connection has been closed")
    try:
        return bool(connection.can_read(timeout=seconds))
    finally:
        relax(connection)


def greet(connection: Any) -> None:
    """What redis-py does with a new connection, within a time (its ``redis_connect_func``)."""
    own = connection.socket_timeout
    with at_most(GREETING_SECONDS if own is None else min(own, GREETING_SECONDS)):
        hurry(connection)
        try:
            connection.on_connect()
        except AuthenticationError as error:
            raise type(error)(f"the server refuses the user or the password: {error}") from None
    relax(connection)


class NoHandshake(OSError):
    """A server has not answered the handshake of TLS.

    What redis-py makes of it, a ConnectionError, it would try again, up to ten times; this not.
    """

    def __init__(self) -> None:
        super().__init__(
            f"no answer to the handshake of TLS within {GREETING_SECONDS:g} seconds: does the "
            "server speak TLS at this port?"
        )


def no_handshake(error: BaseException) -> bool:
    """Whether this is a :class:`NoHandshake`, or made of one: a second try is no use."""
    return isinstance(error, NoHandshake) or isinstance(error.__context__, NoHandshake)


@cache
def prompt(kind: Any) -> Any:
    """A class of connections as `kind`, with the handshake of TLS bounded as the greeting is."""
    if not isinstance(kind, type) or issubclass(kind, _Prompt | _PromptAsync):
        return kind
    if issubclass(kind, redis.SSLConnection):
        return type(kind.__name__, (_Prompt, kind), {})
    if issubclass(kind, redis.asyncio.SSLConnection):
        return type(kind.__name__, (_PromptAsync, kind), {})
    return kind


class _Prompt:
    socket_timeout: float | None

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[misc]
        except NoHandshake as error:
            raise ConnectionError(str(error)) from error

    def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().connect_check_health(*args, **kwargs)  # type: ignore[misc]
        except ConnectionError as error:
            if isinstance(error.__context__, NoHandshake):
                raise error.__context__ from None
            raise

    def _connect(self) -> Any:
        # redis-py gives the socket this timeout when it is connected, and then shakes hands.
        own, left = self.socket_timeout, seconds_left()
        self.socket_timeout = min(t for t in (own, left, GREETING_SECONDS) if t is not None)
        try:
            sock = super()._connect()  # type: ignore[misc]
        except OSError as error:
            if "handshake operation timed out" in str(error):
                raise NoHandshake from None
            raise
        finally:
            self.socket_timeout = own
        sock.settimeout(own)
        return sock


class _PromptAsync:
    async def connect(self) -> None:
        try:
            await super().connect()  # type: ignore[misc]
        except NoHandshake as error:
            raise ConnectionError(str(error)) from error

    async def connect_check_health(self, *args: Any, **kwargs: Any) -> None:
        try:
            await super().connect_check_health(*args, **kwargs)  # type: ignore[misc]
        except ConnectionError as error:
            if isinstance(error.__context__, NoHandshake):
                raise error.__context__ from None
            raise

    async def _connect(self) -> None:
        try:
            await asyncio.wait_for(super()._connect(), GREETING_SECONDS)  # type: ignore[misc]
        except asyncio.TimeoutError:
            raise NoHandshake from None


def alone(lock: Any) -> Any:
    """`lock` for a ``with``, where its holder may be waiting for a silent server.

    Entering it raises ``redis.exceptions.TimeoutError`` when the bound of this thread has passed.
    """
    left = seconds_left()
    return lock if left is None else _Held(lock, left)


class _Held:
    """A lock, awaited for so many seconds at the most."""

    def __init__(self, lock: Any, seconds: float) -> None:
        self._lock = lock
        self._seconds = seconds

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=self._seconds):
            raise TimeoutError("the server has not answered another thread in time")

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()
