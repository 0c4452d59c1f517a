"""A connection is lost and the worker lives: what it is at work on is not run a second time."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.celery.exam import Exam
from tests.celery.workers import Worker
from tests.faults.holding import assert_none_lost, held_by, holders, wait_settled
from tests.servers import RedisServer, wait_for

TAG = "lost"


@pytest.fixture
def exam(redis_server: RedisServer, scheme: str) -> Iterator[Exam]:
    """An exam whose broker is a server of its own, so that only connections to it suffer. It writes
    everything down at once."""
    server = RedisServer("--appendonly", "yes", "--appendfsync", "always").start()
    with Exam(redis_server, scheme, broker_server=server) as exam:
        yield exam
    server.stop()


def cut(exam: Exam, *kinds: str) -> None:
    """Kill all connections of these kinds."""
    for kind in kinds:
        exam.broker_server.client(exam.broker_db).client_kill_filter(_type=kind, skipme=True)


def wait_back(exam: Exam, *workers: Worker) -> None:
    """Wait until these have connected again, and hold all that can be held."""
    for worker in workers:
        worker.wait_for_log("Connected to phonon://", count=2)
    wait_for(lambda: exam.queue_size() == 0, 20, message="nobody takes what was given back")


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "eventlet"])
@pytest.mark.parametrize("kinds", [("pubsub",), ("normal", "pubsub")], ids=["pubsub", "all"])
def test_what_runs_meanwhile_runs_once(exam: Exam, pool: str, kinds: tuple[str, ...]) -> None:
    """Two workers: each would gladly run again what the other has begun. Half of what they hold has
    not begun, but under green threads: there a worker with a full pool notices nothing."""
    ahead = 1 if pool in ("gevent", "eventlet") else 2
    settings = {"worker_prefetch_multiplier": ahead}
    with (
        exam.worker(pool=pool, settings=settings) as one,
        exam.worker(pool=pool, settings=settings) as two,
    ):
        ids = [exam.task("gate_late").delay(TAG).id for _ in range(4 * ahead)]
        exam.wait_started(TAG, 4)
        wait_for(lambda: exam.queue_size() == 0, 20, message="they hold half of them each")
        cut(exam, *kinds)
        wait_back(exam, one, two)
        exam.open_gate(TAG)
        exam.wait_ended(TAG, len(ids))
        wait_settled(exam)
    assert_none_lost(exam, TAG, ids)
    assert exam.counts(TAG) == dict.fromkeys(ids, 1)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_the_server_is_killed_meanwhile(exam: Exam, pool: str) -> None:
    server = exam.broker_server
    settings = {"worker_prefetch_multiplier": 1}
    with (
        exam.worker(pool=pool, settings=settings) as one,
        exam.worker(pool=pool, settings=settings) as two,
    ):
        ids = [exam.task("gate_late").delay(TAG).id for _ in range(4)]
        exam.wait_started(TAG, 4)
        for count in (2, 3):
            server.kill()
            for worker in (one, two):
                worker.wait_for_log("Trying again in", count=count - 1)
            server.start()
            for worker in (one, two):
                worker.wait_for_log("Connected to phonon://", count=count)
            exam.listening(one, two)  # only now all of their steps have started again
        exam.open_gate(TAG)
        exam.wait_ended(TAG, len(ids))
        wait_settled(exam)
    assert_none_lost(exam, TAG, ids)
    assert exam.counts(TAG) == dict.fromkeys(ids, 1)


def test_what_it_says_in_the_end_counts(exam: Exam) -> None:
    """A requeue, a retry, a stall: of messages whose connection has gone."""
    ends = ("requeue", "retry", "stall")
    with exam.worker(concurrency=3) as worker:
        ids = {end: exam.task("gate_late").delay(TAG, end).id for end in ends}
        exam.wait_started(TAG, len(ends))
        cut(exam, "normal", "pubsub")
        wait_back(exam, worker)
        exam.open_gate(TAG)
        exam.wait_ended(TAG, 2)
        wait_for(lambda: holders(exam) == {}, 20, message="something is held")
        client = exam.broker_server.client(exam.broker_db)
        assert client.smembers("feed.stalled:{exam}") == {ids["stall"].encode()}
    assert exam.counts(TAG) == {ids[end]: 1 + (end != "stall") for end in ends}


def test_a_worker_is_killed_after_it_has_connected_again(exam: Exam) -> None:
    """Its claims are those of the process: another one takes them over."""
    with exam.worker(may_fail=True) as victim:
        ids = [exam.task("gate_late").delay(TAG).id for _ in range(2)]
        exam.wait_started(TAG, 2)
        cut(exam, "normal", "pubsub")
        wait_back(exam, victim)
        assert held_by(exam, victim) == set(ids)
        with exam.worker():
            victim.kill()
            exam.wait_started(TAG, 4, 20)
            exam.open_gate(TAG)
            exam.wait_ended(TAG, 2)
            wait_settled(exam)
    assert_none_lost(exam, TAG, ids)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_warm_shutdown_after_it_has_connected_again(exam: Exam, pool: str) -> None:
    """The tasks are done, and their acknowledgements leave before the process does."""
    with exam.worker(pool=pool) as worker:
        ids = [exam.task("gate_late").delay(TAG).id for _ in range(2)]
        exam.wait_started(TAG, 2)
        cut(exam, "normal", "pubsub")
        wait_back(exam, worker)
        worker.send_signal(signal.SIGTERM)
        worker.wait_for_log("Warm shutdown")
        exam.open_gate(TAG)
        assert worker.join() == 0
    assert exam.counts(TAG, "end") == exam.counts(TAG) == dict.fromkeys(ids, 1)
    assert holders(exam) == {} and exam.queue_size() == 0


def test_a_cold_shutdown_after_it_has_connected_again(exam: Exam) -> None:
    """What was being worked on is back in the queue when the process has ended."""
    with exam.worker(may_fail=True) as worker:
        ids = [exam.task("gate_late").delay(TAG).id for _ in range(2)]
        exam.wait_started(TAG, 2)
        cut(exam, "normal", "pubsub")
        wait_back(exam, worker)
        worker.stop(signal.SIGQUIT)
    assert holders(exam) == {} and exam.queue_size() == 2
    with exam.worker():
        exam.open_gate(TAG)
        exam.wait_ended(TAG, 2)
        wait_settled(exam)
    assert exam.counts(TAG) == dict.fromkeys(ids, 2)


def test_celery_ends_them_by_itself_where_it_is_told_to(exam: Exam) -> None:
    """`worker_cancel_long_running_tasks_on_connection_loss`: then they are delivered again."""
    settings = {"worker_cancel_long_running_tasks_on_connection_loss": True}
    with exam.worker(settings=settings) as worker:
        ids = [exam.task("gate_late").delay(TAG).id for _ in range(2)]
        exam.wait_started(TAG, 2)
        cut(exam, "normal", "pubsub")
        exam.wait_started(TAG, 4)
        exam.open_gate(TAG)
        exam.wait_ended(TAG, 2)
        wait_settled(exam)
        assert worker.running
    assert exam.counts(TAG) == dict.fromkeys(ids, 2)
