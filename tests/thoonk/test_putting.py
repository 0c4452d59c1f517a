"""What `put` takes: priorities, delays, lifetimes, ids, items; and what it refuses."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from phonon_kombu.errors import ConfigurationError, Exists
from phonon_kombu.thoonk import Empty, Job, Thoonk, base
from tests.servers import RedisServer, wait_for

from .lossy import LossyLine


def take_all(job: Job) -> list[str]:
    """The items of all that is ready, in the order of their claims."""
    items = []
    while True:
        try:
            items.append(job.get(timeout=0).item)
        except Empty:
            return items


def test_first_in_first_out(job: Job) -> None:
    for number in range(20):
        job.put(str(number))
    assert take_all(job) == [str(number) for number in range(20)]


def test_priorities(job: Job) -> None:
    """Level 0 first, in each level the oldest first, HIGH before all."""
    for number in range(30):
        job.put(f"{number % 10}.{number // 10}", priority=number % 10)
    job.put("first", priority=job.HIGH)
    job.put("before it", priority=True)
    levels = [f"{level}.{number}" for level in range(10) for number in range(3)]
    assert take_all(job) == ["before it", "first", *levels]


def test_a_priority_outlives_a_cancel(job: Job) -> None:
    job.put("low", id="low", priority=9)
    job.cancel(job.get().id)
    job.put("high", priority=1)
    assert take_all(job) == ["high", "low"]


def test_delay(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not before its time, soon after it without a look in between; others are not held up."""
    monkeypatch.setattr(base, "POLL_SECONDS", 60)
    put_at = time.monotonic()
    job.put("later", delay_seconds=0.4)
    job.put("now")
    assert job.get(timeout=0).item == "now"
    assert job.stats().scheduled == 1
    assert job.get(timeout=10).item == "later"
    # The server's clock counts in whole milliseconds.
    assert 0.398 <= time.monotonic() - put_at < 1.5


def test_a_delayed_job_ends_a_wait_that_began_before(
    job: Job, far: Thoonk, line: LossyLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits learns of an earlier end of its wait."""
    monkeypatch.setattr(base, "POLL_SECONDS", 60)
    job.put("much later", delay_seconds=600)
    claimed: list[str] = []
    waiting = threading.Thread(target=lambda: claimed.append(far.job("jobs").get(timeout=30).item))
    waiting.start()
    wait_for(lambda: line.waits, 10)
    job.put("soon", delay_seconds=0.2)
    waiting.join(20)
    assert claimed == ["soon"]


def test_ttl(job: Job) -> None:
    job.put("mortal", id="m", ttl_seconds=0.05)
    job.put("lasting", ttl_seconds=600)
    deadline = job.keys.deadlines
    ends_at = float(job.session.link.command(b"ZSCORE", deadline, b"m")) / 1000
    wait_for(lambda: time.time() > ends_at + 0.01)
    assert take_all(job) == ["lasting"]
    assert job.get_ids("ready") == []


def test_a_claimed_job_outlives_its_ttl(job: Job) -> None:
    job.put("item", id="j", ttl_seconds=0.2)
    job.get(timeout=0)
    ends_at = time.monotonic() + 0.25
    wait_for(lambda: time.monotonic() > ends_at)
    job.maintenance()
    job.finish("j")


def test_ids(job: Job) -> None:
    """An id given, and one made; the same job again is a no-op, another is refused."""
    made = job.put("a")
    assert len(made) == 32 and job.get_item(made) == "a"
    assert job.put("b", id="given") == "given"
    assert job.put("b", id="given") == "given"
    with pytest.raises(Exists):
        job.put("c", id="given")
    assert job.stats().publishes == 2
    assert take_all(job) == ["a", "b"]


@pytest.mark.parametrize("item", ["", "text", "täxt ✓", "a\0b", "1\r\n$2\r\n"])
def test_items_come_out_as_they_went_in(job: Job, item: str) -> None:
    job.put(item)
    assert job.get(timeout=0).item == item


def test_bytes_that_are_no_text(job: Job, url: str) -> None:
    """They come out as text that can be turned back, or as they are."""
    item = bytes(range(256))
    job.put(item)
    found = job.get(timeout=0)
    assert found.item.encode("utf-8", "surrogateescape") == item
    job.cancel(found.id)
    with Thoonk(url, decode=False) as plain:
        raw = plain.job("jobs")
        claimed = raw.get(timeout=0)
        assert claimed.item == item
        raw.put("text")
        assert raw.get(timeout=0).item == b"text"
        raw.finish(claimed.id, b"\xff", result=True)
        assert raw.get_result(claimed.id) == (item, b"\xff")
    # What came out goes in again unchanged.
    job.put(found.item, id="again")
    assert plain.job("jobs").get_item("again") == item


def test_a_large_item(job: Job, redis_server: RedisServer) -> None:
    # fakeredis's server ends the connection when a reply is larger than the socket's buffer.
    item = "x" * (5_000_000 if not redis_server.is_fake else 100_000)
    job.put(item)
    assert job.get(timeout=0).item == item


@pytest.mark.parametrize(
    "name", ["with space", "with\nnewline", "{braces}", "}odd{", "ü", "x" * 10_000, "a:b"]
)
def test_names_and_ids_of_any_kind(thoonk: Thoonk, name: str) -> None:
    job = thoonk.job(name)
    job.put("item", id=name)
    assert job.get(timeout=0) == (name, "item", 0)
    job.finish(name, "result")
    assert job.get_result(name) == ("item", "result")


@pytest.mark.parametrize(
    "wrong",
    [
        {"priority": 10}, {"priority": -1}, {"priority": "higher"}, {"priority": 1.5},
        {"priority": ""}, {"delay_seconds": -1}, {"delay_seconds": float("nan")},
        {"delay_seconds": float("inf")}, {"delay_seconds": "5"}, {"delay_seconds": True},
        {"delay_seconds": 1e11}, {"ttl_seconds": 0}, {"ttl_seconds": -1}, {"id": ""},
        {"id": "a\0b"}, {"id": 5}, {"item": None}, {"item": 5}, {"item": {"a": 1}},
    ],
    ids=repr,
)  # fmt: skip
def test_nonsense_is_refused(job: Job, wrong: dict[str, Any]) -> None:
    """With an error that names it; nothing is put."""
    with pytest.raises(ConfigurationError) as caught:
        job.put(**{"item": "item", **wrong})
    assert repr(next(iter(wrong.values()))) in str(caught.value) or "item" in wrong
    assert job.get_ids() == []


@pytest.mark.parametrize(
    "call",
    [
        lambda job: job.get(timeout=-1),
        lambda job: job.get(timeout="1"),
        lambda job: job.get_result("j", timeout=-1),
        lambda job: job.finish("j", "r", timeout=0),
        lambda job: job.finish("j", 5),
        lambda job: job.cancel("j", delay_seconds=-1),
        lambda job: job.cancel("j", max_deliveries=0),
        lambda job: job.get_ids("sleeping"),
        lambda job: job.maintenance(grace_seconds=-1),
        lambda job: job.configure(claim_timeout_seconds=0),
    ],
)
def test_nonsense_is_refused_elsewhere(job: Job, call: Any) -> None:
    job.put("item", id="j")
    job.get(timeout=0)
    with pytest.raises(ConfigurationError):
        call(job)
    assert job.get_ids("claimed") == ["j"]
