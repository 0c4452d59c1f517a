"""Feeds: order, limits, items of all kinds, peers, and lines that break."""

from __future__ import annotations

import datetime
import pickle
from typing import Any

import pytest
import redis

from phonon_kombu.errors import (
    ConfigurationError,
    FeedNotFound,
    ItemNotFound,
    MalformedItem,
)
from phonon_kombu.store.scripts import load
from phonon_kombu.thoonk import Thoonk
from phonon_kombu.thoonk.feed import SLICE

from .lossy import LossyLine


def test_the_order_is_that_of_publishing_not_of_the_clock(
    thoonk: Thoonk, redis_client: redis.Redis
) -> None:
    """However many in a millisecond, and behind what a peer's clock, an hour ahead, has written."""
    feed = thoonk.feed("f")
    ids = [feed.publish("x") for _ in range(200)]
    assert feed.get_ids() == ids
    ahead = 2e12 * 2
    redis_client.zadd("feed.ids:{f}", {"theirs": ahead})
    redis_client.hset("feed.items:{f}", "theirs", "x")
    later = [feed.publish("x") for _ in range(200)]
    feed.publish("edited", id=ids[0])
    assert feed.get_ids() == [*ids[1:], "theirs", *later, ids[0]]


def test_max_length(thoonk: Thoonk, redis_client: redis.Redis) -> None:
    feed = thoonk.feed("f", {"max_length": 3})
    with thoonk.listen(feed="f") as notices:
        for n in range(5):
            feed.publish(str(n), id=f"i{n}")
        feed.publish("edited", id="i2")
        heard = [notices.get(5) for _ in range(8)]
    assert [f"{n.kind} {n.id}" for n in heard] == [
        "publish i0", "publish i1", "publish i2", "retract i0", "publish i3", "retract i1",
        "publish i4", "edit i2",
    ]  # fmt: skip
    assert feed.get_all() == {"i3": "3", "i4": "4", "i2": "edited"}
    assert redis_client.get("feed.publishes:{f}") == b"6"


def test_a_smaller_max_length_trims_at_once_in_slices(thoonk: Thoonk) -> None:
    feed = thoonk.feed("f")
    ids = [feed.publish("x") for _ in range(350)]
    with thoonk.listen("retract", "config") as notices:
        thoonk.set_config("f", {"max_length": 20})
        assert notices.get(5).kind == "config"
        assert [notices.get(5).id for _ in range(330)] == ids[:330]
    assert feed.get_ids() == ids[330:]
    thoonk.set_config("f", {"max_length": 0})
    assert [feed.publish("x") for _ in range(30)] and feed.size() == 50


def test_a_publish_brings_down_what_is_far_too_long(thoonk: Thoonk, redis_client: Any) -> None:
    """As after a peer has set the limit, which trims nothing."""
    feed = thoonk.feed("f")
    for n in range(350):
        feed.publish("x", id=f"i{n}")
    redis_client.hset("feed.config:{f}", "max_length", 5)
    feed.publish("x", id="new")
    assert feed.get_ids() == ["i346", "i347", "i348", "i349", "new"]
    for n in range(350, 560):
        redis_client.hset("feed.config:{f}", "max_length", 0)
        feed.publish("x", id=f"i{n}")
    redis_client.hset("feed.config:{f}", "max_length", 5)
    feed.publish("edited", id="i346")
    assert feed.get_ids() == ["i556", "i557", "i558", "i559", "i346"]


def test_long_feeds_are_read_in_slices(thoonk: Thoonk, redis_client: redis.Redis) -> None:
    """Also where peers have published more in one millisecond than a slice holds."""
    feed = thoonk.feed("f")
    count = 2 * SLICE + 100
    ids = [f"i{n:05}" for n in range(3 * count)]
    for start, score in ((0, 1000), (count, 1000), (2 * count, 2000)):
        part = ids[start : start + count]
        redis_client.zadd("feed.ids:{f}", dict.fromkeys(part, score))
        redis_client.hset("feed.items:{f}", mapping={id: f"item {id}" for id in part})
    assert feed.get_ids() == ids
    items = feed.get_items()
    assert list(items) == ids and items[ids[-1]] == f"item {ids[-1]}"
    assert feed.size() == 3 * count


