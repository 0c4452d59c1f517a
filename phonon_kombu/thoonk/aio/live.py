"""Live queries in asyncio."""

from __future__ import annotations

from time import monotonic

from ..base import seconds
from ..items import Items
from ..live import Change, Match, Query
from ..steps import aperform
from ..streams import AsyncStream
from .subscription import Subscription


class Live(AsyncStream[Change]):
    """A live query: an async iterator of :class:`.Change`, an async context manager.

    As :class:`phonon_kombu.thoonk.Live`; it begins when it is entered, or first asked.
    """

    def __init__(self, feed: Items, match: Match | None = None) -> None:
        self._query = Query(feed, match)
        self._session = feed.session
        self._subscription = Subscription(self._session, self._query.topics())
        self._reading = True

    async def get(self, timeout: float | None = None) -> Change:
        """The next change. As :meth:`phonon_kombu.thoonk.Live.get`."""
        until = None if timeout is None else monotonic() + seconds("timeout", timeout)
        query = self._query
        while not query.changes:
            if self._reading:
                await self._subscription.__aenter__()
                await aperform(self._session, query.read())
                self._reading = False
            if query.due:
                query.complete(await aperform(self._session, query.order()))
                continue
            left = None if until is None else max(until - monotonic(), 0)
            self._reading = query.hear(await self._subscription.get(left))
        return query.changes.popleft()

    async def close(self) -> None:
        """End the query."""
        await self._subscription.close()

    async def __aenter__(self) -> Live:
        await self._subscription.__aenter__()
        return self
