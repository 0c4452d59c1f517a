"""One connection for commands, kept for as long as it lives.

redis-py's clients take a connection from a pool for every command and give it back after it; at
the rates of a broker that costs more than the command. A :class:`Link` holds one connection,
packs what it can once, sends any number of commands in one write, and is safe between threads,
across a fork, and in the handler of a signal that comes while it is talking.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis import exceptions as redis_errors

from .patience import alone, hurry, limit_silence, no_handshake, relax, seconds_left
from .refusals import Healable, translate
from .scripts import Prepared, Script, pack_command

#: After an argument of this size the connection is given up: the server would keep a buffer of the
#: same size for it until it has been idle for seconds. Connecting is little beside such a write.
LARGE_BYTES = 4 * 1024 * 1024

#: How a broken conversation with the server looks.
CONNECTION_ERRORS: tuple[type[Exception], ...] = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    OSError,
)

#: What the poster of commands is told when their replies will never be heard.
UNHEARD = "the connection was lost before the server's replies were read"

_fork_epoch = 0


def _after_fork() -> None:
    global _fork_epoch
    _fork_epoch += 1


os.register_at_fork(after_in_child=_after_fork)


def fork_epoch() -> int:
    """Grows by one in a forked child: what was opened at another epoch is the parent's."""
    return _fork_epoch


