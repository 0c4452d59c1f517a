"""Publishing from threads, green threads and forked processes, and from several applications."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.celery.exam import Exam
from tests.celery.workers import ROOT, Worker
from tests.servers import RedisServer

COUNT = 200


@pytest.fixture(scope="module")
def worker(shared_exam: Exam) -> Iterator[Worker]:
    with shared_exam.worker(pool="threads", concurrency=4) as worker:
        yield worker


@pytest.mark.parametrize("how", ["gevent", "eventlet", "threads", "fork", "plain"])
def test_publishing_programs(shared_exam: Exam, worker: Worker, how: str) -> None:
    command = [sys.executable, "-m", "tests.celery.publish_program", how, how, str(COUNT)]
    done = subprocess.run(
        command, env=shared_exam.environment(), cwd=ROOT, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ids = done.stdout.split()
    assert len(set(ids)) == COUNT
    assert shared_exam.wait_ended(how, COUNT) == dict.fromkeys(ids, 1)
    assert not [line for line in done.stderr.splitlines() if "Error" in line], done.stderr


def test_delay_and_get_from_many_threads(shared_exam: Exam, worker: Worker) -> None:
    def run(lane: int) -> list[int]:
        record = shared_exam.task("record")
        return [record.delay("lanes", [lane, number]).get(timeout=60)[1] for number in range(25)]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(8))) == [list(range(25))] * 8
    counts = shared_exam.counts("lanes")
    assert len(counts) == 200 and set(counts.values()) == {1}


def test_connections_do_not_pile_up(shared_exam: Exam, worker: Worker) -> None:
    """Eight threads publish through a pool of connections; a thread that ends leaves none."""
    record = shared_exam.task("record_quiet")

    def publish(_lane: int) -> None:
        for number in range(10):
            record.delay("pile", number)

    def sockets() -> int:
        connections = psutil.Process(os.getpid()).net_connections("tcp")
        port = shared_exam.server.port
        return sum(c.status == "ESTABLISHED" and c.raddr and c.raddr.port == port
                   for c in connections)  # fmt: skip

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(publish, range(8)))
    before = sockets()
    for _ in range(5):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(publish, range(8)))
    assert sockets() <= before + 2
    shared_exam.wait_ended("pile", 480)


def test_two_applications_do_not_mix(redis_server: RedisServer, scheme: str) -> None:
    with (
        Exam(redis_server, scheme, first_db=8) as one,
        Exam(redis_server, scheme, first_db=12) as two,
        one.worker(pool="threads"),
        two.worker(pool="threads"),
    ):
        mine, theirs = one.task("record"), two.task("record")

        def publish(lane: int) -> None:
            for number in range(20):
                (mine if (lane + number) % 2 else theirs).delay("mixed", number)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(publish, range(4)))
        assert set(one.wait_ended("mixed", 40).values()) == {1}
        assert set(two.wait_ended("mixed", 40).values()) == {1}
        assert not set(one.counts("mixed")) & set(two.counts("mixed"))
