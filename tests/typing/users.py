"""A user's module, for mypy to judge; it is never run.

What must be inferred is asserted, and what must be an error carries ``type: ignore`` with its code:
one that is not needed is an error too.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from typing_extensions import assert_type

from phonon_kombu import phonon
from phonon_kombu.errors import LockLost
from phonon_kombu.phonon import connections, field, registry
from phonon_kombu.phonon.connections import Connections
from phonon_kombu.phonon.fields import Sum
from phonon_kombu.phonon.lock import Lock
from phonon_kombu.phonon.model import Model
from phonon_kombu.phonon.reference import Reference
from phonon_kombu.phonon.registry import Registry
from phonon_kombu.thoonk import (
    Change,
    ClaimedJob,
    Feed,
    Job,
    Live,
    Notice,
    PyQueue,
    Queue,
    SortedFeed,
    Stats,
    Subscription,
    Thoonk,
    aio,
)


class Message:
    """Of some bus."""

    def finish(self) -> None: ...


class Session(Model):
    """Every field."""

    TTL = 10
    impressions = field.SumField()
    seconds = field.SumField(float)
    left = field.Diff()
    shortest = field.Min()
    longest = field.Max(float)
    mean = field.Mean()
    times = field.Count()
    visitors = field.CountDistinct()
    sizes = field.Histogram([1, 10])
    log = field.ListAppend()
    pages = field.SetAppendField()
    last = field.WindowedList(5, window_seconds=60)
    best = field.TopN(3)

    def on_complete(self, message: Message) -> None:
        assert_type(self.impressions, int)
        assert_type(self.seconds, float)
        assert_type(self.left, int)
        assert_type(self.shortest, int | None)
        assert_type(self.longest, float | None)
        assert_type(self.mean, float | None)
        assert_type(self.times, int)
        assert_type(self.visitors, int)
        assert_type(self.sizes, list[int])
        assert_type(self.log, list[Any])
        assert_type(self.pages, set[Any])
        assert_type(self.last, list[Any])
        assert_type(self.best, list[Any])
        assert_type(self.as_dict(), dict[str, Any])
        self.impressions + self.shortest  # type: ignore[operator]
        print(self.clicks)  # type: ignore[attr-defined]
        message.finish()

    def message_id(self, *args: Any, **kwargs: Any) -> str:
        return "1"


class Wrong(Model):
    """Declared wrongly."""

    TTL = "soon"  # type: ignore[assignment]
    a = field.Sum(str)  # type: ignore[type-var]
    b = field.ListAppend(max_size="many")  # type: ignore[arg-type]
    c = field.Histogram()  # type: ignore[call-arg]


def models(message: Message) -> None:
    """Records and the registry."""
    assert_type(Session.impressions, Sum[int])
    assert_type(Session.read(1), Session)
    record = Session(id="7", impressions=1)
    record.impressions = 2
    record.impressions = [1, 2]
    record.impressions = None
    record.impressions = True
    record.impressions = 1.5  # type: ignore[assignment]
    record.impressions = "1"  # type: ignore[assignment]
    record.seconds = 1
    record.seconds = 1.5
    record.seconds = [1.5, "x"]  # type: ignore[list-item]
    record.shortest = "1"  # type: ignore[assignment]
    record.mean = "1"  # type: ignore[assignment]
    record.times = "anything"
    record.log = {"any": "JSON"}
    record.pages = "x"
    record.pages = ["x", 1]
    record.pages = object()  # type: ignore[assignment]
    record.visitors = [b"x"]  # type: ignore[list-item]
    record.last = (1.5, "x")
    record.last = [(1, "x"), (2, None)]
    record.last = 1.5  # type: ignore[assignment]
    record.best = 1
    record.best = (1.5, "x")
    record.best = "x"  # type: ignore[assignment]
    record.id = 1.5  # type: ignore[assignment]
    Session("7")  # type: ignore[call-arg]

    registry.register(record, message)
    registry.register("record", message)  # type: ignore[arg-type]
    assert_type(registry.configure(max_entries=10), Registry)
    assert_type(registry.registry.models, dict[str, Model])
    registry.flush(timeout_seconds="1")  # type: ignore[arg-type]
    phonon.registry.close()


async def registering(record: Session, message: Message) -> None:
    """In an event loop."""
    await registry.register_async(record, message)
    await registry.registry.close_async(5)
    registry.register_async(record)  # type: ignore[unused-coroutine]


def servers() -> None:
    """Connections, references, locks."""
    made = connections.connect("phonon+cluster://a,b")
    assert_type(made, Connections)
    connections.connect(["a", "b"], master_name="main", sentinel_kwargs={"password": "x"})
    connections.connect([1])  # type: ignore[list-item]
    connections.connect(port="6379")  # type: ignore[arg-type]
    Connections("a", node_ttl="1")  # type: ignore[arg-type]
    assert_type(made.host_of("x").name, str)

    def last(reference: Reference) -> None:
        assert_type(reference.times_modified(), int)

    with Reference("x", on_last=last, connections=made) as reference:
        assert_type(reference, Reference)
        assert_type(reference.count(), int)
        assert_type(reference.stalled(), dict[str, str])
    assert_type(reference.hold(), int)
    assert_type(reference.finish(), bool)
    Reference("x", on_last=lambda: None)  # type: ignore[arg-type, misc]
    Reference("x", last, "holder")  # type: ignore[call-arg]

    with Lock("x", ttl_seconds=10) as lock:
        assert_type(lock, Lock)
        assert_type(lock.remaining_seconds(), float)
        lock.extend("10")  # type: ignore[arg-type]
    assert_type(lock.acquire(blocking=False), bool)
    try:
        lock.release()
    except LockLost as error:
        assert_type(error, LockLost)


async def locked() -> None:
    """A lock in a coroutine."""
    async with Lock("x") as lock:
        assert_type(lock, Lock)
    assert_type(await lock.acquire_async(), bool)


def feeds(thoonk: Thoonk) -> None:
    """Thoonk's blocking face."""
    with Thoonk("phonon://host/0", prefix="p.") as session:
        assert_type(session, Thoonk)
    Thoonk(port="6379")  # type: ignore[arg-type]
    feed = thoonk.feed("news", {"max_length": 5})
    assert_type(feed, Feed)
    assert_type(feed.publish("item", id="1"), str)
    assert_type(feed.get_ids(), list[str])
    assert_type(feed.get_all(), dict[str, Any])
    assert_type(feed.size(), int)
    assert_type(feed.has_id("1"), bool)
    feed.publish()  # type: ignore[call-arg]
    feed.publish("item", id=1)  # type: ignore[arg-type]
    feed.append("item")  # type: ignore[attr-defined]
    assert_type(thoonk.get_feeds(), set[str])
    assert_type(thoonk.get_config("news"), dict[str, Any])

    ordered = thoonk.sorted_feed("todo", interop=True)
    assert_type(ordered, SortedFeed)
    assert_type(ordered.append("item"), str)
    ordered.move("1", ":end")
    ordered.move("1")  # type: ignore[call-arg]
    assert_type(thoonk.list("todo"), SortedFeed)

    queue = thoonk.queue("q")
    assert_type(queue, Queue)
    queue.put("item", priority=queue.HIGH)
    queue.put("item", priority=1)  # type: ignore[arg-type]
    queue.get(timeout="1")  # type: ignore[arg-type]
    assert_type(thoonk.pyqueue("q"), PyQueue)

    job = thoonk.job("jobs")
    assert_type(job, Job)
    assert_type(job.put("item", delay_seconds=1), str)
    claimed = job.get(timeout=1)
    assert_type(claimed, ClaimedJob)
    assert_type(claimed.cancelled, int)
    job.finish(claimed.id, "result", result=True)
    job.finish(claimed)  # type: ignore[arg-type]
    assert_type(job.stats(), Stats)
    assert_type(job.paused, bool)

    def handler(feed: str, item: str, id: str) -> None: ...

    thoonk.register_handler("publish", handler)
    thoonk.register_handler("publish", "handler")  # type: ignore[arg-type]
    with thoonk.listen("publish", feed="news") as notices:
        assert_type(notices, Subscription)
        for notice in notices:
            assert_type(notice, Notice)
    with feed.live(lambda item: bool(item)) as live:
        assert_type(live, Live)
        for change in live:
            assert_type(change, Change)


