"""Thoonk's jobs and queues in Redis, as a Python API of their own.

::

    from phonon_kombu.thoonk import Thoonk

    with Thoonk("phonon://localhost:6379/0") as thoonk:
        job = thoonk.job("thumbnails")
        job.put("cat.jpg")
        claimed = job.get(timeout=5)
        job.finish(claimed.id, "cat-small.jpg", result=True, timeout=60)

The jobs are those of the transport: a Celery queue can be looked into and worked on as
``thoonk.job("celery")``.
"""

from __future__ import annotations

from .base import HIGH, Empty
from .claims import ClaimedJob
from .inspection import Description, Slice, Stats
from .job import Job
from .queue import Queue
from .session import Thoonk
from .upkeep import Maintained

__all__ = [
    "Thoonk",
    "Job",
    "ClaimedJob",
    "Stats",
    "Description",
    "Slice",
    "Maintained",
    "Queue",
    "Empty",
    "HIGH",
]
