"""Other releases, other feeds' consumers and other processes beside ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from phonon_kombu.errors import LayoutMismatch
from phonon_kombu.thoonk import Thoonk
from tests.celery.exam import Exam
from tests.faults.holding import assert_none_lost, wait_settled
from tests.kombu.exam import Broker, DrainPump, Inbox
from tests.servers import RedisServer, wait_for

RECOVERY_SECONDS = 6.0


@pytest.fixture
def broker(redis_server: RedisServer, redis_db: str) -> Iterator[Broker]:
    """Consumers without Celery."""
    with Broker("phonon", redis_server) as broker:
        yield broker


def test_data_of_a_newer_layout_are_refused(exam: Exam) -> None:
    """By workers, publishers and Thoonk sessions, naming both layouts; nothing is written."""
    client = exam.broker_server.client(exam.broker_db)
    client.set("phonon.layout", 2)
    with pytest.raises(LayoutMismatch, match=r"has layout 2.*reads layout 1"):
        exam.task("echo").apply_async((1,), retry=False)
    with pytest.raises(LayoutMismatch), Thoonk(exam.broker_server.url("phonon")) as thoonk:
        thoonk.job("exam")
    with exam.worker(wait=False, may_fail=True) as worker:
        wait_for(lambda: "has layout 2" in worker.log(), 60, message="the worker says nothing")
    assert client.keys("*") == [b"phonon.layout"]


def test_what_a_newer_release_adds_is_left_alone(exam: Exam) -> None:
    """Fields, keys and nodes that this one does not know, under the same layout."""
    tag, client = "newer", exam.broker_server.client(exam.broker_db)
    client.hset("feed.config:{exam}", mapping={"type": "job", "colour": "green"})
    client.hset("feed.colours:{exam}", "x", "green")
    client.hset("node.about:{nodes}", "n" * 16, '{"colour": "green"}')
    with exam.worker():
        ids = [exam.task("record_late").delay(tag, n).id for n in range(10)]
        exam.wait_ended(tag, 10)
        wait_settled(exam)
    assert_none_lost(exam, tag, ids)
    assert client.hget("feed.config:{exam}", "colour") == b"green"
    assert client.exists("feed.colours:{exam}")


def test_a_process_dies_and_its_forked_child_lives(broker: Broker) -> None:
    """The child has inherited the socket over which its parent beat, and must have closed it."""
    peer = broker.peer()
    broker.send("q", 1, 2)
    assert peer("hold", queue="q", count=2) == [1, 2]
    child = peer("fork_a_child_that_stays")
    try:
        connection, inbox = broker.connection(), Inbox()
        broker.consumer(connection, "q", inbox)
        pump = DrainPump(connection)
        os.kill(peer.process.pid, signal.SIGKILL)
        killed_at = time.monotonic()
        pump.until(inbox.has(2), 30)
        took = time.monotonic() - killed_at
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)
    print(f"given back {took:.2f} s after the kill, with a forked child alive")
    assert inbox.bodies == [1, 2]
    assert all(message.delivery_info["redelivered"] for message in inbox.messages)
    assert took < RECOVERY_SECONDS


def test_a_thoonk_consumer_dies(broker: Broker) -> None:
    """Celery's and Thoonk's consumers look after each other."""
    program = (
        "import sys, time; from phonon_kombu.thoonk import Thoonk\n"
        "job = Thoonk(sys.argv[1]).job('q')\n"
        "print([job.get(timeout=10).id for _ in range(2)], flush=True); time.sleep(60)"
    )
    with Thoonk(broker.url) as thoonk:
        job = thoonk.job("q")
        for name in ("a", "b"):
            job.put("item", id=name)
        process = subprocess.Popen(
            [sys.executable, "-c", program, broker.url], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "['a', 'b']\n"
        connection = broker.connection()
        broker.consumer(connection, "celery's", Inbox())
        process.kill()
        killed_at = time.monotonic()
        DrainPump(connection).until(lambda: job.stats().ready == 2, 30)
        took = time.monotonic() - killed_at
        process.wait()
        process.stdout.close()
        assert [job.get(timeout=0) for _ in range(2)] == [("a", "item", 1), ("b", "item", 1)]
        for name in ("a", "b"):
            job.finish(name)
    print(f"given back {took:.2f} s after the kill")
    assert took < RECOVERY_SECONDS
