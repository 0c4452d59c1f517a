"""The examples of Thoonk's own documentation for feeds, word for word."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from phonon_kombu.errors import FeedExists
from phonon_kombu.thoonk import Thoonk
from tests.servers import RedisServer, wait_for


def test_initializing(redis_server: RedisServer, redis_db: str) -> None:
    host, port, db = "127.0.0.1", redis_server.port, 0

    pubsub = Thoonk(host, port, db, listen=True)

    assert "thoonk-listener" in [thread.name for thread in threading.enumerate()]
    pubsub.close()


def test_creating_a_feed(thoonk: Thoonk) -> None:
    feed_name = "test_feed"
    thoonk.create_feed(feed_name, {"max_length": 50})

    test_feed = thoonk.feed(feed_name)

    test_queue = thoonk.queue("queue name")
    test_job = thoonk.job("job channel name")
    test_list = thoonk.list("list name")

    assert thoonk.get_config(feed_name) == {"type": "feed", "max_length": 50}
    for feed in (test_feed, test_queue, test_job, test_list):
        assert thoonk.feed_exists(feed.name)
    assert thoonk.get_feeds() == {"test_feed", "queue name", "job channel name", "list name"}
    with pytest.raises(FeedExists):
        thoonk.create_feed(feed_name)


def test_configuring_a_feed(thoonk: Thoonk) -> None:
    feed_name = "test_feed"
    thoonk.feed(feed_name)
    json_config = json.dumps({"type": "feed", "max_length": 2})

    thoonk.set_config(feed_name, json_config)

    feed = thoonk.feed(feed_name)
    for n in range(5):
        feed.publish(str(n))
    assert list(feed.get_all().values()) == ["3", "4"]


def test_subscribing_to_a_feed(thoonk: Thoonk, other: Thoonk) -> None:
    told: list[tuple[Any, ...]] = []

    def create_handler_pointer(feedname: str) -> None:
        told.append(("create", feedname))

    def delete_handler_pointer(feedname: str) -> None:
        told.append(("delete", feedname))

    def publish_handler_pointer(feedname: str, item: str, id: str) -> None:
        told.append(("publish", feedname, item, id))

    def retract_handler_pointer(feedname: str, id: str) -> None:
        told.append(("retract", feedname, id))

    thoonk.register_handler("create_notice", create_handler_pointer)
    thoonk.register_handler("delete_notice", delete_handler_pointer)
    thoonk.register_handler("publish_notice", publish_handler_pointer)
    thoonk.register_handler("retract_notice", retract_handler_pointer)

    feed = other.feed("test_feed")
    feed.publish("contents", id="1")
    feed.retract("1")
    other.delete_feed("test_feed")

    wait_for(lambda: len(told) == 4)
    assert told == [
        ("create", "test_feed"),
        ("publish", "test_feed", "contents", "1"),
        ("retract", "test_feed", "1"),
        ("delete", "test_feed"),
    ]


def test_using_a_feed(thoonk: Thoonk) -> None:
    feed = thoonk.feed("test_feed")

    feed.publish("item contents", id="optional id")
    feed.publish("other contents", id="item id")
    feed.publish("item contents, edited", id="optional id")
    assert feed.get_ids() == ["item id", "optional id"]

    item_ids = feed.get_ids()
    items = feed.get_all()
    assert [items[id] for id in item_ids] == ["other contents", "item contents, edited"]
    done: list[str] = []
    do_stuff_with = done.append

    items = feed.get_all()
    for id in feed.get_ids():
        do_stuff_with(items[id])

    assert done == ["other contents", "item contents, edited"]
    item = feed.get_item("item id")
    assert item == "other contents"

    feed.retract("item id")

    assert feed.get_ids() == ["optional id"]


@pytest.mark.parametrize("interop", [False, True])
def test_using_a_sorted_feed(thoonk: Thoonk, interop: bool) -> None:
    sorted_feed = thoonk.sorted_feed("sortedfeed_name", interop=interop)
    sorted_feed.append("existing", id="existing id")

    sorted_feed.prepend("new first item")
    sorted_feed.append("new last item")
    sorted_feed.publish("another new last item")
    sorted_feed.publish_before("existing id", "new item")
    sorted_feed.publish_after("existing id", "new item")

    assert list(sorted_feed.get_all().values()) == [
        "new first item", "new item", "existing", "new item", "new last item",
        "another new last item",
    ]  # fmt: skip


@pytest.mark.parametrize("interop", [False, True])
def test_moving_an_item_in_a_sorted_feed(thoonk: Thoonk, interop: bool) -> None:
    sorted_feed = thoonk.sorted_feed("sortedfeed_name", interop=interop)
    for id in ("item id", "a", "42", "existing id"):
        sorted_feed.append("item", id=id)

    def ids() -> str:
        return " ".join(id[0] for id in sorted_feed.get_ids())

    sorted_feed.move_last("item id")
    assert ids() == "a 4 e i"
    sorted_feed.move_first("item id")
    assert ids() == "i a 4 e"
    sorted_feed.move_before("existing id", "item id")
    assert ids() == "a 4 i e"
    sorted_feed.move_after("existing id", "item id")
    assert ids() == "a 4 e i"

    sorted_feed.move(":42", "item id")
    assert ids() == "a i 4 e"
    sorted_feed.move("42:", "item id")
    assert ids() == "a 4 i e"
    sorted_feed.move("begin:", "item id")
    assert ids() == "i a 4 e"
    sorted_feed.move(":end", "item id")
    assert ids() == "a 4 e i"
