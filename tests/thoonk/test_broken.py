"""Connections and servers that go away: nothing is lost, nothing is done twice unnoticed."""

from __future__ import annotations

import asyncio
import threading

import pytest
import redis

from phonon_kombu.errors import FeedNotFound, ItemNotFound, NotClaimed, NotFound
from phonon_kombu.store.scripts import load
from phonon_kombu.thoonk import Empty, Job, Thoonk, aio
from tests.servers import start_server, wait_for

from .lossy import LossyLine


def sha(script: str) -> bytes:
    """What stands in every call of a script."""
    return load(script).sha.encode()


@pytest.fixture
def far_job(far: Thoonk) -> Job:
    """The job feed at the other end of the line, with every script loaded."""
    job = far.job("jobs")
    for _ in range(2):
        job.put("warm", id="w")
        job.get(timeout=0)
        job.cancel("w")
        job.get(timeout=0)
        job.finish("w", "r", result=True)
        job.put("warm", id="w")
        job.stall("w")
        job.retry("w")
        job.retract("w")
        with pytest.raises(Empty):
            job.get(timeout=0)
        job.put("warm", id="w")
        job.finish(job.get(timeout=0).id)
    return job


def test_the_reply_to_a_claim_is_lost(far_job: Job, line: LossyLine, job: Job) -> None:
    """The claim is given back and made again: the caller notices nothing."""
    for name in ("a", "b", "c"):
        job.put(f"item {name}", id=name)
    assert far_job.get(timeout=0).id == "a"
    line.lose(sha("job/claim"))
    assert far_job.get(timeout=5).id == "b"
    assert line.lost == 1
    assert far_job.get(timeout=0).id == "c"
    for name in ("a", "b", "c"):
        far_job.finish(name)
    assert job.get_ids() == []


def test_the_line_stays_broken_for_a_claim(far_job: Job, line: LossyLine, job: Job) -> None:
    """It says so; the next call gives back what was claimed, and keeps what is in hand."""
    for name in ("a", "b"):
        job.put(f"item {name}", id=name)
    assert far_job.get(timeout=0).id == "a"
    line.lose(sha("job/claim"))
    # What gives the claim back is lost too, twice: it is sent again once by itself.
    lossy = line.lose

    def then_recover() -> None:
        wait_for(lambda: line.lost == 1, 10)
        lossy(sha("job/recover"), times=2, before=True)

    watching = threading.Thread(target=then_recover)
    watching.start()
    try:
        claimed = far_job.get(timeout=5)
    except redis.ConnectionError:
        assert sorted(job.get_ids("claimed")) == ["a", "b"]
        claimed = far_job.get(timeout=5)
    watching.join(10)
    assert claimed.id == "b"
    assert sorted(job.get_ids("claimed")) == ["a", "b"]
    far_job.finish("a")
    far_job.finish("b")


@pytest.mark.parametrize("before", [True, False])
def test_the_reply_to_the_end_of_a_claim_is_lost(
    far_job: Job, line: LossyLine, job: Job, before: bool
) -> None:
    """Whether or not the first try was carried out, it is done once and reported as done."""
    for name in ("finish", "resolve", "cancel"):
        job.put("item", id=name)
        assert far_job.get(timeout=0).id == name
    line.lose(sha("job/finish"), before=before)
    far_job.finish("finish")
    line.lose(sha("job/resolve"), before=before)
    far_job.finish("resolve", "result")
    line.lose(sha("job/cancel"), before=before)
    far_job.cancel("cancel")
    assert line.lost == 3
    assert job.get_ids() == ["cancel"]
    assert job.get_failure_count("cancel") == 1
    assert job.get_result("resolve", timeout=0) == ("item", "result")


def test_a_refusal_after_a_lost_reply(far_job: Job, line: LossyLine, job: Job) -> None:
    """What was never in our hand is refused, whichever try says so."""
    job.put("item", id="j")
    for operation in ("finish", "cancel"):
        line.lose(sha(f"job/{operation}"))
        with pytest.raises(NotClaimed):
            getattr(far_job, operation)("j")
    line.lose(sha("job/stall"))
    with pytest.raises(NotFound):
        far_job.stall("never")
    assert line.lost == 3


@pytest.mark.parametrize("before", [True, False])
def test_the_reply_to_an_operator_is_lost(
    far_job: Job, line: LossyLine, job: Job, before: bool
) -> None:
    job.put("item", id="j")
    line.lose(sha("job/stall"), before=before)
    far_job.stall("j", "why")
    assert job.get_reason("j") == "why"
    line.lose(sha("job/retry"), before=before)
    far_job.retry("j")
    assert job.get_ids("ready") == ["j"]
    line.lose(sha("job/retract"), before=before)
    far_job.retract("j")
    assert job.get_ids() == []
    assert line.lost == 3


@pytest.mark.parametrize("before", [True, False])
def test_the_reply_to_a_put_is_lost(far_job: Job, line: LossyLine, job: Job, before: bool) -> None:
    """It is put once."""
    line.lose(sha("job/put"), before=before)
    made = far_job.put("item")
    line.lose(sha("job/put"), before=before)
    far_job.put("item", id="given")
    assert line.lost == 2
    assert job.get_ids("ready") == [made, "given"]
    assert job.get(timeout=0).id == made and job.get(timeout=0).id == "given"
    with pytest.raises(Empty):
        job.get(timeout=0)