class Link:
    """A lasting connection, for commands that are answered at once.

    Arguments:
        acquire: gives a new (or pooled) ``redis.Connection``, connected or not.
        release: takes it back, connected or not.

    Raises of every call: :data:`CONNECTION_ERRORS` when the conversation breaks (the link
    connects again at the next call), and :mod:`phonon_kombu.errors`.
    """

    def __init__(
        self,
        acquire: Callable[[], Any],
        release: Callable[[Any], None],
    ) -> None:
        self._acquire = acquire
        self._release = release
        self._connection: Any = None
        self._unread: list[tuple[list[Any], Callable[[list[Any]], None]]] = []
        self._epoch = _fork_epoch
        #: Scripts that the server knows, as far as this connection has seen.
        self._known: set[str] = set()
        self.lock = threading.RLock()
        #: Whether the holder of the lock is in the midst of a conversation.
        self._talking = False
        #: Grows with each connection made; a pool may give the same object twice.
        self.generation = 0

    def connection(self) -> Any:
        """The connection, made or made anew where needed."""
        connection = self._connection
        if connection is None:
            seconds_left()
            try:
                connection = self._connection = self._acquire()
            except redis_errors.ResponseError as error:  # to the choice of the database, say
                raise translate(error) from None
            self.generation += 1
            limit_silence(connection)
        return connection

    def after_fork(self) -> None:
        """In a forked child: close our copy of the parent's socket, without a word to the server.

        Without this, a server would take a killed parent for alive.
        """
        connection, self._connection = self._connection, None
        self.lock = threading.RLock()
        self._talking = False
        self._unread = []
        self._known = set()
        self._epoch = _fork_epoch
        if connection is not None:
            connection.disconnect()

    def close(self) -> None:
        """Give the connection back. The next call makes a new one."""
        self._mind_fork()
        connection, self._connection = self._connection, None
        unread, self._unread = self._unread, []
        self._known = set()
        if connection is not None and self._epoch == _fork_epoch:
            try:
                connection.disconnect()
            finally:
                self._release(connection)
        for calls, on_replies in unread:
            on_replies([redis_errors.ConnectionError(UNHEARD)] * len(calls))

    def run(self, prepared: Prepared, args: Sequence[bytes]) -> Any:
        """Run one script; returns its reply, raises its refusal by name."""
        return self.send(((prepared, args),), repeat=True)[0]

    def command(self, *args: bytes, repeat: bool = True) -> Any:
        """Run one plain command."""
        return self.send((args,), repeat=repeat)[0]

    def send(
        self, calls: Sequence[Any], repeat: bool = False, raise_first: bool = True
    ) -> list[Any]:
        """Send all `calls` in one write and read all replies.

        A call is a tuple ``(Prepared, args)`` or a tuple of bytes. With `repeat` the whole is
        sent once more on a new connection where the old one breaks: only for what may be done
        twice. Refusals are raised (the first of them), or with `raise_first` off returned in
        their places.
        """
        packed = pack_calls(calls)
        self._mind_fork()
        with alone(self.lock):
            if self._talking:
                with self._aside() as link:
                    return link.send(calls, repeat, raise_first)
            self._talking = True
            try:
                replies = self._converse(calls, packed, repeat)
            finally:
                self._talking = False
        if raise_first:
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies

    def _converse(self, calls: Sequence[Any], packed: bytes, repeat: bool) -> list[Any]:
        try:
            if self._unread:
                self._hear()
            large = len(packed) > LARGE_BYTES and has_large(calls)
            if len(calls) > 1 or large:
                self._teach(calls)
            try:
                replies = self._exchange(packed, len(calls))
            except CONNECTION_ERRORS as error:
                if not repeat or no_handshake(error):
                    raise
                self.close()
                replies = self._exchange(packed, len(calls))
            for i, reply in enumerate(replies):
                if isinstance(reply, Exception):
                    replies[i] = self._again(calls[i], reply)
        except BaseException:
            # Perhaps between a command and its reply: the next reply would be taken for another's.
            self.close()
            raise
        if large:
            self.close()
        return replies

    @contextmanager
    def _aside(self) -> Iterator[Link]:
        """Another link, in the handler of a signal that has come in the midst of a conversation."""
        link = Link(self._acquire, self._release)
        try:
            yield link
        finally:
            link.close()

    def post(self, calls: Sequence[Any], on_replies: Callable[[list[Any]], None]) -> None:
        """Send all `calls` in one write and go on; `on_replies` gets their replies, refusals among
        them, when they are heard: before the next command on this link, or by :meth:`hear`.

        Only one such write is under way: the one before is heard first. If the conversation breaks
        before, every reply is a connection error. Whoever hears may be another caller, to whom
        this is nothing: `on_replies` must not raise.
        """
        packed = pack_calls(calls)
        self._mind_fork()
        with alone(self.lock):
            if self._talking:
                with self._aside() as link:
                    link.post(calls, on_replies)
                    link.hear()
                return
            self._talking = True
            try:
                self._hear()
                self._teach(calls)
                self.connection().send_packed_command((packed,))
                self._unread.append((list(calls), on_replies))
            finally:
                self._talking = False

    def hear(self) -> None:
        """Read the replies to what was posted, and hand them to those who posted it."""
        with alone(self.lock):
            if self._talking:
                return  # whoever is talking has heard them, or is about to
            self._talking = True
            try:
                self._hear()
            finally:
                self._talking = False

    def _hear(self) -> None:
        while self._unread:
            calls, on_replies = self._unread.pop(0)
            replies: list[Any] = [redis_errors.ConnectionError(UNHEARD)] * len(calls)
            try:
                replies = self._read(self.connection(), len(calls))
                for i, reply in enumerate(replies):
                    if isinstance(reply, Exception):
                        replies[i] = self._again(calls[i], reply)
            except CONNECTION_ERRORS as error:
                self.close()
                replies = [error] * len(calls)
            except BaseException:
                self.close()
                raise
            finally:
                self._talking = False  # they may have something to send
                try:
                    on_replies(replies)
                finally:
                    self._talking = True

    def _mind_fork(self) -> None:
        """Before the lock is taken: in a forked child another thread of the parent may hold it."""
        if self._epoch != _fork_epoch:
            self.after_fork()

    def _teach(self, calls: Sequence[Any]) -> None:
        """Load the scripts that the server may not know before calls whose order counts.

        A call that is refused as unknown is repeated after those that stand behind it.
        """
        scripts = {
            call[0].script.sha: call[0].script
            for call in calls
            if isinstance(call[0], Prepared) and call[0].script.sha not in self._known
        }
        if scripts:
            try:
                self._exchange(
                    pack_calls([(b"SCRIPT", b"LOAD", s.source) for s in scripts.values()]),
                    len(scripts),
                )
            except CONNECTION_ERRORS:
                self.close()
                return  # the calls themselves will meet it, and may be repeated
            self._known.update(scripts)

    def _exchange(self, packed: bytes, count: int) -> list[Any]:
        connection = self.connection()
        hurry(connection)
        connection.send_packed_command((packed,))
        return self._read(connection, count)

    def _read(self, connection: Any, count: int) -> list[Any]:
        replies: list[Any] = []
        hurried = hurry(connection)
        for _ in range(count):
            try:
                replies.append(connection.read_response())
            except redis_errors.ResponseError as error:
                replies.append(error)
        if hurried:
            relax(connection)
        return replies

    def _again(self, call: Any, error: Exception) -> Any:
        """Load the script that the server does not know and repeat its call; translate others."""
        if isinstance(error, redis_errors.NoScriptError):
            prepared: Prepared = call[0]
            replies = self._exchange(
                pack_command(b"SCRIPT", b"LOAD", prepared.script.source) + prepared.pack(call[1]),
                2,
            )
            error = next((r for r in replies if isinstance(r, Exception)), None)  # type: ignore
            if error is None:
                return replies[1]
        if isinstance(error, redis_errors.ResponseError):
            named = translate(error)
            if isinstance(named, Healable):
                self.close()
            return named
        return error


def pack_calls(calls: Sequence[Any]) -> bytes:
    """Scripts and plain commands, packed for one write."""
    return b"".join(
        call[0].pack(call[1]) if isinstance(call[0], Prepared) else pack_command(*call)
        for call in calls
    )


def has_large(calls: Sequence[Any]) -> bool:
    """Whether one of the arguments is large."""
    return any(
        len(arg) >= LARGE_BYTES
        for call in calls
        for arg in (call[1] if isinstance(call[0], Prepared) else call)
    )


def load_scripts(link: Link, scripts: Sequence[Script]) -> None:
    """Make the server know these scripts."""
    link.send([(b"SCRIPT", b"LOAD", script.source) for script in scripts], repeat=True)
