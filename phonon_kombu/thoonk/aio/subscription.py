"""Listening for notices in asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from queue import Empty
from time import monotonic
from typing import Any

import redis

from ...store.client import CONNECTION_ERRORS
from ...store.refusals import translate
from ...store.scripts import pack_command
from ..base import seconds
from ..notices import Notice, Topic
from ..streams import AsyncStream
from ..subscription import PATIENCE_SECONDS, PING_SECONDS, UNCONFIRMED, Listening


class Subscription(Listening, AsyncStream[Notice]):
    """Notices as they come: an async iterator and context manager. Made by :meth:`.Thoonk.listen`.

    It subscribes when it is entered, or first asked. For the rest as
    :class:`phonon_kombu.thoonk.Subscription`; a :meth:`get` may be cancelled.
    """

    def __init__(self, session: Any, topics: Iterable[Topic]) -> None:
        super().__init__(session, topics)
        self._confirmed = asyncio.Event()

    async def get(self, timeout: float | None = None) -> Notice:
        """The next notice. As :meth:`phonon_kombu.thoonk.Subscription.get`."""
        until = None if timeout is None else monotonic() + seconds("timeout", timeout)
        while True:
            left = PING_SECONDS if until is None else max(until - monotonic(), 0)
            notice = await self._listen(left)
            if notice is not None:
                return notice
            if self._closed:
                raise Empty("the subscription is closed")
            if until is not None and until - monotonic() <= 0:
                raise Empty("no notice came in time")

    async def change(self, topics: Iterable[Topic]) -> None:
        """Other topics from now on."""
        commands = self._dialogue.change(topics)
        if self._closed or (self._connection is not None and not commands):
            return
        self._confirmed.clear()
        if self._connection is not None:
            # If it breaks the reader finds out, and the new one begins with these topics.
            with contextlib.suppress(*CONNECTION_ERRORS):
                await self._say(self._connection, commands)

    async def wait_confirmed(self) -> None:
        """As :meth:`phonon_kombu.thoonk.Subscription.wait_confirmed`; another task reads."""
        try:
            await asyncio.wait_for(self._confirmed.wait(), PATIENCE_SECONDS)
        except asyncio.TimeoutError:
            raise redis.TimeoutError(UNCONFIRMED) from None

    async def close(self) -> None:
        """Stop listening."""
        self._closed = True
        self._confirmed.set()
        await self._drop()

    async def __aenter__(self) -> Subscription:
        if self._connection is None and not self._closed:
            await self._connect()
        return self

    # The connection --------------------------------------------------------------------------

    async def _listen(self, left: float) -> Notice | None:
        """One try to hear something, for so many seconds at the most."""
        if self._closed:
            return None
        if self._early:
            return self._early.popleft()
        try:
            if self._connection is None:
                await self._connect()
                gap = self._gap()
                if gap is not None:
                    return gap
            connection = self._connection
            ping, silence = self._silence()
            if ping:
                self._pinged = True
                await self._say(connection, [(b"PING",)])
            reply = await self._read(connection, min(left, silence))
        except redis.ResponseError as error:
            await self._drop()
            raise translate(error) from None
        except CONNECTION_ERRORS:
            self._lost()
            await self._drop()
            if not self._closed:
                await asyncio.sleep(min(self._pause(), left))
            return None
        if reply is None:
            return None
        notice = self._understand(reply)
        if not self._dialogue.owed:
            self._confirmed.set()
        return notice

    async def _connect(self) -> None:
        connection = self._connection = await self._session.connect(self._pool)
        try:
            if self._closed:
                raise redis.ConnectionError("the subscription was closed meanwhile")
            await self._say(connection, self._dialogue.opening())
            until = monotonic() + PATIENCE_SECONDS
            while self._dialogue.owed:
                reply = await self._read(connection, max(until - monotonic(), 0.01))
                if reply is None:
                    raise redis.TimeoutError(UNCONFIRMED)
                # What comes between the confirmations must not be lost.
                notice = self._dialogue.hear(reply)
                if notice is not None:
                    self._early.append(notice)
        except redis.ResponseError as error:
            await self._drop()
            raise translate(error) from None
        except BaseException:
            await self._drop()
            raise
        self._opened()
        self._confirmed.set()

    async def _read(self, connection: Any, left: float) -> Any:
        # None if nothing came; whoever is cancelled here leaves the connection as it is.
        return await connection.read_response(timeout=left, disconnect_on_error=False)

    async def _say(self, connection: Any, commands: Iterable[tuple[bytes, ...]]) -> None:
        # In one write: between two, topics that are exchanged would bring a notice twice. And not
        # where the socket is gone: redis-py would connect again in silence.
        if not connection.is_connected:
            raise redis.ConnectionError("the connection is gone")
        packed = b"".join(pack_command(*command) for command in commands)
        await connection.send_packed_command(packed, check_health=False)

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                await connection.disconnect(nowait=True)
            await self._pool.release(connection)
