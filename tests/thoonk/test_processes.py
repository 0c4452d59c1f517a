"""Several processes and threads at the same jobs."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from phonon_kombu.errors import NotClaimed
from phonon_kombu.thoonk import Empty, Job, Thoonk
from tests.servers import RedisServer

from . import peers

PROCESSES = 4


def test_each_job_exactly_once(
    job: Job, url: str, processes: ProcessPoolExecutor, redis_server: RedisServer
) -> None:
    """Four processes put 2,000 jobs each, then four claim and finish them all."""
    each = 2000 if not redis_server.is_fake else 200
    names = "abcd"
    for future in [processes.submit(peers.put_many, url, "jobs", n, each) for n in names]:
        future.result(100)
    assert job.stats().ready == PROCESSES * each

    working = [
        processes.submit(peers.work, url, "jobs", PROCESSES * each) for _ in range(PROCESSES)
    ]
    done = [entry for future in working for entry in future.result(100)]

    assert Counter(job_id for job_id, _ in done) == Counter(
        f"{name}.{number}" for name in names for number in range(each)
    )
    assert all(item == f"item {job_id}" for job_id, item in done)
    stats = job.stats()
    assert (stats.publishes, stats.finishes) == (PROCESSES * each, PROCESSES * each)
    assert job.get_ids() == []


def test_putting_and_working_at_once(
    job: Job, url: str, processes: ProcessPoolExecutor, redis_server: RedisServer
) -> None:
    each = 1000 if not redis_server.is_fake else 100
    working = [processes.submit(peers.work, url, "jobs", 2 * each) for _ in range(2)]
    putting = [processes.submit(peers.put_many, url, "jobs", n, each) for n in "ab"]
    for future in putting:
        future.result(100)
    done = [job_id for future in working for job_id, _ in future.result(100)]
    assert sorted(done) == sorted(f"{name}.{n}" for name in "ab" for n in range(each))


def test_threads_share_a_job_object(job: Job, redis_server: RedisServer) -> None:
    """Each job goes to one thread; each thread can finish what another has claimed."""
    count = 400 if not redis_server.is_fake else 60
    claimed: list[str] = []

    def work() -> None:
        while True:
            try:
                claimed.append(job.get(timeout=0.2).id)
            except Empty:
                return

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for number in range(count):
        job.put("item", id=str(number))
    for thread in threads:
        thread.join(60)
    assert sorted(claimed) == sorted(str(number) for number in range(count))
    for job_id in claimed:
        job.finish(job_id)
    assert job.stats().finishes == count


def test_the_claim_of_a_process_that_died(job: Job, url: str) -> None:
    """It stays claimed, nobody else gets it, until somebody gives it back."""
    job.put("item", id="j")
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=peers.claim_and_die, args=(url, "jobs"))
    process.start()
    process.join(30)
    assert process.exitcode == 9
    assert job.get_ids("claimed") == ["j"]
    with pytest.raises(Empty):
        job.get(timeout=0)
    with pytest.raises(NotClaimed):
        job.cancel("j")
    job.cancel("j", force=True)
    assert job.get(timeout=0) == ("j", "item", 1)


def in_child(function: Any) -> str:
    """Fork, run `function` in the child, and return what it returns."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = str(function())
        except BaseException as error:
            answer = repr(error)
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answers:
        answer = answers.read()
    os.waitpid(child, 0)
    return answer


def test_a_forked_child_is_another_owner(job: Job) -> None:
    """It has connections of its own, and cannot finish what its parent has claimed."""
    job.put("parent's", id="p")
    job.put("child's", id="c")
    assert job.get(timeout=0).id == "p"

    def child() -> str:
        claimed = job.get(timeout=5)
        try:
            job.finish("p")
        except NotClaimed:
            pass
        else:
            return "finished the parent's"
        job.finish(claimed.id, "done in the child")
        job.session.close()
        return claimed.item

    assert in_child(child) == "child's"
    # The parent's connection still works, and its claim is still there.
    assert job.get_result("c", timeout=5) == ("child's", "done in the child")
    job.finish("p")
    assert job.get_ids() == []


def test_a_fork_while_another_thread_waits(job: Job) -> None:
    """The parent's wait goes on, undisturbed by the child's use of the same objects."""
    claimed: list[str] = []
    waiting = threading.Thread(target=lambda: claimed.append(job.get(timeout=20).id))
    waiting.start()
    waiting.join(0.2)

    def child() -> str:
        # The parent's thread may take what is put first.
        for name in ("a", "b"):
            job.put("item", id=name)
        found = job.get(timeout=10).id
        job.session.close()
        return found

    theirs = in_child(child)
    waiting.join(20)
    assert {theirs, *claimed} == {"a", "b"}
    job.finish(claimed[0])
    with pytest.raises(NotClaimed):
        job.finish(theirs)
    job.finish(theirs, force=True)


def test_two_sessions_are_two_owners(job: Job, other: Thoonk) -> None:
    assert job._hand.owner != other.job("jobs")._hand.owner
