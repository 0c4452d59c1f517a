"""Feeds as a whole: configurations, types, types of one's own; queues of Python data."""

from __future__ import annotations

import datetime
import decimal
import pickle
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import redis

from phonon_kombu.errors import (
    ConfigurationError,
    FeedExists,
    FeedNotFound,
    MalformedItem,
)
from phonon_kombu.thoonk import Empty, Feed, PyQueue, SortedFeed, Thoonk
from tests.servers import wait_for


def test_types(thoonk: Thoonk, other: Thoonk) -> None:
    """Each type is made by name, and only as itself opened."""
    for kind in ("feed", "sorted_feed", "list", "queue", "pyqueue", "job"):
        thoonk.create_feed(f"a {kind}", {"type": kind})
        getattr(other, kind)(f"a {kind}")
        wrong = other.job if kind != "job" else other.feed
        with pytest.raises(ConfigurationError, match="type"):
            wrong(f"a {kind}")
    assert not other.sorted_feed("a list").interop
    assert thoonk.get_config("a list")["type"] == "sorted_feed"
    with pytest.raises(ConfigurationError, match="sorted_feed"):
        thoonk.create_feed("f", {"type": "tree"})
    with pytest.raises(ConfigurationError):
        thoonk.feed("f", {"type": "queue"})
    assert not thoonk.feed_exists("f")


def test_configurations(thoonk: Thoonk, other: Thoonk) -> None:
    thoonk.create_feed("f", '{"max_length": 3, "title": "F", "tags": ["a"]}')
    assert other.get_config("f") == {
        "type": "feed", "max_length": 3, "title": "F", "tags": '["a"]',
    }  # fmt: skip
    other.set_config("f", {"title": "G"})
    thoonk.feed("f", {"max_length": 5})
    assert other.get_config("f")["title"] == "G" and other.get_config("f")["max_length"] == 5
    for wrong in ({}, [], "[]", "{", {"max_length": -1}, {"max_length": "long"}, {"order": "list"},
                  {"type": "job"}, {"serializer": "json"}, {5: 5}, {"a": object()}):  # fmt: skip
        with pytest.raises(ConfigurationError):
            thoonk.set_config("f", wrong)  # type: ignore[arg-type]
    assert other.get_config("f")["max_length"] == 5
    for act in (thoonk.get_config, thoonk.delete_feed, lambda name: thoonk.set_config(name, "{}")):
        with pytest.raises((FeedNotFound, ConfigurationError)):
            act("nobody")
    with pytest.raises(FeedExists):
        other.create_feed("f")


def test_deleting_takes_everything_along(thoonk: Thoonk, redis_client: redis.Redis) -> None:
    feeds: list[Any] = [
        thoonk.feed("f"), thoonk.sorted_feed("s"), thoonk.sorted_feed("l", interop=True),
        thoonk.queue("q"), thoonk.pyqueue("p"), thoonk.job("j"),
    ]  # fmt: skip
    for feed in feeds:
        getattr(feed, "publish", None) and feed.publish("x")
        getattr(feed, "put", None) and feed.put("x")
    feeds[-1].put("x", delay_seconds=100, ttl_seconds=200, priority=5, id="x")
    feeds[-1].put("x", id="y")
    feeds[-1].stall("y")
    feeds[-1].get(timeout=0)
    assert thoonk.get_feeds() == set("fslqpj")
    for name in "fslqpj":
        thoonk.delete_feed(name)
    assert redis_client.keys("feed*") == [] and thoonk.get_feeds() == set()


def test_a_job_feed_with_a_max_length(thoonk: Thoonk) -> None:
    """What is put in front is not the first to go, and 0 is no limit."""
    job = thoonk.job("j", {"max_length": 2})
    for id in "abc":
        job.put("x", id=id)
    job.put("x", id="first", priority=job.HIGH)
    assert set(job.get_ids("ready")) == {"first", "c"}
    thoonk.set_config("j", {"max_length": 0})
    job.put("x", id="d")
    thoonk.job("k", {"max_length": 0}).put("x", id="a")
    assert len(job.get_ids()) == 3 and thoonk.job("k").get_ids() == ["a"]
    assert thoonk.get_config("j")["max_length"] == thoonk.get_config("k")["max_length"] == 0


