"""Processes that stand still for so long that they are taken for dead, and wake."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.celery.exam import Exam
from tests.faults.holding import assert_none_lost, holders, wait_settled
from tests.kombu.exam import Broker, DrainPump, Inbox
from tests.kombu.peer import Peer
from tests.servers import RedisServer, freeze, wait_for

OPTIONS = {"node_ttl": 2, "heartbeat_interval": 0.5, "presence_grace": 0.5}


@pytest.fixture
def broker(redis_server: RedisServer, redis_db: str) -> Iterator[Broker]:
    """Consumers without Celery, which do one thing at a time."""
    with Broker("phonon", redis_server) as broker:
        yield broker


def frozen_holder(broker: Broker) -> Peer:
    """Another process that holds message 1 and 2 and stands still."""
    peer = broker.peer(transport_options=OPTIONS)
    broker.send("q", 1, 2)
    assert peer("hold", queue="q", count=2) == [1, 2]
    freeze(peer.process.pid)
    return peer


def wake(broker: Broker, peer: Peer, what: str) -> None:
    """Let it go on, do `what`, and say so; wait until Redis has heard it."""
    before = finish_calls(broker)
    peer.process.send_signal(signal.SIGCONT)
    peer(what)
    wait_for(lambda: finish_calls(broker) > before, message="nothing was said")
    wait_for(
        lambda: len(broker.client.zrange("node.beats:{nodes}", 0, -1)) == 2,
        message="it did not join again",
    )


def finish_calls(broker: Broker) -> int:
    """How many scripts the server has run."""
    stats: Any = broker.client.info("commandstats")
    return int(stats.get("cmdstat_evalsha", {}).get("calls", 0))


def state(broker: Broker, job: str) -> tuple[bool, str]:
    """Whether the job is claimed, and what stands for its owner."""
    claimed = broker.client.zscore("feed.claimed:{q}", job) is not None
    return claimed, (broker.client.hget("feed.owners:{q}", job) or b"").decode()


def jobs(broker: Broker) -> list[str]:
    """Ids of all jobs, oldest first."""
    return [job.decode() for job in broker.client.zrange("feed.published:{q}", 0, -1)]


@pytest.mark.parametrize("what", ["ack_all", "requeue_all"])
def test_late_words_about_a_job_of_another_change_nothing(broker: Broker, what: str) -> None:
    peer = frozen_holder(broker)
    connection = broker.connection(transport_options=OPTIONS)
    inbox = Inbox(ack=False)
    broker.consumer(connection, "q", inbox)
    pump = DrainPump(connection)
    pump.until(inbox.has(2), 30)
    assert inbox.bodies == [1, 2]
    ids = jobs(broker)
    before = [state(broker, job) for job in ids]
    assert all(claimed for claimed, _ in before)

    wake(broker, peer, what)

    assert sorted(jobs(broker)) == sorted(ids)  # put in one millisecond they stand in any order
    assert [state(broker, job) for job in ids] == before
    assert broker.size("q") == 0
    for message in inbox.messages:
        message.ack()
    connection.release()
    assert broker.client.hlen("feed.items:{q}") == 0


def test_a_late_ack_of_what_nobody_has_taken_counts(broker: Broker) -> None:
    """It has done the work: nobody need do it again."""
    peer = frozen_holder(broker)
    connection = broker.connection(transport_options=OPTIONS)
    inbox = Inbox()
    broker.consumer(connection, "other", inbox)
    pump = DrainPump(connection)
    # This one only looks after the dead.
    pump.until(lambda: broker.size("q") == 2, 30)
    assert [state(broker, job)[1][:5] for job in jobs(broker)] == ["late:", "late:"]

    wake(broker, peer, "ack_all")

    wait_for(lambda: broker.client.hlen("feed.items:{q}") == 0, message="it did not count")
    assert broker.size("q") == 0
    broker.consumer(connection, "q", inbox)
    broker.send("q", 3)
    pump.until(inbox.has(1), 30)
    assert inbox.bodies == [3]


def test_a_late_requeue_of_what_nobody_has_taken_changes_nothing(broker: Broker) -> None:
    peer = frozen_holder(broker)
    connection = broker.connection(transport_options=OPTIONS)
    inbox = Inbox()
    broker.consumer(connection, "other", Inbox())
    pump = DrainPump(connection)
    pump.until(lambda: broker.size("q") == 2, 30)
    failures = broker.client.hgetall("feed.cancelled:{q}")

    wake(broker, peer, "requeue_all")

    assert broker.size("q") == 2
    assert broker.client.hgetall("feed.cancelled:{q}") == failures
    broker.consumer(connection, "q", inbox)
    pump.until(inbox.has(2), 30)
    assert inbox.bodies == [1, 2]


def test_a_late_ack_is_not_for_another_message_of_the_same_id(broker: Broker) -> None:
    """The job it knew was deleted, and another was put under its id."""
    peer = frozen_holder(broker)
    connection = broker.connection(transport_options=OPTIONS)
    broker.consumer(connection, "other", Inbox())
    DrainPump(connection).until(lambda: broker.size("q") == 2, 30)
    ids = jobs(broker)
    with connection.clone() as own:
        own.default_channel.queue_purge("q")
    for job in ids:
        broker.send("q", f"new {job}", headers={"id": job, "task": "t"})
    assert sorted(jobs(broker)) == sorted(ids)  # put in one millisecond they stand in any order

    wake(broker, peer, "ack_all")

    assert sorted(broker.get_all("q")) == sorted(f"new {job}" for job in ids)


def test_a_frozen_worker_comes_back(exam: Exam) -> None:
    tag = "frozen"
    settings = {"broker_transport_options": {"node_ttl": 3, "heartbeat_interval": 1}}
    with (
        exam.worker(concurrency=1, settings=settings, may_fail=True) as frozen,
        exam.worker(concurrency=1, settings=settings),
    ):
        results = [exam.task("record_late").delay(tag, n, 0.2) for n in range(30)]
        wait_for(lambda: len(holders(exam)) == 2, message="only one worker holds jobs")
        freeze(frozen.pid)
        exam.wait_ended(tag, len(results) - 1)
        frozen.send_signal(signal.SIGCONT)
        frozen.wait_for_log("taken for dead")
        exam.wait_ended(tag, len(results))
        results += [exam.task("record_late").delay(tag, n, 0.2) for n in range(20)]
        exam.wait_ended(tag, len(results))
        wait_settled(exam)
    assert_none_lost(exam, tag, [result.id for result in results])