def test_the_reply_to_the_taking_of_an_item_is_lost(
    far: Thoonk, line: LossyLine, thoonk: Thoonk
) -> None:
    """A queue's item is gone, and the caller is told that something may be."""
    queue = thoonk.queue("items")
    for item in ("a", "b"):
        queue.put(item)
    far_queue = far.queue("items")
    with pytest.raises(Empty):
        far.queue("empty").get(timeout=0)
    line.lose(sha("queue/get"))
    with pytest.raises(redis.ConnectionError):
        far_queue.get(timeout=5)
    assert far_queue.get(timeout=5) == "b"


def test_an_idle_connection_that_was_closed(far: Thoonk, line: LossyLine) -> None:
    """That is no reason for an error: nothing can have been taken through it."""
    queue = far.queue("items")
    job = far.job("jobs")
    for _ in range(2):
        queue.put("item")
        line.cut()
        assert queue.get(timeout=5) == "item"
        job.put("item", id="j")
        line.cut()
        assert job.get(timeout=5) == ("j", "item", 0)
        line.cut()
        job.finish("j")


def test_what_is_missing_is_said_over_a_connection_that_was_closed(
    far: Thoonk, line: LossyLine
) -> None:
    """Nothing was sent over it: the refusal is not that of a repeat."""
    wishes = far.sorted_feed("s")
    line.cut()
    wishes.append("without an id it is sent only once")
    feed = far.feed("f")
    acts = ((feed.retract, ItemNotFound), (far.delete_feed, FeedNotFound))
    for act, refusal in acts:
        feed.has_id("a")
        line.cut()
        with pytest.raises(refusal):
            act("nothing")

    async def body() -> None:
        async with aio.Thoonk("127.0.0.1", line.port) as session:
            feed = await session.feed("f")
            for act, refusal in ((feed.retract, ItemNotFound), (session.delete_feed, FeedNotFound)):
                await feed.has_id("a")
                line.cut()
                with pytest.raises(refusal):
                    await act("nothing")

    asyncio.run(asyncio.wait_for(body(), 20))


def test_a_closed_session_can_be_used_again(far: Thoonk, line: LossyLine) -> None:
    """Closing it closes its connections; the heart beats on while something is claimed."""
    job = far.job("jobs")
    job.put("item", id="j")
    job.get(timeout=0)
    with pytest.raises(Empty):
        job.get(timeout=0.05)
    assert line.connections == 3
    far.close()
    wait_for(lambda: line.connections == 1, 5)
    job.finish("j")
    far.close()
    wait_for(lambda: line.connections == 0, 5)


def test_no_heart_beats_for_a_feed_that_was_deleted(far: Thoonk, line: LossyLine) -> None:
    """Also where jobs of it were claimed."""
    job = far.job("jobs")
    job.put("item")
    job.get(timeout=0)
    far.delete_feed("jobs")
    far.close()
    wait_for(lambda: line.connections == 0, 5)


def test_the_wait_is_broken(far_job: Job, line: LossyLine, job: Job) -> None:
    """The caller learns of it, and can wait again."""
    wake = far_job.keys.wake  # not the wait of the heart
    line.lose(b"BZPOPMIN\r\n$%d\r\n%b" % (len(wake), wake))
    with pytest.raises(redis.ConnectionError):
        while True:
            far_job.get(timeout=5)
    job.put("item", id="j")
    assert far_job.get(timeout=5).id == "j"


def test_claims_in_hand_that_others_ended_are_forgotten(
    job: Job, other: Thoonk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One object that claims while others finish does not grow without end."""
    monkeypatch.setattr("phonon_kombu.thoonk.claims.FEWEST_TO_PRUNE", 20)
    job._hand.prune_at = 20
    theirs = other.job("jobs")
    kept = []
    for number in range(200):
        job.put("item")
        claimed = job.get(timeout=0)
        if number % 20:
            theirs.finish(claimed.id, force=True)
        else:
            kept.append(claimed.id)
    assert len(job._hand.ids) <= 40
    assert {name.encode() for name in kept} <= job._hand.ids
    for name in kept:
        job.finish(name)


def test_a_server_that_is_restarted() -> None:
    """With its data: what was in hand can be finished, what waits is claimed."""
    server = start_server("--appendonly", "yes", "--appendfsync", "always")
    with server, Thoonk(server.url("phonon")) as session:
        job = session.job("jobs")
        for name in ("a", "b"):
            job.put("item", id=name)
        assert job.get(timeout=0).id == "a"
        server.restart()
        job.finish("a")
        assert job.get(timeout=5).id == "b"
        server.restart()
        assert job.put("item", id="c") == "c"
        job.finish("b", "result")
        assert job.get_result("b", timeout=5) == ("item", "result")


def test_scripts_that_the_server_has_forgotten(job: Job, redis_client: redis.Redis) -> None:
    """As after a restart or a failover."""
    for _ in range(2):
        redis_client.script_flush()
        job.put("item", id="j")
        redis_client.script_flush()
        assert job.get(timeout=0).id == "j"
        redis_client.script_flush()
        job.finish("j")
