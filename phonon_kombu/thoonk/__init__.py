"""Thoonk: feeds, sorted feeds, queues and jobs in Redis, as a Python API of their own.

::

    from phonon_kombu.thoonk import Thoonk

    with Thoonk("phonon://localhost:6379/0") as thoonk:
        job = thoonk.job("thumbnails")
        job.put("cat.jpg")
        claimed = job.get(timeout=5)
        job.finish(claimed.id, "cat-small.jpg", result=True, timeout=60)

        feed = thoonk.feed("news", {"max_length": 50})
        thoonk.register_handler("publish", lambda feed, item, id: print(item))
        feed.publish("a cat was shrunk")

The jobs are those of the transport: a Celery queue can be looked into and worked on as
``thoonk.job("celery")``. The same for asyncio is in :mod:`phonon_kombu.thoonk.aio`.
"""

from __future__ import annotations

from .base import HIGH, Empty
from .claims import ClaimedJob
from .feed import Feed
from .inspection import Description, Slice, Stats
from .job import Job
from .live import Change, Live
from .notices import Notice
from .queue import PyQueue, Queue
from .session import Thoonk
from .sorted_feed import SortedFeed
from .subscription import Subscription
from .upkeep import Maintained

__all__ = [
    "Thoonk",
    "Feed",
    "SortedFeed",
    "Job",
    "ClaimedJob",
    "Stats",
    "Description",
    "Slice",
    "Maintained",
    "Queue",
    "PyQueue",
    "Subscription",
    "Notice",
    "Live",
    "Change",
    "Empty",
    "HIGH",
]
