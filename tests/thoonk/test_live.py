"""Live queries: what is there, then every change, nothing twice and nothing missed."""

from __future__ import annotations

import asyncio
import threading
import time
from queue import Empty
from typing import Any

import pytest
import redis

from phonon_kombu.thoonk import Change, Thoonk, aio
from tests.servers import RedisServer, wait_for

from .lossy import LossyLine


def urgent(item: str) -> bool:
    """What most queries here want."""
    return item.startswith("urgent")


def test_items_then_changes(thoonk: Thoonk, other: Thoonk) -> None:
    feed = thoonk.feed("f")
    for id, item in (("c", "urgent c"), ("a", "a"), ("b", "urgent b")):
        feed.publish(item, id=id)
    with other.feed("f").live(urgent) as changes:
        assert [changes.get(5), changes.get(5)] == [
            Change("item", "c", "urgent c"), Change("item", "b", "urgent b"),
        ]  # fmt: skip
        with pytest.raises(Empty):
            changes.get(timeout=0.1)
        feed.publish("urgent d", id="d")
        feed.publish("e", id="e")
        feed.publish("urgent a", id="a")
        feed.publish("urgent b, very", id="b")
        feed.publish("not any more", id="c")
        feed.retract("e")
        feed.retract("d")
        thoonk.delete_feed("f")
        assert [changes.get(5) for _ in range(7)] == [
            Change("publish", "d", "urgent d"),
            Change("publish", "a", "urgent a"),
            Change("edit", "b", "urgent b, very"),
            Change("retract", "c"),
            Change("retract", "d"),
            Change("retract", "b"),
            Change("retract", "a"),
        ]
    with pytest.raises(Empty, match="closed"):
        changes.get()


def test_a_sorted_feed(thoonk: Thoonk) -> None:
    feed = thoonk.sorted_feed("s", serializer="json")
    for n in range(3):
        feed.append({"n": n}, id=str(n))
    feed.move_first("2")
    changes = feed.live(lambda item: item["n"] != 1)
    assert [changes.get(5).id for _ in range(2)] == ["2", "0"]
    feed.move_last("1")
    feed.move_last("2")
    feed.edit("1", {"n": 7})
    feed.publish_after("1", {"n": 1}, id="x")
    feed.prepend({"n": 9}, id="y")
    assert [changes.get(5) for _ in range(4)] == [
        Change("position", "2", position=":end"),
        Change("publish", "1", {"n": 7}),
        Change("publish", "y", {"n": 9}),
        Change("position", "y", position="begin:"),
    ]
    changes.close()


def test_nothing_is_missed_or_told_twice_while_others_write(
    thoonk: Thoonk, other: Thoonk, redis_server: RedisServer
) -> None:
    """Queries that begin in the middle of it all end up with what is there."""
    count = 60 if redis_server.is_fake else 600
    feed = other.feed("f")
    for n in range(count):
        feed.publish("urgent 0", id=str(n))
    stop = threading.Event()

    def write() -> None:
        mine = other.feed("f")
        round = 0
        while not stop.is_set():
            round += 1
            for n in range(round % 3, count, 7):
                mine.publish(f"{'urgent' if (n + round) % 2 else 'calm'} {round}", id=str(n))
            mine.publish("urgent", id=f"new {round}")
            if round > 5:
                mine.retract(f"new {round - 5}")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        queries = []
        for _ in range(5):
            query = thoonk.feed("f").live(urgent)
            items: dict[str, str] = {}
            queries.append((query, items))
            apply(query, items, 20)
    finally:
        stop.set()
        writer.join()
    expected = {id: item for id, item in feed.get_all().items() if urgent(item)}
    for query, items in queries:
        deadline = time.monotonic() + 20
        while items != expected and time.monotonic() < deadline:
            apply(query, items, 1)
        assert items == expected
        with pytest.raises(Empty):
            query.get(timeout=0.05)
        query.close()


def apply(query: Any, items: dict[str, str], count: int) -> None:
    """Follow some changes; each makes sense where it comes."""
    for _ in range(count):
        change = query.get(timeout=10)
        if change.kind == "retract":
            del items[change.id]
        else:
            assert (change.kind == "edit") == (change.id in items), change
            items[change.id] = change.item


