"""Sorted feeds: places, refusals, the links that keep the order, and the contract's list."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import redis

from phonon_kombu.errors import ConfigurationError, Exists, FeedNotFound, ItemNotFound
from phonon_kombu.store.scripts import load
from phonon_kombu.thoonk import SortedFeed, Thoonk
from tests.servers import RedisServer

from .lossy import LossyLine


@pytest.fixture(params=["links", "list"])
def sorted_feed(thoonk: Thoonk, request: pytest.FixtureRequest) -> SortedFeed:
    """A sorted feed, whichever way its order is kept."""
    return thoonk.sorted_feed("s", interop=request.param == "list")


def links(client: redis.Redis, name: str = "s", atomic: bool = True) -> list[str]:
    """The ids of a feed in their order; the links lead both ways, and to each item once."""
    with client.pipeline(transaction=atomic) as pipe:
        pipe.hgetall(f"feed.next:{{{name}}}")
        pipe.hgetall(f"feed.previous:{{{name}}}")
        pipe.hkeys(f"feed.items:{{{name}}}")
        following, previous, keys = pipe.execute()
    assert {right: left for left, right in following.items()} == previous
    found, id = [], following.get(b"", b"")
    while id:
        found.append(id.decode())
        id = following[id]
    items = {key.decode() for key in keys}
    assert len(found) == len(following) - bool(following) and set(found) == items
    return found


def test_ids_are_numbers_unless_given(sorted_feed: SortedFeed) -> None:
    assert sorted_feed.append("a") == "1"
    assert sorted_feed.prepend("b", id="2") == "2"
    assert sorted_feed.append("c") == "3"
    assert sorted_feed.get_ids() == ["2", "1", "3"]
    assert sorted_feed.append("b", id="2") == "2"
    with pytest.raises(Exists):
        sorted_feed.append("another", id="2")
    assert sorted_feed.get_all() == {"2": "b", "1": "a", "3": "c"} and sorted_feed.size() == 3


def test_edit_is_in_place(sorted_feed: SortedFeed) -> None:
    for item in "abc":
        sorted_feed.append(item, id=item)
    sorted_feed.edit("b", "B")
    assert sorted_feed.get_items() == {"a": "a", "b": "B", "c": "c"}
    sorted_feed.retract("b")
    assert sorted_feed.get_ids() == ["a", "c"]
    for act in (sorted_feed.retract, sorted_feed.get_item, lambda id: sorted_feed.edit(id, "x")):
        with pytest.raises(ItemNotFound):
            act("b")


def test_places_that_are_not_there(sorted_feed: SortedFeed) -> None:
    sorted_feed.append("x", id="x")
    for act in (
        lambda: sorted_feed.publish_before("nobody", "y"),
        lambda: sorted_feed.publish_after("nobody", "y"),
        lambda: sorted_feed.move_before("nobody", "x"),
        lambda: sorted_feed.move_after("x", "nobody"),
        lambda: sorted_feed.move_first("nobody"),
        lambda: sorted_feed.move(":end", "nobody"),
    ):
        with pytest.raises(ItemNotFound):
            act()
    for wrong in ("", ":", "x", "begin", "end", ": ".strip(), None, 5):
        with pytest.raises(ConfigurationError):
            sorted_feed.move(wrong, "x")  # type: ignore[arg-type]
    sorted_feed.move(":x", "x")  # it stands there already
    assert sorted_feed.get_ids() == ["x"] and sorted_feed.size() == 1


def test_notices(sorted_feed: SortedFeed, other: Thoonk) -> None:
    with other.listen(feed="s") as notices:
        sorted_feed.append("a", id="a")
        sorted_feed.prepend("b", id="b")
        sorted_feed.publish_before("a", "c", id="c")
        sorted_feed.publish_after("a", "d", id="d")
        sorted_feed.edit("a", "A")
        sorted_feed.move("d:", "b")
        sorted_feed.move_first("a")
        sorted_feed.retract("a")
        heard = [notices.get(5) for _ in range(12)]
    assert [(n.kind, n.id, n.item or n.position) for n in heard] == [
        ("publish", "a", "a"), ("position", "a", ":end"),
        ("publish", "b", "b"), ("position", "b", "begin:"),
        ("publish", "c", "c"), ("position", "c", ":a"),
        ("publish", "d", "d"), ("position", "d", "a:"),
        ("edit", "a", "A"), ("position", "b", "d:"), ("position", "a", "begin:"),
        ("retract", "a", None),
    ]  # fmt: skip


def test_an_empty_feed_leaves_nothing_that_grows(thoonk: Thoonk, redis_client: redis.Redis) -> None:
    """Only the ring's ends, which say that it is empty."""
    feed = thoonk.sorted_feed("s")
    for _ in range(3):
        feed.retract(feed.append("x"))
    assert links(redis_client) == [] and feed.get_ids() == []
    assert redis_client.hgetall("feed.next:{s}") in ({}, {b"": b""})


