"""What happens to the server: workers connect again by themselves, and all tasks are done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.celery.exam import Exam
from tests.celery.workers import Worker
from tests.faults.holding import assert_none_lost, wait_settled
from tests.servers import RedisServer, wait_for
from tests.topologies import SentinelSetup

TASKS = 150
#: All tasks are done within so many seconds after the server is well again.
DONE_SECONDS = 120.0


@pytest.fixture
def durable(redis_server: RedisServer, scheme: str) -> Iterator[Exam]:
    """An exam whose broker is a server of its own that writes everything down at once."""
    server = RedisServer("--appendonly", "yes", "--appendfsync", "always").start()
    with Exam(redis_server, scheme, broker_server=server) as exam:
        yield exam
    server.stop()


@contextmanager
def meanwhile(every_seconds: float, act: Callable[[], object]) -> Iterator[list[int]]:
    """Do something to the server again and again while the block runs; yields how often."""
    times, over = [0], threading.Event()

    def run() -> None:
        while not over.wait(every_seconds):
            act()
            times[0] += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield times
    finally:
        over.set()
        thread.join()


def work_through(exam: Exam, tag: str, workers: list[Worker]) -> list[str]:
    """Publish in good times; returns the ids."""
    ids = [exam.task("record_late").delay(tag, n, 0.05).id for n in range(TASKS)]
    exam.wait_ended(tag, 5 * len(workers))
    return ids


@pytest.mark.parametrize("how", ["killed", "restarted"])
def test_the_server_is_gone_for_a_while(durable: Exam, how: str) -> None:
    tag, server = "aof", durable.broker_server
    with durable.worker() as one, durable.worker() as two:
        ids = work_through(durable, tag, [one, two])
        for _ in range(2):
            server.kill() if how == "killed" else server.shut_down()
            time.sleep(1)
            before = len(durable.counts(tag, "end"))
            server.start()
            durable.wait_ended(tag, min(TASKS, before + 20), DONE_SECONDS)
        durable.wait_ended(tag, TASKS, DONE_SECONDS)
        wait_settled(durable)
    assert_none_lost(durable, tag, ids)


def test_all_connections_are_killed_every_second(durable: Exam) -> None:
    """Those to the broker: what a task itself talks to is on another server."""
    tag = "client-kill"
    client = durable.broker_server.client(durable.broker_db)

    def kill_all() -> None:
        for kind in ("normal", "pubsub"):
            client.client_kill_filter(_type=kind, skipme=True)

    with durable.worker() as one, durable.worker() as two:
        ids = work_through(durable, tag, [one, two])
        with meanwhile(1.0, kill_all) as times:
            wait_for(lambda: times[0] >= 8, 60)
        durable.wait_ended(tag, TASKS, DONE_SECONDS)
        wait_settled(durable)
    print(f"killed all connections {times[0]} times")
    ended = assert_none_lost(durable, tag, ids)
    assert set(ended.values()) == {1}


def test_the_server_pauses(exam: Exam) -> None:
    tag = "pause"
    client = exam.broker_server.client(exam.broker_db)
    with exam.worker() as one, exam.worker() as two:
        ids = work_through(exam, tag, [one, two])
        for _ in range(3):
            client.client_pause(2000)
            client.ping()
        exam.wait_ended(tag, TASKS, DONE_SECONDS)
        wait_settled(exam)
    ended = assert_none_lost(exam, tag, ids)
    assert set(ended.values()) == {1}


def test_the_server_forgets_all_scripts(exam: Exam) -> None:
    tag = "script-flush"
    client = exam.broker_server.client(exam.broker_db)
    with (
        exam.worker() as one,
        exam.worker() as two,
        meanwhile(0.02, client.script_flush) as times,
    ):
        ids = work_through(exam, tag, [one, two])
        exam.wait_ended(tag, TASKS, DONE_SECONDS)
        wait_settled(exam)
    print(f"forgot all scripts {times[0]} times")
    ended = assert_none_lost(exam, tag, ids)
    assert set(ended.values()) == {1}


def test_the_server_has_no_memory_left(durable: Exam) -> None:
    tag, client = "oom", durable.broker_server.client(durable.broker_db)
    with durable.worker() as one, durable.worker() as two:
        ids = work_through(durable, tag, [one, two])
        client.config_set("maxmemory", 1)
        with pytest.raises(Exception, match="maxmemory"):
            durable.task("record_late").apply_async((tag, -1), retry=False)
        time.sleep(3)
        client.config_set("maxmemory", 0)
        ids.append(durable.task("record_late").delay(tag, TASKS, 0.0).id)
        durable.wait_ended(tag, TASKS + 1, DONE_SECONDS)
        wait_settled(durable)
    assert_none_lost(durable, tag, ids)


def test_a_replica_takes_over(redis_server: RedisServer, scheme: str) -> None:
    """What the master had not passed on is done again; what was published is not lost, once a
    replica has it."""
    tag = "sentinel"
    with SentinelSetup(3) as setup:
        settings = {"broker_transport_options": {"master_name": setup.master_name}}
        with Exam(
            redis_server, scheme, broker_server=setup.master, settings=settings
        ) as exam:  # fmt: skip
            exam.broker = setup.url(f"{scheme}+sentinel")
            exam.app = exam.make_app()
            with exam.worker() as one, exam.worker() as two:
                ids = work_through(exam, tag, [one, two])
                assert setup.master.client().wait(1, 5000) == 1
                setup.fail_over()
                more = exam.task("record_late").delay(tag, TASKS, 0.0).id
                exam.wait_ended(tag, TASKS + 1, DONE_SECONDS)
                exam.broker_server = setup.replica
                wait_settled(exam)
            assert_none_lost(exam, tag, [*ids, more])


def test_a_lone_client_waits_for_the_server(durable: Exam) -> None:
    """A publisher with a retry policy gets through when the server is back."""
    server = durable.broker_server
    durable.task("echo").apply_async(("before",))
    server.kill()
    threading.Timer(2, server.start).start()
    policy = {"max_retries": 30, "interval_start": 0.2, "interval_step": 0, "interval_max": 0.2}
    durable.task("echo").apply_async(("after",), retry=True, retry_policy=policy)
    assert durable.queue_size() == 2
