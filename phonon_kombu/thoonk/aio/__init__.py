"""Thoonk in asyncio: the same names, to be awaited.

::

    from phonon_kombu.thoonk.aio import Thoonk

    async with Thoonk("phonon://localhost:6379/0") as thoonk:
        feed = await thoonk.feed("news")
        await feed.publish("hello", id="1")
        async with thoonk.listen("publish", feed="news") as notices:
            async for notice in notices:
                print(notice.id, notice.item)

A session belongs to one event loop. What each operation does is written once, for both faces.
"""

from __future__ import annotations

from ..base import HIGH, Empty
from ..live import Change
from ..notices import Notice
from .feeds import Feed, Job, PyQueue, Queue, SortedFeed
from .live import Live
from .session import Thoonk
from .subscription import Subscription

__all__ = [
    "Thoonk",
    "Feed",
    "SortedFeed",
    "Job",
    "Queue",
    "PyQueue",
    "Subscription",
    "Notice",
    "Live",
    "Change",
    "Empty",
    "HIGH",
]
