"""Who is dead, who only looks it, and what becomes of the jobs they held."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest

from tests.celery.exam import Exam
from tests.celery.workers import Worker
from tests.servers import wait_for

TASKS = 60
#: Within so many seconds after a SIGKILL its jobs run elsewhere, with default settings.
RECOVERY_SECONDS = 6.0


def holders(exam: Exam) -> dict[str, int]:
    """Return node -> how many jobs of the queue it holds."""
    owners = exam.broker_server.client(exam.broker_db).hvals("feed.owners:{exam}")
    nodes = [owner.decode().partition(".")[0] for owner in owners]
    return {node: nodes.count(node) for node in nodes}


def held_by(exam: Exam, worker: Worker) -> set[str]:
    """Return the ids of the jobs of the queue that `worker`'s main process holds."""
    client = exam.broker_server.client(exam.broker_db)
    about = client.hgetall("node.about:{nodes}")
    node = next(n for n, text in about.items() if json.loads(text)["pid"] == worker.pid)
    owners = client.hgetall("feed.owners:{exam}")
    return {job.decode() for job, owner in owners.items() if owner.startswith(node + b".")}


def wait_settled(exam: Exam) -> None:
    """Wait until no job of the queue is ready or held: the last acknowledgement was heard too."""
    wait_for(
        lambda: holders(exam) == {} and exam.queue_size() == 0,
        timeout_seconds=20,
        message="jobs are left over",
    )


def kill_group(worker: Worker) -> None:
    worker.kill()


def kill_main_only(worker: Worker) -> None:
    os.kill(worker.pid, signal.SIGKILL)


@pytest.mark.parametrize("kill", [kill_group, kill_main_only])
@pytest.mark.parametrize("elder", [True, False], ids=["elder", "younger"])
def test_a_killed_workers_jobs_run_elsewhere_in_seconds(exam: Exam, kill: Any, elder: bool) -> None:
    tag = "killed"
    with exam.worker(concurrency=2) as first, exam.worker(concurrency=2, may_fail=True) as second:
        victim = first if elder else second
        victim.may_fail = True
        results = [exam.task("record_late").delay(tag, n, 0.2) for n in range(TASKS)]
        exam.wait_ended(tag, 8)
        wait_for(lambda: len(holders(exam)) == 2, message="only one worker holds jobs")
        # Frozen first, so that what it holds at its death is known.
        victim.send_signal(signal.SIGSTOP)
        held = held_by(exam, victim)
        kill(victim)
        killed_at = time.time()
        exam.wait_ended(tag, TASKS)
        wait_settled(exam)
    ended = exam.counts(tag, "end")
    again = {run["id"]: run["at"] for run in exam.log(tag, "start") if run["redelivered"]}
    first_again = min(again.values()) - killed_at
    twice = {job for job, runs in ended.items() if runs > 1}
    print(
        f"first redelivery {first_again:.2f} s after the kill, "
        f"{len(again)} redelivered, {len(twice)} had run to the end before"
    )
    assert set(ended) == {result.id for result in results}
    assert first_again < RECOVERY_SECONDS
    # What was not acknowledged is delivered again, and nothing else: each pool process was at
    # work on one job, and may have ended one of which the server had not yet heard.
    assert set(again) == held
    assert twice <= held and max(ended.values()) <= 2


def test_a_living_workers_long_task_is_left_alone(exam: Exam) -> None:
    """Longer than every time limit of ours, in a pool whose main thread is busy with it."""
    tag = "long"
    settings = {
        "broker_transport_options": {
            "node_ttl": 2, "heartbeat_interval": 0.5, "presence_grace": 0.5,
        }
    }  # fmt: skip
    with (
        exam.worker(pool="solo", settings=settings),
        exam.worker(pool="solo", settings=settings),
    ):
        results = [exam.task("record_late").delay(tag, n, 6.0) for n in range(2)]
        ended = exam.wait_ended(tag, 2)
    assert ended == {result.id: 1 for result in results}
    assert exam.counts(tag) == {result.id: 1 for result in results}


def test_a_lost_heartbeat_connection_is_no_death(exam: Exam) -> None:
    tag = "cut"
    client = exam.broker_server.client(exam.broker_db)
    with exam.worker(concurrency=1) as one, exam.worker(concurrency=1) as two:
        exam.listening(one, two)
        results = [exam.task("record_late").delay(tag, n, 1.0) for n in range(10)]
        exam.wait_started(tag, 2)
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            for presence in client.hvals("node.presence:{nodes}"):
                client.execute_command("CLIENT", "KILL", "ID", presence.partition(b":")[2])
            time.sleep(0.5)
        ended = exam.wait_ended(tag, 10)
        assert "taken for dead" not in one.log() + two.log()
    assert ended == {result.id: 1 for result in results}
    assert not [run for run in exam.log(tag, "start") if run["redelivered"]]


def test_a_frozen_worker_comes_back(exam: Exam) -> None:
    tag = "frozen"
    settings = {"broker_transport_options": {"node_ttl": 3, "heartbeat_interval": 1}}
    with (
        exam.worker(concurrency=1, settings=settings, may_fail=True) as frozen,
        exam.worker(concurrency=1, settings=settings),
    ):
        results = [exam.task("record_late").delay(tag, n, 0.2) for n in range(30)]
        wait_for(lambda: len(holders(exam)) == 2, message="only one worker holds jobs")
        frozen.send_signal(signal.SIGSTOP)
        ended = exam.wait_ended(tag, len(results) - 1)
        frozen.send_signal(signal.SIGCONT)
        frozen.wait_for_log("taken for dead")
        ended = exam.wait_ended(tag, len(results))
        more = [exam.task("record_late").delay(tag, n, 0.2) for n in range(20)]
        ended = exam.wait_ended(tag, len(results) + len(more))
        wait_settled(exam)
    assert set(ended) == {result.id for result in [*results, *more]}


def test_the_last_worker_dies_and_a_new_one_finds_its_jobs(exam: Exam) -> None:
    tag = "last"
    with exam.worker(concurrency=2, may_fail=True) as only:
        results = [exam.task("record_late").delay(tag, n, 0.2) for n in range(20)]
        exam.wait_ended(tag, 4)
        only.kill()
    with exam.worker(concurrency=2):
        ended = exam.wait_ended(tag, 20)
        wait_settled(exam)
    assert set(ended) == {result.id for result in results}