@pytest.mark.parametrize("change", ["retract", "edit"])
def test_nothing_is_missed_when_the_last_one_seen_goes_between_two_slices(
    thoonk: Thoonk, other: Thoonk, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr("phonon_kombu.thoonk.feed.SLICE", 3)
    feed, theirs = thoonk.feed("f"), other.feed("f")
    ids = [feed.publish("x", id=f"i{n}") for n in range(7)]
    send = thoonk.link.send

    def then_change(calls: Any, **options: Any) -> Any:
        replies = send(calls, **options)
        if calls[0][0] == b"ZRANGEBYSCORE":
            last = replies[0][-2].decode()
            if last in ids[:3]:
                theirs.retract(last) if change == "retract" else theirs.publish("y", id=last)
        return replies

    thoonk.link.send = then_change  # type: ignore[method-assign]
    assert set(feed.get_ids()) == set(ids)


def test_what_is_not_there_is_said(thoonk: Thoonk) -> None:
    feed = thoonk.feed("f")
    assert not feed.has_id("a") and feed.get_ids() == [] and feed.get_all() == {}
    for act in (feed.get_item, feed.retract):
        with pytest.raises(ItemNotFound):
            act("a")
    feed.publish("x", id="a")
    assert feed.has_id("a")


def test_a_deleted_feed_does_not_come_back_by_itself(thoonk: Thoonk, other: Thoonk) -> None:
    """A publish to it is refused; asking the session for it makes a new one."""
    feed = thoonk.feed("f", {"max_length": 1})
    feed.publish("x")
    other.delete_feed("f")
    assert not other.feed_exists("f") and other.get_feeds() == set()
    with pytest.raises(FeedNotFound):
        feed.publish("x")
    thoonk.feed("f").publish("x")
    assert thoonk.get_config("f") == {"type": "feed"}
    with pytest.raises(FeedNotFound):
        thoonk.delete_feed("another")


@pytest.mark.parametrize("wrong", [None, 5, ["x"], {"a": 1}])
def test_items_are_text_or_bytes(thoonk: Thoonk, wrong: Any) -> None:
    feed = thoonk.feed("f")
    with pytest.raises(ConfigurationError, match="serial"):
        feed.publish(wrong)
    assert feed.get_ids() == []


@pytest.mark.parametrize("wrong", ["", 5, b"x", "a\0b"])
def test_ids_are_text(thoonk: Thoonk, wrong: Any) -> None:
    with pytest.raises(ConfigurationError):
        thoonk.feed("f").publish("x", id=wrong)


def test_any_bytes_and_text(thoonk: Thoonk, url: str) -> None:
    odd = ["", "ü✓", "a\0b", "\udcff", "x" * 100_000, "\r\n$5\r\n"]
    feed = thoonk.feed("f")
    for item in odd:
        feed.publish(item, id=f"{odd.index(item)} {item[:5]!r}\n")
    assert list(feed.get_all().values()) == odd
    with Thoonk(url, decode=False) as plain:
        feed = plain.feed("f")
        feed.publish(b"\xff\0\xfe", id="b")
        assert feed.get_item("b") == b"\xff\0\xfe"


# Serializers ----------------------------------------------------------------------------------


def test_a_serializer(thoonk: Thoonk, other: Thoonk) -> None:
    """It is noted with the feed: whoever opens it reads the same data."""
    data = {"a": [1, None, "ü"], "when": datetime.datetime(2030, 1, 2)}
    feed = thoonk.feed("f", serializer="json")
    with other.listen("publish") as notices:
        feed.publish(data, id="a")
        theirs = other.feed("f")
        assert theirs.serializer == "json" and theirs.get_item("a") == data
        assert notices.get(5).item == data
    assert thoonk.get_config("f") == {"type": "feed", "serializer": "json"}
    for wrong in ("msgpack", "nothing"):
        with pytest.raises(ConfigurationError):
            other.feed("f", serializer=wrong)
    with pytest.raises(ConfigurationError, match="json"):
        feed.publish(object())


def test_pickle_only_when_asked(thoonk: Thoonk, other: Thoonk, redis_client: redis.Redis) -> None:
    """Not because a feed's configuration, which anybody can write, says so."""
    feed = thoonk.feed("f", serializer="pickle")
    feed.publish({1, 2}, id="a")
    assert feed.get_item("a") == {1, 2}
    with pytest.raises(ConfigurationError, match="trust"):
        other.feed("f")
    assert other.feed("f", serializer="pickle").get_item("a") == {1, 2}
    safe = thoonk.feed("safe", serializer="json")
    redis_client.hset("feed.items:{safe}", "a", pickle.dumps(1))
    with pytest.raises(MalformedItem):
        safe.get_item("a")


# Broken lines ---------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [True, False])
def test_replies_are_lost(far: Thoonk, thoonk: Thoonk, line: LossyLine, before: bool) -> None:
    """Whether or not the first try was carried out, it is done, and reported as done."""
    feed, near = far.feed("f"), thoonk.feed("f")
    feed.publish("x", id="a")
    feed.publish("x", id="b")
    line.lose(load("feed/publish").sha.encode(), before=before)
    made = feed.publish("y")
    assert near.get_ids() == ["a", "b", made]
    feed.retract("b")
    line.lose(load("feed/retract").sha.encode(), before=before)
    feed.retract("a")
    assert near.get_ids() == [made]
    line.lose(load("feed/delete").sha.encode(), before=before)
    far.feed("g")
    far.delete_feed("f")
    assert line.lost == 3 and thoonk.get_feeds() == {"g"}


# Peers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("hash_tags", [True, False])
def test_a_peer_of_the_contract(url: str, redis_client: redis.Redis, hash_tags: bool) -> None:
    """It reads what we have published and hears of it, and we read and hear of what it has."""
    wire = "{f}" if hash_tags else "f"
    peer = redis_client.pubsub(ignore_subscribe_messages=True)
    peer.subscribe("newfeed", "conffeed", "delfeed")
    peer.psubscribe("feed.*")

    def heard() -> tuple[bytes, bytes]:
        message = None
        while message is None:
            message = peer.get_message(timeout=5)
        return message["channel"], message["data"]

    with Thoonk(url, hash_tags=hash_tags) as session:
        feed = session.feed("f")
        instance = session.instance.encode()
        assert heard() == (b"newfeed", wire.encode() + b"\0" + instance)
        assert redis_client.smembers("feeds") == {b"f"}
        feed.publish("ours", id="a")
        assert heard() == (f"feed.publish:{wire}".encode(), b"a\0ours")
        feed.publish("edited", id="a")
        assert heard() == (f"feed.edit:{wire}".encode(), b"a\0edited")
        assert redis_client.zrange(f"feed.ids:{wire}", 0, -1) == [b"a"]
        assert redis_client.hget(f"feed.items:{wire}", "a") == b"edited"

        with session.listen("publish", "edit", "retract", "create") as notices:
            score = redis_client.zscore(f"feed.ids:{wire}", "a")
            with redis_client.pipeline() as pipe:
                pipe.zadd(f"feed.ids:{wire}", {"b": int(score) + 5})
                pipe.incr(f"feed.publishes:{wire}")
                pipe.hset(f"feed.items:{wire}", "b", "theirs")
                pipe.publish(f"feed.publish:{wire}", "b\0theirs")
                pipe.publish("newfeed", f"{wire}\0another")
                pipe.publish("feed.publish:somebody else's", "b\0theirs")
                pipe.execute()
            first, second = notices.get(5), notices.get(5)
            assert (first.kind, first.feed, first.id, first.item) == ("publish", "f", "b", "theirs")
            assert (second.kind, second.feed, second.instance) == ("create", "f", "another")
        assert feed.get_all() == {"a": "edited", "b": "theirs"}
        assert heard()[1] == b"b\0theirs"
        while heard()[1] != b"b\0theirs":
            pass
        feed.retract("b")
        assert heard() == (f"feed.retract:{wire}".encode(), b"b")
        session.set_config("f", {"title": "F"})
        assert heard() == (b"conffeed", wire.encode() + b"\0" + instance)
        session.delete_feed("f")
        assert heard() == (b"delfeed", wire.encode() + b"\0" + instance)
    left = {name for name in redis_client.keys("*") if b"layout" not in name}
    assert left == set()
    peer.close()
