"""What comes one after the other, and is waited for: iterated over until it is closed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from queue import Empty
from typing import Generic, TypeVar

from ..store.closing import AsyncClosing, Closing

T = TypeVar("T")


class Stream(Closing, Generic[T]):
    """Of notices, or of changes. To be read by one thread."""

    def get(self, timeout: float | None = None) -> T:
        """The next one. Raises :exc:`queue.Empty` if none came in time, or the stream is closed."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[T]:
        with contextlib.suppress(Empty):
            while True:
                yield self.get()


class AsyncStream(AsyncClosing, Generic[T]):
    """The same for asyncio."""

    async def get(self, timeout: float | None = None) -> T:
        """As :meth:`Stream.get`."""
        raise NotImplementedError

    async def __aiter__(self) -> AsyncIterator[T]:
        with contextlib.suppress(Empty):
            while True:
                yield await self.get()