@pytest.mark.parametrize("wrong", ["", "\0", "\ud800", b"f", 5])
def test_names_and_ids_that_are_none(thoonk: Thoonk, other: Thoonk, wrong: Any) -> None:
    """Each is refused by name, and nothing is left of it."""
    told: list[str] = []
    feed, wishes = thoonk.feed("f"), thoonk.sorted_feed("s")
    acts: tuple[Callable[[], Any], ...] = (
        lambda: thoonk.feed(wrong), lambda: thoonk.get_config(wrong),
        lambda: thoonk.delete_feed(wrong), lambda: thoonk.listen("publish", feed=wrong),
        lambda: thoonk.register_handler("publish", print, feed=wrong),
        lambda: thoonk.remove_handler("publish", print, feed=wrong),
        lambda: feed.publish("x", id=wrong), lambda: wishes.move_before(wrong, "a"),
        lambda: wishes.append("x", id="end"), lambda: wishes.append("x", id="begin"),
        lambda: thoonk.feed("g", serializer="jsn"),
        lambda: thoonk.create_feed("g", {"serializer": "jsn"}),
        lambda: thoonk.create_feed("g", {"max_length": "\u0663"}),
        lambda: thoonk.create_feed("g", {"\ud800": "x"}),
        lambda: feed.publish("\ud800"), lambda: thoonk.pyqueue("p").put(thoonk),
    )  # fmt: skip
    for act in acts:
        with pytest.raises(ConfigurationError):
            act()
    assert thoonk.get_feeds() == {"f", "s", "p"} and feed.size() == wishes.size() == 0
    thoonk.register_handler("publish", lambda feed, item, id: told.append(id))
    other.feed("f").publish("x", id="a")
    wait_for(lambda: told == ["a"])


def test_a_feed_that_is_made_while_one_of_its_name_is_deleted(
    thoonk: Thoonk, other: Thoonk
) -> None:
    """It stays on the list."""
    thoonk.feed("f")
    send = thoonk.link.send

    def then_make(calls: Any, **options: Any) -> Any:
        if calls[0][0] == b"SREM":
            other.feed("f")
        return send(calls, **options)

    thoonk.link.send = then_make  # type: ignore[method-assign]
    thoonk.delete_feed("f")
    assert thoonk.get_feeds() == {"f"}


MADE: dict[str, Callable[[Thoonk], Any]] = {
    "feed": lambda s: s.feed("f"),
    "links": lambda s: s.sorted_feed("f"),
    "list": lambda s: s.sorted_feed("f", interop=True),
    "queue": lambda s: s.queue("f"),
    "pyqueue": lambda s: s.pyqueue("f"),
}
CHANGES: dict[str, tuple[Callable[[Any], Any], ...]] = {
    "feed": (lambda f: f.publish("x"), lambda f: f.retract("1")),
    "sorted": (lambda f: f.append("x"), lambda f: f.retract("1"), lambda f: f.move_first("1")),
    "queue": (lambda f: f.put("x"), lambda f: f.get(timeout=0)),
}


@pytest.mark.parametrize("was", ["feed", "links", "list", "queue"])
def test_a_feed_that_was_made_anew_as_another(
    thoonk: Thoonk, other: Thoonk, redis_client: redis.Redis, was: str
) -> None:
    """What was opened before is refused: it would write what nobody finds."""
    changes = CHANGES.get(was, CHANGES["sorted"])
    for then in MADE:
        stale = MADE[was](thoonk)
        other.delete_feed("f")
        with pytest.raises(FeedNotFound):
            changes[0](stale)
        now = MADE[then](other)
        now.put("x") if then.endswith("queue") else now.publish("x", id="1")
        before = picture(redis_client)
        for change in changes if was != then else ():
            with pytest.raises(FeedNotFound):
                change(stale)
            assert picture(redis_client) == before
        other.delete_feed("f")


def picture(client: redis.Redis) -> dict[bytes, Any]:
    """All keys of feeds, as they are."""
    return {key: client.dump(key) for key in client.keys("feed*")}


def test_many_feeds(thoonk: Thoonk, redis_client: redis.Redis) -> None:
    redis_client.sadd("feeds", *(f"{{f{n}}}" for n in range(1500)), "{a", "plain")
    assert thoonk.get_feeds() == {*(f"f{n}" for n in range(1500)), "{a", "plain"}


def test_a_celery_queue_is_listed_and_deleted(thoonk: Thoonk, url: str) -> None:
    from kombu import Connection

    with Connection(url) as connection, connection.SimpleQueue("celery") as simple:
        simple.put({"a": 1})
        simple.close()
    assert thoonk.get_feeds() == {"celery"}
    assert thoonk.get_config("celery")["type"] == "job"
    thoonk.job("celery")
    assert thoonk.get_feeds() == {"celery"}
    thoonk.delete_feed("celery")
    assert thoonk.get_feeds() == set()


# Types of one's own ---------------------------------------------------------------------------


class Wishlist(SortedFeed):
    """A sorted feed that knows one more thing."""

    def wish(self, what: str) -> str:
        return self.append(f"a {what}")


