"""A :class:`~.client.Link` for asyncio: one lasting connection of redis.asyncio for commands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis import exceptions as redis_errors

from .client import CONNECTION_ERRORS, pack_calls
from .patience import SILENCE_SECONDS, no_handshake
from .refusals import Healable, translate
from .scripts import Prepared, pack_command


class AsyncLink:
    """A lasting connection, for commands that are answered at once; for one event loop.

    Commands of several tasks go one after the other. A task that is cancelled between a command
    and its reply costs the connection: the next command makes a new one.

    Arguments and errors as those of :class:`~.client.Link`, but that both are to be awaited.
    """

    def __init__(
        self,
        acquire: Callable[[], Awaitable[Any]],
        release: Callable[[Any], Awaitable[None]],
    ) -> None:
        self._acquire = acquire
        self._release = release
        self._connection: Any = None
        #: Scripts that the server knows, as far as this connection has seen.
        self._known: set[str] = set()
        self._lock = asyncio.Lock()

    async def send(
        self, calls: Sequence[Any], repeat: bool = False, raise_first: bool = True
    ) -> list[Any]:
        """Send all `calls` in one write and read all replies: see :meth:`.Link.send`."""
        packed = pack_calls(calls)
        async with self._lock:
            try:
                replies = await self._exchange(packed, calls)
            except CONNECTION_ERRORS as error:
                await self._drop()
                if not repeat or no_handshake(error):
                    raise
                try:
                    replies = await self._exchange(packed, calls)
                except CONNECTION_ERRORS:
                    await self._drop()
                    raise
            except BaseException:
                await self._drop()
                raise
            for i, reply in enumerate(replies):
                if isinstance(reply, redis_errors.NoScriptError):
                    prepared: Prepared = calls[i][0]
                    loaded, reply = await self._talk(
                        pack_command(b"SCRIPT", b"LOAD", prepared.script.source)
                        + prepared.pack(calls[i][1]),
                        2,
                    )
                    if isinstance(loaded, Exception):
                        reply = loaded
                if isinstance(reply, redis_errors.ResponseError):
                    reply = translate(reply)
                    if isinstance(reply, Healable):
                        await self._drop()
                replies[i] = reply
        if raise_first:
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies

    async def run(self, prepared: Prepared, args: Sequence[bytes]) -> Any:
        """Run one script; returns its reply, raises its refusal by name."""
        return (await self.send(((prepared, args),), repeat=True))[0]

    async def command(self, *args: bytes, repeat: bool = True) -> Any:
        """Run one plain command."""
        return (await self.send((args,), repeat=repeat))[0]

    async def refresh(self) -> None:
        """Give up a connection that was closed while nobody used it."""
        async with self._lock:
            if self._connection is None:
                return
            for _ in range(2):
                await asyncio.sleep(0)  # the loop looks at its sockets, and tells of an end
            # The older name is that of redis-py before 8.
            probe = getattr(self._connection, "can_read", None)
            probe = probe or self._connection.can_read_destructive
            try:
                stale = await probe()
            except CONNECTION_ERRORS:
                stale = True
            if stale:
                await self._drop()

    async def close(self) -> None:
        """Give the connection back. The next call makes a new one."""
        async with self._lock:
            await self._drop()

    async def _exchange(self, packed: bytes, calls: Sequence[Any]) -> list[Any]:
        """Where order counts, the scripts are loaded before: see :meth:`.Link._teach`."""
        scripts = [call[0].script for call in calls if isinstance(call[0], Prepared)]
        unknown = {script.sha: script.source for script in scripts if script.sha not in self._known}
        if len(calls) > 1 and unknown:
            loads = [(b"SCRIPT", b"LOAD", source) for source in unknown.values()]
            await self._talk(pack_calls(loads), len(loads))
            self._known.update(unknown)
        return await self._talk(packed, len(calls))

    async def _talk(self, packed: bytes, count: int) -> list[Any]:
        if self._connection is None:
            try:
                self._connection = await self._acquire()
            except redis_errors.ResponseError as error:  # to the choice of the database, say
                raise translate(error) from None
        await self._connection.send_packed_command(packed)
        try:
            return await asyncio.wait_for(self._read(self._connection, count), SILENCE_SECONDS)
        except asyncio.TimeoutError:
            raise redis_errors.TimeoutError("the server has fallen silent") from None

    async def _read(self, connection: Any, count: int) -> list[Any]:
        replies: list[Any] = []
        for _ in range(count):
            try:
                replies.append(await connection.read_response())
            except redis_errors.ResponseError as error:
                replies.append(error)
        return replies

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self._known = set()
        if connection is not None:
            try:
                await connection.disconnect(nowait=True)
            finally:
                await self._release(connection)
