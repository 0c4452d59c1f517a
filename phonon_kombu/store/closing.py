"""Context managers that do nothing but close themselves at the end."""

from __future__ import annotations

from typing import TypeVar

S = TypeVar("S", bound="Closing")


class Closing:
    """``with`` gives the object itself, and closes it whatever happens."""

    def close(self) -> None:
        """Close all that is open."""
        raise NotImplementedError

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class AsyncClosing:
    """The end of an ``async with``; how it begins each class says itself."""

    async def close(self) -> None:
        """Close all that is open."""
        raise NotImplementedError

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()
