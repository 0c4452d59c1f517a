"""Jobs looked up and listed in slices, in a long queue too."""

from __future__ import annotations

from typing import Any

import pytest

from phonon_kombu.errors import ConfigurationError
from phonon_kombu.thoonk import Description, Job, Thoonk
from tests.servers import RedisServer


def put_many(job: Job, count: int, first: int = 0) -> list[str]:
    """Put so many small jobs in few writes: most of them in the same few milliseconds."""
    script = job._script("job/append")
    ids = [f"j{n:07}" for n in range(first, first + count)]
    for start in range(0, count, 1000):
        part = ids[start : start + 1000]
        job.session.link.send([(script, (ident.encode(), b"item", b"")) for ident in part])
    return ids


def walk(job: Job, state: str, **options: Any) -> list[Description]:
    """All jobs in a state, slice by slice."""
    found, cursor = [], None
    while True:
        part = job.look(state, cursor, **options)
        # A small set comes at once, and a scan of a big one goes by its buckets.
        assert len(part.jobs) <= options.get("limit", 200) or state == "stalled"
        found += part.jobs
        cursor = part.cursor
        if cursor is None:
            return found


def test_a_job_is_described_in_each_state(job: Job) -> None:
    job.put('{"headers":{}}\nbody', id="ready", priority=3, ttl_seconds=60)
    job.put("x", id="scheduled", delay_seconds=600)
    job.put("x" * 100_000, id="claimed", priority=job.HIGH)
    for _ in range(3):
        assert job.get(timeout=0).id == "claimed"
        job.cancel("claimed")
    assert job.get(timeout=0).id == "claimed"
    job.put("x", id="stalled")
    job.stall("stalled", "out of paper")

    ready, scheduled, claimed, stalled = job.describe("ready", "scheduled", "claimed", "stalled")

    assert (ready.state, ready.level, ready.head) == ("ready", 3, b'{"headers":{}}')
    assert ready.expires_at == pytest.approx(ready.put_at + 60, abs=0.1)
    assert (ready.failures, ready.owner, ready.reason, ready.due_at) == (None,) * 4
    assert scheduled.state == "scheduled"
    assert scheduled.due_at == pytest.approx(scheduled.put_at + 600, abs=0.1)
    assert (claimed.state, claimed.failures, claimed.size_bytes) == ("claimed", 3, 100_000)
    assert claimed.claimed_at >= claimed.put_at and claimed.owner
    assert claimed.head == b"x" * 16384
    assert (stalled.state, stalled.reason, stalled.put_at) == ("stalled", "out of paper", None)
    assert job.describe("nobody") == []


def test_slices_come_in_order_and_are_complete(job: Job) -> None:
    ids = put_many(job, 1000)
    for ident in ids[::10]:
        job.stall(ident)
    held = [job.get(timeout=0).id for _ in range(50)]
    for number in range(30):
        job.put("later", id=f"s{number:02}", delay_seconds=600 + number)
    waiting = [i for i in ids if i not in {*ids[::10], *held}]

    assert [d.id for d in walk(job, "ready", limit=7)] == waiting
    assert [d.id for d in walk(job, "claimed", limit=7)] == held
    assert [d.id for d in walk(job, "scheduled", limit=7)] == [f"s{n:02}" for n in range(30)]
    assert sorted(d.id for d in walk(job, "stalled", limit=7)) == ids[::10]


@pytest.mark.parametrize("state", ["ready", "stalled", "scheduled"])
def test_jobs_that_go_while_they_are_listed_hide_no_other(job: Job, state: str) -> None:
    ids = put_many(job, 500)
    if state == "stalled":
        for ident in ids:
            job.stall(ident)
    elif state == "scheduled":
        ids = [job.put("x", delay_seconds=1000) for _ in range(300)]
    found, cursor = set(), None
    while True:
        part = job.look(state, cursor, limit=20)
        found |= {d.id for d in part.jobs}
        for gone in part.jobs:
            job.retract(gone.id)
        cursor = part.cursor
        if cursor is None:
            break
    assert found == set(ids)


def test_only_what_was_put_before(job: Job, redis_server: RedisServer) -> None:
    old = put_many(job, 10)
    redis_server.client().zadd(job.keys.published, dict.fromkeys(old, 1_000_000_000_000))
    put_many(job, 10, first=10)
    now = job.look("ready").now
    assert [d.id for d in walk(job, "ready", limit=3, put_before=now - 3600)] == old
    assert len(walk(job, "ready", limit=3, put_before=now + 3600)) == 20
    held = {job.get(timeout=0).id for _ in range(12)}
    assert {d.id for d in walk(job, "claimed", put_before=now - 3600)} == held & set(old)


@pytest.mark.parametrize(
    "options",
    [{"state": "lost"}, {"limit": 0}, {"limit": 201}, {"limit": True}, {"put_before": -1}],
)
def test_what_makes_no_sense_is_refused(job: Job, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        job.look(**{"state": "ready"} | options)


def test_looking_works_on_bare_names(thoonk: Thoonk, url: str) -> None:
    with Thoonk(url, hash_tags=False) as bare:
        feed = bare.job("bare")
        feed.put("x", id="a")
        assert [d.id for d in feed.describe("a")] == ["a"]
        assert [d.id for d in walk(feed, "ready")] == ["a"]
