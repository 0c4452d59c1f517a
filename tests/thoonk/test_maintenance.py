"""Housekeeping: what is due, late, expired; jobs that a foreign client has lost."""

from __future__ import annotations

import threading
import time

import pytest
import redis

from phonon_kombu.errors import NotClaimed
from phonon_kombu.thoonk import Empty, Job, Maintained, Thoonk, upkeep
from tests.servers import RedisServer, wait_for

NOTHING = Maintained(0, 0, 0, 0)


def test_nothing_to_do(job: Job) -> None:
    job.put("item")
    job.put("item", delay_seconds=600)
    job.stall(job.put("item"))
    job.get(timeout=0)
    job.retract(job.put("item"))
    assert job.maintenance() == NOTHING


def test_a_job_that_a_raw_client_has_lost(job: Job, redis_client: redis.Redis) -> None:
    """It took the id from the list and died before it claimed the job."""
    for name in ("a", "b", "c"):
        job.put(f"item {name}", id=name)
    assert redis_client.brpop("feed.ids:{jobs}", 1) == (b"feed.ids:{jobs}", b"a")

    assert job.maintenance(grace_seconds=0.05) == Maintained(0, 0, 0, relisted=1)

    assert [job.get(timeout=0).item for _ in range(3)] == ["item a", "item b", "item c"]
    assert job.maintenance() == NOTHING


def test_lost_jobs_keep_their_level(job: Job, redis_client: redis.Redis) -> None:
    job.put("low", id="low", priority=7)
    job.put("high", id="high", priority=2)
    assert redis_client.rpop("feed.ids.7:{jobs}") == b"low"
    assert redis_client.rpop("feed.ids.2:{jobs}") == b"high"
    assert job.maintenance(grace_seconds=0).relisted == 2
    assert [job.get(timeout=0).item for _ in range(2)] == ["high", "low"]