def test_a_type_of_ones_own(thoonk: Thoonk, other: Thoonk) -> None:
    thoonk.register_feedtype("wishlist", Wishlist)
    wishes = thoonk.wishlist("birthday")
    wishes.wish("pony")
    assert wishes is thoonk.wishlist("birthday")
    assert isinstance(wishes, Wishlist) and wishes.get_all() == {"1": "a pony"}
    assert thoonk.get_config("birthday")["type"] == "wishlist"
    thoonk.register_feedtype("news", Feed)
    news = thoonk.news("n")
    for n in range(3):
        news.publish("x", id=str(n))
    thoonk.set_config("n", {"max_length": 1})
    assert news.get_ids() == ["2"]
    thoonk.create_feed("christmas", {"type": "wishlist"})
    with pytest.raises(ConfigurationError):
        other.sorted_feed("birthday")
    with pytest.raises(AttributeError):
        other.wishlist("birthday")
    for name, kind in (("feed", Feed), ("get_feeds", Feed), ("x y", Feed), ("_x", Feed), ("x", int),
                       ("x", "Feed"), ("list", SortedFeed)):  # fmt: skip
        with pytest.raises(ConfigurationError):
            thoonk.register_feedtype(name, kind)  # type: ignore[arg-type]


# Queues of Python data ------------------------------------------------------------------------

DATA: list[Any] = [
    None, True, 5, 1.5, "ü", [1, [2]], {"a": {"b": None}}, datetime.datetime(2030, 1, 2, 3),
    datetime.date(2030, 1, 2), decimal.Decimal("1.10"), uuid.UUID(int=5), b"\xff",
]  # fmt: skip


def test_a_pyqueue(thoonk: Thoonk, other: Thoonk) -> None:
    queue = thoonk.pyqueue("p")
    for item in DATA:
        queue.put(item)
    queue.put("first", priority=queue.HIGH)
    theirs = other.pyqueue("p")
    assert theirs.size() == len(DATA) + 1
    assert [theirs.get(timeout=5) for _ in range(len(DATA) + 1)] == ["first", *DATA]
    with pytest.raises(Empty):
        theirs.get(timeout=0)
    with pytest.raises(ConfigurationError, match="json"):
        queue.put(object())
    assert queue.size() == 0


def test_a_pyqueue_of_pickles(thoonk: Thoonk, other: Thoonk) -> None:
    thoonk.pyqueue("p", serializer="pickle").put({1, 2})
    with pytest.raises(ConfigurationError, match="trust"):
        other.pyqueue("p")
    assert other.pyqueue("p", serializer="pickle").get(timeout=5) == {1, 2}


def test_a_pyqueue_that_a_peer_has_made(
    thoonk: Thoonk, other: Thoonk, redis_client: redis.Redis
) -> None:
    """Thoonk.py pickles and does not say so: who trusts it says pickle."""
    redis_client.hset("feed.config:{p}", "type", "pyqueue")
    for id in "ab":
        redis_client.lpush("feed.ids:{p}", id)
        redis_client.hset("feed.items:{p}", id, pickle.dumps({1, 2}))
    assert thoonk.pyqueue("p", serializer="pickle").get(timeout=5) == {1, 2}
    with pytest.raises(MalformedItem):
        other.pyqueue("p").get(timeout=5)


def test_an_item_of_a_pyqueue_that_cannot_be_read(
    thoonk: Thoonk, redis_client: redis.Redis
) -> None:
    """It is taken, and handed over with the error."""
    queue: PyQueue = thoonk.pyqueue("p")
    redis_client.lpush("feed.ids:{p}", "a")
    redis_client.hset("feed.items:{p}", "a", b"cos\nsystem\n(S'true'\ntR.")
    queue.put("good")
    with pytest.raises(MalformedItem) as caught:
        queue.get(timeout=5)
    assert caught.value.args[1] == b"cos\nsystem\n(S'true'\ntR."
    assert queue.get(timeout=5) == "good"


def test_a_job_whose_item_cannot_be_read(thoonk: Thoonk, redis_client: redis.Redis) -> None:
    """It is stalled: claimed it would stay for ever, and given back it would come again at once."""
    jobs = thoonk.job("j", serializer="json")
    bad, good = jobs.put([0]), jobs.put([1])
    redis_client.hset("feed.items:{j}", bad, b"[0")
    with pytest.raises(MalformedItem):
        jobs.get(timeout=5)
    assert jobs.get(timeout=5).id == good
    assert jobs.stats().claimed == jobs.stats().stalled == 1
    assert "json" in jobs.get_reason(bad)


def test_a_queue_with_a_serializer(thoonk: Thoonk) -> None:
    queue = thoonk.queue("q", serializer="json")
    queue.put([1])
    assert queue.get(timeout=5) == [1]