def test_after_a_lost_connection_it_tells_what_has_changed(
    far: Thoonk, thoonk: Thoonk, line: LossyLine, redis_client: redis.Redis
) -> None:
    feed = thoonk.feed("f")
    for id in "abc":
        feed.publish(f"urgent {id}", id=id)
    changes = far.feed("f").live(urgent)
    assert [changes.get(5).id for _ in range(3)] == ["a", "b", "c"]
    line.cut()
    wait_for(lambda: redis_client.pubsub_numsub("feed.mark:{f}")[0][1] == 0)
    feed.retract("a")
    feed.publish("urgent b, edited", id="b")
    feed.publish("urgent d", id="d")
    assert sorted([changes.get(10) for _ in range(3)], key=lambda change: change.id) == [
        Change("retract", "a"), Change("edit", "b", "urgent b, edited"),
        Change("publish", "d", "urgent d"),
    ]  # fmt: skip
    feed.publish("urgent e", id="e")
    assert changes.get(5) == Change("publish", "e", "urgent e")
    changes.close()


def test_what_was_moved_while_the_connection_was_lost(
    far: Thoonk, thoonk: Thoonk, line: LossyLine, redis_client: redis.Redis
) -> None:
    """Each item is moved to the end, in their order: however it was, that is how it is now."""
    feed = thoonk.sorted_feed("s")
    for id in "abc":
        feed.append("urgent", id=id)
    changes = far.sorted_feed("s").live(urgent)
    order = [changes.get(5).id for _ in range(3)]
    line.cut()
    wait_for(lambda: redis_client.pubsub_numsub("feed.mark:{s}")[0][1] == 0)
    feed.move_first("c")
    feed.publish_after("c", "urgent", id="d")
    while order != feed.get_ids():
        change = changes.get(5)
        if change.kind == "position":
            assert change.position == ":end"
            order.remove(change.id)
        order.append(change.id)
    changes.close()


def test_items_that_cannot_be_read_are_told_as_they_are(
    thoonk: Thoonk, redis_client: redis.Redis
) -> None:
    feed = thoonk.feed("f", serializer="json")
    feed.publish(1, id="a")
    redis_client.hset("feed.items:{f}", "a", "no json")
    with feed.live() as changes:
        assert changes.get(5) == Change("item", "a", b"no json")


def test_the_order_cannot_be_had_at_first(far: Thoonk, thoonk: Thoonk, line: LossyLine) -> None:
    """The next call asks again: no item is lost with the error."""
    feed = thoonk.feed("f")
    feed.publish("x", id="a")
    with far.feed("f").live() as changes:
        line.lose(b"ZRANGEBYSCORE", times=2, before=True)
        with pytest.raises(redis.ConnectionError):
            changes.get(5)
        assert changes.get(5) == Change("item", "a", "x")
        feed.publish("y", id="b")
        assert changes.get(5) == Change("publish", "b", "y")

    async def body() -> None:
        async with aio.Thoonk("127.0.0.1", line.port) as session:
            changes = (await session.feed("f")).live()
            line.lose(b"ZRANGEBYSCORE", times=2, before=True)
            with pytest.raises(redis.ConnectionError):
                await changes.get(5)
            assert [(await changes.get(5)).id for _ in range(2)] == ["a", "b"]
            await changes.close()

    asyncio.run(asyncio.wait_for(body(), 20))


def test_a_match_that_fails_is_logged_and_matches_nothing(
    thoonk: Thoonk, caplog: pytest.LogCaptureFixture
) -> None:
    feed = thoonk.feed("f", serializer="json")
    for id, item in (("a", {}), ("b", {"n": 1})):
        feed.publish(item, id=id)
    with feed.live(lambda item: item["n"] == 1) as changes:
        assert changes.get(5) == Change("item", "b", {"n": 1})
        feed.publish({}, id="b")
        feed.publish({"n": 1}, id="a")
        assert changes.get(5) == Change("retract", "b")
        assert changes.get(5) == Change("publish", "a", {"n": 1})
    assert caplog.text.count("KeyError: 'n'") == 2
