"""The asyncio face: the same names, the same behaviour, side by side with the blocking one."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

import phonon_kombu.thoonk as blocking_room
from phonon_kombu.errors import (
    ConfigurationError,
    Exists,
    FeedExists,
    FeedNotFound,
    ItemNotFound,
    LayoutMismatch,
)
from phonon_kombu.store.scripts import load
from phonon_kombu.thoonk import aio, subscription
from tests.reference import FEEDS
from tests.servers import RedisServer, free_port, start_server
from tests.topologies import SentinelSetup, TlsServer

from .lossy import LossyLine
from .test_events import EXPECTED, everything

Body = Callable[[aio.Thoonk], Awaitable[None]]


def session(url: str, body: Body, **options: Any) -> None:
    """Run `body` with a session in an event loop of its own."""

    async def main() -> None:
        async with aio.Thoonk(url, **options) as thoonk:
            await body(thoonk)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_the_same_names() -> None:
    """Every public method of the blocking classes is there, with the same arguments."""
    for name in ("Thoonk", "Feed", "SortedFeed", "Queue", "PyQueue", "Job", "Live", "Subscription"):
        ours, theirs = getattr(aio, name), getattr(blocking_room, name)
        for method in dir(theirs):
            if method.startswith("_") or not callable(getattr(theirs, method)):
                continue
            if method in FEEDS.internal:
                continue
            assert hasattr(ours, method), f"{name}.{method}"
            wanted, found = (
                list(inspect.signature(getattr(kind, method)).parameters) for kind in (theirs, ours)
            )
            assert found == [n for n in wanted if n != "timeout_seconds"], f"{name}.{method}"
    assert set(aio.__all__) <= set(blocking_room.__all__)


def test_feeds(url: str, thoonk: blocking_room.Thoonk) -> None:
    async def body(mine: aio.Thoonk) -> None:
        await mine.create_feed("f", {"max_length": 3})
        with pytest.raises(FeedExists):
            await mine.create_feed("f")
        feed = await mine.feed("f")
        assert feed is await mine.feed("f")
        for n in range(5):
            assert await feed.publish(f"item {n}", id=str(n)) == str(n)
        assert await feed.get_ids() == ["2", "3", "4"]
        assert await feed.get_all() == await feed.get_items() == thoonk.feed("f").get_all()
        assert await feed.get_item("4") == "item 4" and await feed.size() == 3
        await feed.retract("4")
        assert not await feed.has_id("4")
        with pytest.raises(ItemNotFound):
            await feed.retract("4")
        assert await mine.get_config("f") == {"type": "feed", "max_length": 3}
        await mine.set_config("f", {"max_length": 1})
        assert await feed.get_ids() == ["3"]
        assert await mine.get_feeds() == {"f"} and await mine.feed_exists("f")
        await mine.delete_feed("f")
        with pytest.raises(FeedNotFound):
            await feed.publish("x")
        with pytest.raises(ConfigurationError):
            await mine.feed("")
        data = await mine.feed("data", serializer="json")
        await data.publish({"a": 1}, id="a")
        assert thoonk.feed("data").get_item("a") == {"a": 1}

    session(url, body)


@pytest.mark.parametrize("interop", [False, True])
def test_sorted_feeds(url: str, thoonk: blocking_room.Thoonk, interop: bool) -> None:
    async def body(mine: aio.Thoonk) -> None:
        feed = await mine.list("s", interop=interop)
        assert [await feed.append("a"), await feed.publish("b")] == ["1", "2"]
        assert await feed.prepend("c", id="c") == "c"
        await feed.publish_before("2", "d", id="d")
        await feed.publish_after("2", "e", id="e")
        assert await feed.get_ids() == ["c", "1", "d", "2", "e"]
        await feed.move(":1", "e")
        await feed.move_last("c")
        await feed.move_first("2")
        await feed.move_before("2", "d")
        await feed.move_after("2", "1")
        await feed.edit("1", "A")
        await feed.retract("c")
        assert await feed.get_all() == {"d": "d", "2": "b", "1": "A", "e": "e"}
        assert thoonk.sorted_feed("s").get_all() == await feed.get_all()
        with pytest.raises(Exists):
            await feed.append("another", id="d")

    session(url, body)


def test_queues(url: str, thoonk: blocking_room.Thoonk) -> None:
    async def body(mine: aio.Thoonk) -> None:
        queue, data = await mine.queue("q"), await mine.pyqueue("p")
        await queue.put("item")
        await queue.put("first", priority=queue.HIGH)
        assert await queue.size() == 2
        assert [await queue.get(), await queue.get(timeout=5)] == ["first", "item"]
        for timeout in (0, 0.3):
            started = time.monotonic()
            with pytest.raises(aio.Empty):
                await queue.get(timeout=timeout)
            assert timeout <= time.monotonic() - started < timeout + 3
        waiting = [asyncio.create_task(queue.get(timeout=20)) for _ in range(5)]
        await asyncio.sleep(0.1)
        for n in range(5):
            await asyncio.to_thread(thoonk.queue("q").put, str(n))
        assert sorted(await asyncio.gather(*waiting)) == list("01234")
        await data.put({"a": [1]})
        assert await data.get(timeout=5) == {"a": [1]}

    session(url, body)


def test_many_tasks_share_a_session(url: str) -> None:
    async def body(mine: aio.Thoonk) -> None:
        feed = await mine.feed("f")
        await asyncio.gather(*(feed.publish(str(n), id=str(n)) for n in range(200)))
        assert await feed.get_ids() == [str(n) for n in range(200)]

    session(url, body)


# Notices --------------------------------------------------------------------------------------


def test_handlers(url: str, thoonk: blocking_room.Thoonk) -> None:
    """Functions and coroutine functions."""

    async def body(mine: aio.Thoonk) -> None:
        told: list[tuple[Any, ...]] = []
        enough = asyncio.Event()

        def note(kind: str) -> Any:
            def function(*given: Any) -> None:
                told.append((kind, *given))
                if len(told) == len(EXPECTED):
                    enough.set()

            async def coroutine(*given: Any) -> None:
                await asyncio.sleep(0)
                function(*given)

            return coroutine if kind in ("edit", "create") else function

        handlers = {kind: note(kind) for kind in dict.fromkeys(entry[0] for entry in EXPECTED)}
        for kind, handler in handlers.items():
            await mine.register_handler(f"{kind}_notice", handler)
        await mine.register_handler("publish", lambda *given: 1 / 0)
        await asyncio.to_thread(everything, thoonk)
        await asyncio.wait_for(enough.wait(), 20)
        assert told == EXPECTED
        await mine.remove_handler("publish", handlers["publish"])
        with pytest.raises(ConfigurationError):
            await mine.remove_handler("publish", handlers["publish"])
        await mine.register_handler("retract", handlers["retract"], feed="g")
        feed = await mine.feed("g")
        await feed.retract(await feed.publish("x", id="b"))
        while told[-2:] != [("retract", "g", "b")] * 2:
            await asyncio.sleep(0.01)
        assert told[len(EXPECTED) :] == [("create", "g"), *told[-2:]]

    session(url, body)


def test_listen(url: str, thoonk: blocking_room.Thoonk) -> None:
    async def body(mine: aio.Thoonk) -> None:
        async with mine.listen("publish", "retract", feed="f") as notices:
            await asyncio.to_thread(everything, thoonk)
            heard = []
            async for notice in notices:
                heard.append((notice.kind, notice.id))
                if notice.kind == "retract":
                    break
            assert heard == [("publish", "a"), ("retract", "a")]
            with pytest.raises(aio.Empty):
                await notices.get(timeout=0.1)
            waiting = asyncio.create_task(notices.get())
            await asyncio.sleep(0.05)
            waiting.cancel()
            feed = await mine.feed("f")
            await feed.publish("x", id="after a cancelled wait")
            assert (await notices.get(timeout=5)).id == "after a cancelled wait"

    session(url, body)


def test_a_lost_connection_is_a_gap(
    line: LossyLine, thoonk: blocking_room.Thoonk, redis_db: str
) -> None:
    async def body(mine: aio.Thoonk) -> None:
        feed = await mine.feed("f")
        await feed.publish("x", id="0")
        gaps: list[float] = []
        await mine.register_handler("gap", gaps.append)
        async with mine.listen("publish") as notices, feed.live() as live:
            assert (await live.get(5)).id == "0"
            line.cut()
            gap = await notices.get(timeout=10)
            assert gap.kind == "gap" and gap.seconds is not None
            await asyncio.to_thread(thoonk.feed("f").publish, "x", "1")
            assert (await notices.get(timeout=5)).id == "1"
            assert (await live.get(timeout=10)).id == "1"
            while not gaps:
                await asyncio.sleep(0.01)

    session(f"phonon://127.0.0.1:{line.port}/0", body)


def test_a_server_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "PING_SECONDS", 0.2)
    monkeypatch.setattr(subscription, "PATIENCE_SECONDS", 1.0)

    async def body(mine: aio.Thoonk) -> None:
        async with mine.listen("publish") as notices:
            with pytest.raises(aio.Empty):
                await notices.get(timeout=1.5)
            server.pause()
            try:
                with pytest.raises(aio.Empty):
                    await notices.get(timeout=2)
            finally:
                server.resume()
            assert (await notices.get(timeout=20)).kind == "gap"

    with start_server() as server:
        session(server.url("phonon"), body)


def test_live(url: str, thoonk: blocking_room.Thoonk) -> None:
    async def body(mine: aio.Thoonk) -> None:
        feed = await mine.sorted_feed("s")
        await feed.append("urgent a", id="a")
        await feed.append("b", id="b")
        async with feed.live(lambda item: item.startswith("urgent")) as live:
            seen = []
            async for change in live:
                seen.append((change.kind, change.id))
                if len(seen) == 1:
                    await asyncio.to_thread(thoonk.sorted_feed("s").edit, "b", "urgent b")
                    await feed.move_first("b")
                    await feed.retract("a")
                if change.kind == "retract":
                    break
        assert seen == [("item", "a"), ("publish", "b"), ("position", "b"), ("retract", "a")]

    session(url, body)


# Lines that break, servers of all kinds ---------------------------------------------------------


@pytest.mark.parametrize("before", [True, False])
def test_replies_are_lost(line: LossyLine, thoonk: blocking_room.Thoonk, before: bool) -> None:
    async def body(mine: aio.Thoonk) -> None:
        feed, queue = await mine.feed("f"), await mine.queue("q")
        for _ in range(2):
            await feed.retract(await feed.publish("x"))
            await queue.put("x")
            await queue.get(timeout=5)
        line.lose(load("feed/publish").sha.encode(), before=before)
        made = await feed.publish("x")
        line.lose(load("feed/retract").sha.encode(), before=before)
        await feed.retract(made)
        assert line.lost == 2 and await feed.get_ids() == []
        for item in ("a", "b"):
            await queue.put(item)
        line.cut()
        assert await queue.get(timeout=5) == "a"
        line.lose(load("queue/get").sha.encode(), before=before)
        with pytest.raises(redis.ConnectionError):
            await queue.get(timeout=5)
        assert await queue.size() == (1 if before else 0)

    session(f"phonon://127.0.0.1:{line.port}/0", body)


def test_scripts_that_the_server_has_forgotten(url: str, redis_client: redis.Redis) -> None:
    async def body(mine: aio.Thoonk) -> None:
        feed = await mine.feed("f")
        for n in range(3):
            await feed.publish("x", id=str(n))
            redis_client.script_flush()
        assert await feed.get_ids() == ["0", "1", "2"]
        redis_client.script_flush()
        await mine.create_feed("g")

    session(url, body)


def test_a_cancelled_command_does_not_give_its_reply_to_another(url: str) -> None:
    async def body(mine: aio.Thoonk) -> None:
        feed = await mine.feed("f")
        for n in range(50):
            await feed.publish(f"item {n}", id=str(n))
            reading = asyncio.create_task(feed.get_item("0"))
            await asyncio.sleep(0 if n % 2 else 0.0005)
            reading.cancel()
            assert await feed.get_item(str(n)) == f"item {n}"

    session(url, body)


def test_addresses(redis_server: RedisServer, redis_db: str, tmp_path: Path) -> None:
    async def works(**options: Any) -> bool:
        async with aio.Thoonk(**options) as mine:
            feed = await mine.feed("works")
            await feed.publish("x", id="a")
            assert "secret" not in repr(mine)
            return await feed.get_item("a") == "x"

    async def main() -> None:
        assert await works(host="127.0.0.1", port=redis_server.port, db=0, socket_timeout=0.5)
        assert await works(url=redis_server.url("redis"))
        client = redis.asyncio.Redis(port=redis_server.port, decode_responses=True)
        assert await works(client=client)
        await client.aclose()
        for wrong in (redis.Redis(), object()):
            with pytest.raises(ConfigurationError, match=r"redis\.asyncio"):
                aio.Thoonk(client=wrong)
        with pytest.raises(redis.ConnectionError):
            await works(host="127.0.0.1", port=free_port(), retry=None)
        with TlsServer() as server:
            authority = server.certificates.ca
            assert await works(url=f"{server.url('phonons')}?ssl_ca_certs={authority}")
        with RedisServer() as server:
            assert await works(url=f"phonon+socket://{server.socket_path}?db=2")
        with SentinelSetup() as setup:
            sentinel = redis.asyncio.Sentinel([("127.0.0.1", s.port) for s in setup.sentinels])
            assert await works(client=sentinel.master_for(setup.master_name))
        redis_server.client().set("phonon.layout", "99")
        with pytest.raises(LayoutMismatch):
            await works(host="127.0.0.1", port=redis_server.port)

    asyncio.run(main())


class Wishlist(aio.SortedFeed):
    """A sorted feed that knows one more thing."""

    async def wish(self, what: str) -> str:
        return await self.append(f"a {what}")


def test_a_type_of_ones_own(url: str) -> None:
    async def body(mine: aio.Thoonk) -> None:
        mine.register_feedtype("wishlist", Wishlist)
        wishes = await mine.wishlist("birthday")
        await wishes.wish("pony")
        assert await wishes.get_all() == {"1": "a pony"}
        assert await mine.get_config("birthday") == {"type": "wishlist", "order": "links"}

    session(url, body)