def test_inserting_at_the_same_place_without_end(
    thoonk: Thoonk, redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    """No precision to run out of, wherever the place is; each insert is as cheap as the first."""
    count = 500 if redis_server.is_fake else 100_000
    feed = thoonk.sorted_feed("s")
    feed.append("x", id="first")
    feed.append("x", id="last")
    script, told = feed._ordering("insert"), (b"p", b"q", b"r", b"sorted_feed")
    for start in range(0, count, 500):
        thoonk.link.send(
            [
                (script, (b"%d" % n, b"x", b"after", b"first", *told))
                for n in range(start, start + 500)
            ]
        )
    expected = ["first", *map(str, reversed(range(count))), "last"]
    assert links(redis_client) == expected
    assert feed.get_ids() == expected


def test_numbers_that_are_taken_are_stepped_over(thoonk: Thoonk, redis_client: redis.Redis) -> None:
    """However many of them in a row."""
    feed = thoonk.sorted_feed("s")
    redis_client.hset("feed.items:{s}", mapping={str(n): "x" for n in range(1, 2002)})
    assert feed.append("x") == "2002"


def commands(client: redis.Redis) -> int:
    """How many commands the server has run, in scripts or not."""
    info: dict[str, Any] = client.info("stats")  # type: ignore[assignment]
    return int(info.get("total_commands_processed", 0))


def test_a_move_costs_the_same_however_long_the_feed_is(
    thoonk: Thoonk, redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    """Counted in commands; all of them take constant time."""
    feed = thoonk.sorted_feed("s")
    costs = []
    for length in (10, 1000):
        while feed.size() < length:
            feed.append("x")
        ids = feed.get_ids()
        feed.move_before(ids[2], ids[-2])
        before = commands(redis_client)
        feed.move_before(ids[1], ids[-3])
        feed.publish_after(ids[4], "x")
        feed.retract(ids[5])
        costs.append(commands(redis_client) - before)
    # fakeredis does not count them.
    assert costs[0] == costs[1] and (costs[0] < 60 or redis_server.is_fake)


def test_long_feeds_are_read_in_slices_while_they_are_rearranged(
    thoonk: Thoonk, other: Thoonk
) -> None:
    """Every item that is there is listed, once."""
    feed = thoonk.sorted_feed("s")
    ids = {feed.append("x") for _ in range(1200)}
    assert feed.get_ids() == sorted(ids, key=int)
    stop = threading.Event()

    def rearrange() -> None:
        mine = other.sorted_feed("s")
        while not stop.is_set():
            mine.move_first("1100")
            mine.move_last("100")
            mine.move_after("600", "1100")

    mover = threading.Thread(target=rearrange)
    mover.start()
    try:
        for _ in range(20):
            found = feed.get_ids()
            assert len(found) == len(set(found)) and set(found) == ids
    finally:
        stop.set()
        mover.join()


def test_two_who_insert_and_move_at_once(
    thoonk: Thoonk, other: Thoonk, redis_client: redis.Redis
) -> None:
    thoonk.sorted_feed("s").append("x", id="middle")

    def work(session: Thoonk, name: str) -> None:
        feed = session.sorted_feed("s")
        for n in range(100):
            feed.publish_before("middle", "x", id=f"{name}{n}")
            feed.move_after("middle", f"{name}{n // 2}")

    threads = [threading.Thread(target=work, args=pair) for pair in ((thoonk, "a"), (other, "b"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(links(redis_client)) == 201


def test_a_deleted_feed(sorted_feed: SortedFeed, other: Thoonk) -> None:
    sorted_feed.append("x")
    other.delete_feed("s")
    with pytest.raises(FeedNotFound):
        sorted_feed.append("x")


@pytest.mark.parametrize("before", [True, False])
def test_replies_are_lost(far: Thoonk, thoonk: Thoonk, line: LossyLine, before: bool) -> None:
    """With an id it is inserted once; without one the caller is told; the rest is repeated."""
    feed, near = far.sorted_feed("s"), thoonk.sorted_feed("s")
    feed.append("x", id="a")
    line.lose(load("sorted_feed/insert").sha.encode(), before=before)
    feed.append("x", id="b")
    assert near.get_ids() == ["a", "b"]
    line.lose(load("sorted_feed/insert").sha.encode(), before=before)
    with pytest.raises(redis.ConnectionError):
        feed.append("y")
    assert near.size() == (2 if before else 3)
    feed.move_last("a")
    line.lose(load("sorted_feed/move").sha.encode(), before=before)
    feed.move_first("b")
    assert near.get_ids()[0] == "b"
    feed.append("x", id="c")
    feed.retract("c")
    line.lose(load("sorted_feed/retract").sha.encode(), before=before)
    feed.retract("b")
    assert not near.has_id("b") and line.lost == 4


# The contract's list --------------------------------------------------------------------------


def test_a_peer_of_the_contract(thoonk: Thoonk, redis_client: redis.Redis) -> None:
    feed = thoonk.sorted_feed("s", interop=True)
    feed.append("ours")
    assert redis_client.lrange("feed.ids:{s}", 0, -1) == [b"1"]
    assert redis_client.incr("feed.idincr:{s}") == 2
    with redis_client.pipeline() as pipe:
        pipe.linsert("feed.ids:{s}", "BEFORE", "1", "2")
        pipe.hset("feed.items:{s}", "2", "theirs")
        pipe.execute()
    feed.move_last("2")
    feed.publish_after("2", "ours too")
    assert feed.get_all() == {"1": "ours", "2": "theirs", "3": "ours too"}
    assert redis_client.lrange("feed.ids:{s}", 0, -1) == [b"1", b"2", b"3"]


def test_a_feed_that_a_peer_has_made(thoonk: Thoonk, redis_client: redis.Redis) -> None:
    """Its order is a list, whatever we would have made."""
    redis_client.hset("feed.config:{s}", "type", "sorted_feed")
    redis_client.rpush("feed.ids:{s}", "1", "2")
    redis_client.hset("feed.items:{s}", mapping={"1": "a", "2": "b"})
    feed = thoonk.sorted_feed("s")
    assert feed.interop
    feed.move_first("2")
    assert feed.get_all() == {"2": "b", "1": "a"}


def test_the_order_is_decided_once(thoonk: Thoonk, other: Thoonk) -> None:
    assert not thoonk.sorted_feed("links").interop and thoonk.list("list", interop=True).interop
    assert not other.sorted_feed("links").interop and other.sorted_feed("list").interop
    for name, wrong in (("links", True), ("list", False)):
        with pytest.raises(ConfigurationError, match="interop"):
            other.sorted_feed(name, interop=wrong)
