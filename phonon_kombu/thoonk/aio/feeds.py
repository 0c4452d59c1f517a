"""Feeds whose methods are to be awaited; what they do stands with their twins'."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from ..feed import FeedSteps
from ..job import JobSteps
from ..live import Match
from ..queue import PyQueueSteps, QueueSteps
from ..sorted_feed import SortedFeedSteps
from ..steps import aperform, awaiting
from .live import Live


class Feed(FeedSteps):
    """As :class:`phonon_kombu.thoonk.Feed`."""

    publish = awaiting(FeedSteps._publish)
    retract = awaiting(FeedSteps._retract)
    get_ids = awaiting(FeedSteps._get_ids)
    get_all = get_items = awaiting(FeedSteps._get_all)
    get_item = awaiting(FeedSteps._get_item)
    has_id = awaiting(FeedSteps._has_id)
    size = awaiting(FeedSteps._size)

    def live(self, match: Match | None = None) -> Live:
        """As :meth:`phonon_kombu.thoonk.Feed.live`, for ``async with`` and ``async for``."""
        return Live(self, match)


class SortedFeed(SortedFeedSteps):
    """As :class:`phonon_kombu.thoonk.SortedFeed`."""

    append = publish = awaiting(SortedFeedSteps._append)
    prepend = awaiting(SortedFeedSteps._prepend)
    publish_before = awaiting(SortedFeedSteps._publish_before)
    publish_after = awaiting(SortedFeedSteps._publish_after)
    edit = awaiting(SortedFeedSteps._edit)
    move = awaiting(SortedFeedSteps._move)
    move_first = awaiting(SortedFeedSteps._move_first)
    move_last = awaiting(SortedFeedSteps._move_last)
    move_before = awaiting(SortedFeedSteps._move_before)
    move_after = awaiting(SortedFeedSteps._move_after)
    retract = awaiting(SortedFeedSteps._retract)
    get_ids = awaiting(SortedFeedSteps._get_ids)
    get_all = get_items = awaiting(SortedFeedSteps._get_all)
    get_item = awaiting(SortedFeedSteps._get_item)
    has_id = awaiting(SortedFeedSteps._has_id)
    size = awaiting(SortedFeedSteps._size)

    def live(self, match: Match | None = None) -> Live:
        """As :meth:`phonon_kombu.thoonk.SortedFeed.live`, for ``async with`` and ``async for``."""
        return Live(self, match)


class Queue(QueueSteps):
    """As :class:`phonon_kombu.thoonk.Queue`.

    A ``get`` that is cancelled while its reply is on its way has taken an item that nobody sees:
    give it a `timeout` instead of cancelling it.
    """

    put = awaiting(QueueSteps._put)
    get = awaiting(QueueSteps._get)
    size = awaiting(QueueSteps._size)


class PyQueue(PyQueueSteps):
    """As :class:`phonon_kombu.thoonk.PyQueue`; of cancelling the same is true as of a Queue."""

    put = awaiting(PyQueueSteps._put)
    get = awaiting(PyQueueSteps._get)
    size = awaiting(PyQueueSteps._size)


class Job(JobSteps):
    """As :class:`phonon_kombu.thoonk.Job`; ``await job.paused``.

    A ``get`` that is cancelled has claimed nothing: what it may have claimed unseen is given back
    by the next one, or when the session is closed.
    """

    put = awaiting(JobSteps._put)
    get = awaiting(JobSteps._get)
    finish = awaiting(JobSteps._finish)
    cancel = awaiting(JobSteps._cancel)
    get_result = awaiting(JobSteps._get_result)
    stall = awaiting(JobSteps._stall)
    retry = awaiting(JobSteps._retry)
    retract = awaiting(JobSteps._retract)
    get_ids = awaiting(JobSteps._get_ids)
    get_item = awaiting(JobSteps._get_item)
    get_failure_count = awaiting(JobSteps._get_failure_count)
    get_reason = awaiting(JobSteps._get_reason)
    stats = awaiting(JobSteps._stats)
    describe = awaiting(JobSteps._describe)
    look = awaiting(JobSteps._look_at)
    pause = awaiting(JobSteps._pause)
    resume = awaiting(JobSteps._resume)

    @property
    def paused(self) -> Awaitable[bool]:
        """Whether the feed is paused, to be awaited."""
        return aperform(self.session, self._paused())

    configure = awaiting(JobSteps._configure)
    maintenance = awaiting(JobSteps._maintenance)


KINDS: dict[str, Any] = {kind.TYPE: kind for kind in (Feed, SortedFeed, Queue, PyQueue, Job)}
