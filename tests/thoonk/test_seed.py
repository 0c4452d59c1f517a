"""The examples of Thoonk's own documentation for queues and jobs, word for word."""

from __future__ import annotations

import threading

import pytest

from phonon_kombu.errors import NotClaimed, NotFound
from phonon_kombu.thoonk import Thoonk
from tests.servers import RedisServer


def test_initializing(redis_server: RedisServer) -> None:
    """Host, port and number of the database, in this order."""
    host, port, db = "127.0.0.1", redis_server.port, 0
    pubsub = Thoonk(host, port, db)
    pubsub.job("job channel name").put("x")
    pubsub.close()


def test_a_feed_referenced_twice_is_one_object(thoonk: Thoonk) -> None:
    test_queue = thoonk.queue("queue name")
    test_job = thoonk.job("job channel name")
    assert thoonk.queue("queue name") is test_queue
    assert thoonk.job("job channel name") is test_job


def test_using_a_queue(thoonk: Thoonk) -> None:
    queue = thoonk.queue("queue_feed")

    queue.put("item")
    queue.put("priority item", priority=queue.HIGH)

    item = queue.get()
    timed_item = queue.get(timeout=5)
    assert (item, timed_item) == ("priority item", "item")


def test_publishing_and_claiming_a_job(thoonk: Thoonk) -> None:
    job = thoonk.job("job_feed")

    job.put("job contents")
    job.put("priority job", priority=job.HIGH)

    data = job.get()
    timed_data = job.get(timeout=5)

    assert data.item == "priority job"
    id, item, cancelled = timed_data
    assert (item, cancelled) == ("job contents", 0)
    assert id in job.get_ids()


def test_cancelling_a_job_claim(thoonk: Thoonk) -> None:
    job = thoonk.job("job_feed")
    job.put("job contents", id="job id")
    job.get()

    job.cancel("job id")

    assert job.get() == ("job id", "job contents", 1)


def test_stalling_and_retrying_a_job(thoonk: Thoonk) -> None:
    job = thoonk.job("job_feed")
    job.put("job contents", id="job id")

    job.stall("job id")
    assert job.get_ids("stalled") == ["job id"]
    job.retry("job id")

    assert job.get() == ("job id", "job contents", 0)


def test_retracting_a_job(thoonk: Thoonk) -> None:
    job = thoonk.job("job_feed")
    job.put("job contents", id="job id")

    job.retract("job id")

    assert job.get_ids() == []
    with pytest.raises(NotFound):
        job.get_item("job id")


def test_finishing_a_job(thoonk: Thoonk) -> None:
    """A simple acknowledgment."""
    job = thoonk.job("job_feed")
    job.put("job contents", id="job id")
    job.get()

    job.finish("job id")

    assert job.get_ids() == []
    with pytest.raises(NotClaimed):
        job.finish("job id")


def test_finishing_a_job_with_a_result(thoonk: Thoonk) -> None:
    job = thoonk.job("job_feed")
    job.put("job contents", id="job id")
    job.get()

    job.finish("job id", "result contents", result=True)

    query, result = job.get_result("job id", timeout=5)
    assert (query, result) == ("job contents", "result contents")


def test_finishing_a_job_with_a_result_for_a_time(thoonk: Thoonk) -> None:
    job = thoonk.job("job_feed")
    job.put("job contents", id="job id")
    job.get()

    job.finish("job id", "result contents", result=True, timeout=5)

    query, result = job.get_result("job id", timeout=5)
    assert (query, result) == ("job contents", "result contents")
    left_ms = thoonk.link.command(b"PTTL", job.keys.result("job id"))
    assert 0 < left_ms <= 5000


def test_the_default_is_to_wait_for_a_job(thoonk: Thoonk, other: Thoonk) -> None:
    """`get` without a timeout returns when a job comes, and not before."""
    claimed = []
    waiting = threading.Thread(target=lambda: claimed.append(thoonk.job("job_feed").get()))
    waiting.start()
    waiting.join(1.0)
    assert waiting.is_alive() and not claimed

    other.job("job_feed").put("job contents")

    waiting.join(10)
    assert [job.item for job in claimed] == ["job contents"]
