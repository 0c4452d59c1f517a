"""The simple queue."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
import redis

from phonon_kombu.errors import ConfigurationError
from phonon_kombu.thoonk import Queue, Thoonk

from . import peers


def test_first_in_first_out(queue: Queue) -> None:
    for number in range(10):
        queue.put(str(number))
    queue.put("first", priority=queue.HIGH)
    assert queue.size() == 11
    assert [queue.get(timeout=0) for _ in range(11)] == ["first", *map(str, range(10))]
    assert queue.size() == 0


def test_a_taken_item_is_gone(queue: Queue, redis_client: redis.Redis) -> None:
    queue.put("item")
    queue.get()
    assert redis_client.keys("feed.*") == [b"feed.publishes:{items}"] or set(
        redis_client.keys("feed.*")
    ) == {b"feed.publishes:{items}", b"feed.config:{items}"}


def test_each_item_has_one_taker(url: str, processes: ProcessPoolExecutor, thoonk: Thoonk) -> None:
    """Two processes put, two take."""
    count = 500
    putting = [processes.submit(peers.put_items, url, "items", n, count) for n in "ab"]
    taking = [processes.submit(peers.take, url, "items", 2 * count) for _ in range(2)]
    for future in putting:
        future.result(60)
    taken = [item for future in taking for item in future.result(60)]
    assert sorted(taken) == sorted(f"{name}.{n}" for name in "ab" for n in range(count))


def test_a_foreign_taker_and_putter(queue: Queue, redis_client: redis.Redis) -> None:
    """As Thoonk's contract has it."""
    item_id = queue.put("ours")
    assert redis_client.brpop("feed.ids:{items}", 1) == (b"feed.ids:{items}", item_id.encode())
    assert redis_client.hget("feed.items:{items}", item_id) == b"ours"
    redis_client.hdel("feed.items:{items}", item_id)
    redis_client.lpush("feed.ids:{items}", "f")
    redis_client.hset("feed.items:{items}", "f", "theirs")
    assert queue.get(timeout=0) == "theirs"
    assert redis_client.get("feed.publishes:{items}") == b"1"


def test_ids_without_an_item_are_left_out(queue: Queue, redis_client: redis.Redis) -> None:
    redis_client.lpush("feed.ids:{items}", *(f"nothing {n}" for n in range(350)))
    queue.put("item")
    assert queue.get(timeout=5) == "item"
    assert queue.size() == 0


def test_bytes(url: str) -> None:
    with Thoonk(url, decode=False) as plain:
        queue = plain.queue("items")
        queue.put(b"\xff\0")
        queue.put("text")
        assert [queue.get(timeout=0), queue.get(timeout=0)] == [b"\xff\0", b"text"]


@pytest.mark.parametrize("wrong", [{"priority": 3}, {"priority": "low"}, {"item": None}])
def test_nonsense_is_refused(queue: Queue, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        queue.put(**{"item": "item", **wrong})
    assert queue.size() == 0


def test_a_negative_timeout_is_refused(queue: Queue) -> None:
    with pytest.raises(ConfigurationError):
        queue.get(timeout=-0.1)