async def aio_feeds() -> None:
    """The same, to be awaited."""
    async with aio.Thoonk("phonon://host/0") as thoonk:
        assert_type(thoonk, aio.Thoonk)
        feed = await thoonk.feed("news")
        assert_type(feed, aio.Feed)
        assert_type(await feed.publish("item", id="1"), str)
        assert_type(feed.get_ids(), Awaitable[list[str]])
        feed.publish("item", id=1)  # type: ignore[arg-type]
        [*feed.get_ids()]  # type: ignore[misc]
        ordered = await thoonk.sorted_feed("todo")
        assert_type(ordered, aio.SortedFeed)
        assert_type(await ordered.append("item"), str)
        assert_type(await thoonk.list("todo"), aio.SortedFeed)
        queue = await thoonk.queue("q")
        await queue.put("item", priority=queue.HIGH)
        assert_type(await thoonk.pyqueue("q"), aio.PyQueue)
        job = await thoonk.job("jobs")
        claimed = await job.get(timeout=1)
        assert_type(claimed, ClaimedJob)
        await job.finish(claimed.id)
        await job.finish(1)  # type: ignore[arg-type]
        assert_type(await job.paused, bool)

        async def handler(feed: str, item: str, id: str) -> None: ...

        await thoonk.register_handler("publish", handler)
        async with thoonk.listen("publish") as notices:
            assert_type(notices, aio.Subscription)
            async for notice in notices:
                assert_type(notice, Notice)
            print([*notices])  # type: ignore[misc]
        async with feed.live() as live:
            assert_type(live, aio.Live)
            async for change in live:
                assert_type(change, Change)