def test_a_long_queue(
    job: Job, redis_client: redis.Redis, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than one slice of everything: exactly what was lost comes back, once."""
    count = 3000
    if redis_server.is_fake:  # a hundred times slower
        count = 150
        monkeypatch.setattr(upkeep, "WALK_SLICE", 20)
    for number in range(count):
        job.put("item", id=f"{number:04}", priority=number % 3)
    lost = {b"%04d" % n for n in (0, 1, 2, 50, count // 2, count - 1)}
    for name in lost:
        level = int(name) % 3
        assert redis_client.lrem(f"feed.ids{f'.{level}' if level else ''}:{{jobs}}", 0, name) == 1
    assert job.maintenance(grace_seconds=0).relisted == len(lost)
    claimed = [job.get(timeout=0).id for _ in range(count)]
    assert sorted(claimed) == [f"{number:04}" for number in range(count)]


def test_a_foreign_client_that_is_about_to_claim(job: Job, redis_client: redis.Redis) -> None:
    """Between its two commands the job looks lost: it has the grace to claim it."""
    job.put("item", id="j")
    assert redis_client.rpop("feed.ids:{jobs}") == b"j"
    maintained: list[Maintained] = []
    keeping = threading.Thread(target=lambda: maintained.append(job.maintenance(1.0)))
    keeping.start()
    keeping.join(0.2)
    redis_client.zadd("feed.claimed:{jobs}", {"j": int(time.time() * 1000)})
    keeping.join(20)
    assert maintained == [NOTHING]
    assert redis_client.llen("feed.ids:{jobs}") == 0


def test_jobs_that_move_are_not_taken_for_lost(
    job: Job, other: Thoonk, url: str, redis_client: redis.Redis, redis_server: RedisServer
) -> None:
    """Others put, claim, cancel and finish while lost jobs are looked for, again and again."""
    ending = threading.Event()
    done: list[str] = []

    def churn(session: Thoonk, name: str) -> None:
        feed = session.job("jobs")
        number = 0
        while not ending.is_set():
            feed.put("item", id=f"{name}.{number}", delay_seconds=0.01 if number % 7 == 0 else None)
            number += 1
            if number % 3:
                claimed = feed.get(timeout=5)
                if number % 5 == 0:
                    feed.cancel(claimed.id)
                else:
                    feed.finish(claimed.id)
                    done.append(claimed.id)

    for number in range(1200 if not redis_server.is_fake else 30):
        job.put("item", id=f"first.{number}")
    with Thoonk(url) as third:
        threads = [
            threading.Thread(target=churn, args=(session, name))
            for session, name in ((other, "a"), (third, "b"))
        ]
        for thread in threads:
            thread.start()
        relisted = 0
        for _ in range(10):
            # A real loss, so that there is a walk.
            lost = redis_client.rpop("feed.ids:{jobs}")
            relisted += job.maintenance(grace_seconds=0.02).relisted - (lost is not None)
        ending.set()
        for thread in threads:
            thread.join(20)
    # What was in flux at one look is seen at the other, or belongs to the next call.
    assert -10 <= relisted <= 0
    job.maintenance(grace_seconds=0)
    while True:
        try:
            claimed = job.get(timeout=0)
        except Empty:
            if not job.stats().scheduled:
                break
            continue
        job.finish(claimed.id)
        done.append(claimed.id)
    assert len(done) == len(set(done))
    assert job.get_ids() == []
    assert len(done) == job.stats().publishes


def test_a_claim_that_is_too_old(job: Job, other: Thoonk) -> None:
    """Where the feed has a claim timeout it is cancelled; its holder learns so at the end."""
    job.configure(claim_timeout_seconds=0.2)
    job.put("item", id="j")
    job.get(timeout=0)
    theirs = other.job("jobs")
    assert theirs.maintenance() == NOTHING
    late = wait_for(lambda: theirs.maintenance().timed_out, 5)
    assert late == 1
    assert theirs.get(timeout=0) == ("j", "item", 1)
    with pytest.raises(NotClaimed):
        job.finish("j")
    theirs.finish("j")


def test_a_foreign_claim_that_is_too_old(job: Job, redis_client: redis.Redis) -> None:
    """Nothing else takes the claim of a client without an owner back."""
    job.put("item", id="j")
    redis_client.rpop("feed.ids:{jobs}")
    redis_client.zadd("feed.claimed:{jobs}", {"j": int(time.time() * 1000) - 1000})
    assert job.maintenance() == NOTHING
    job.configure(claim_timeout_seconds=0.5)
    assert job.maintenance().timed_out == 1
    assert job.get(timeout=0) == ("j", "item", 1)


def test_many_old_claims(job: Job) -> None:
    count = 120
    for number in range(count):
        job.put(f"{number}")
    claimed = [job.get(timeout=0) for _ in range(count)]
    job.configure(claim_timeout_seconds=0.001)
    counts = [job.maintenance().timed_out]
    # Not until a slice is empty: the last claim may be younger than a millisecond.
    wait_for(lambda: counts.append(job.maintenance().timed_out) or sum(counts) >= count, 5)
    assert sum(counts) == count
    job.configure(claim_timeout_seconds=None)
    again = [job.get(timeout=0) for _ in range(count)]
    assert sorted(entry.item for entry in again) == sorted(entry.item for entry in claimed)
    assert {entry.cancelled for entry in again} == {1}
    assert job.maintenance() == NOTHING


def test_without_a_timeout_no_claim_is_too_old(job: Job, redis_client: redis.Redis) -> None:
    job.put("item", id="j")
    job.get(timeout=0)
    redis_client.zadd("feed.claimed:{jobs}", {"j": 1})
    assert job.maintenance() == NOTHING
    job.finish("j")


def test_due_and_expired(job: Job) -> None:
    """In slices: more than one of each."""
    count = 120
    for number in range(count):
        job.put("due", id=f"due {number}", delay_seconds=0.05)
        job.put("mortal", id=f"mortal {number}", ttl_seconds=0.05)
    last = time.time() + 0.06
    wait_for(lambda: time.time() > last, 5)
    assert job.maintenance() == Maintained(count, count, 0, 0)
    stats = job.stats()
    assert (stats.ready, stats.scheduled) == (count, 0)
    assert {job.get(timeout=0).item for _ in range(count)} == {"due"}


def test_more_ghosts_than_can_be_counted(job: Job, redis_client: redis.Redis) -> None:
    """Entries of retracted jobs are left in the lists: a lost job is found all the same."""
    for number in range(20):
        job.put("item", id=f"{number}")
    retracted = [f"retracted {number}" for number in range(650)]
    redis_client.rpush("feed.ids:{jobs}", *retracted)
    redis_client.hset("feed.ghosts:{jobs}", mapping=dict.fromkeys(retracted, 1))
    assert redis_client.lrem("feed.ids:{jobs}", 0, "15") == 1
    assert job.maintenance(grace_seconds=0).relisted == 1
    assert sorted(int(job.get(timeout=0).id) for _ in range(20)) == list(range(20))
