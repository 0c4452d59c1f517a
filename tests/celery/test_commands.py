"""The ``celery`` command on a broker: status, inspect, control, purge, call, amqp, multi."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.celery.exam import Exam
from tests.celery.workers import Worker, run_celery
from tests.servers import wait_for


@pytest.fixture(scope="module")
def worker(shared_exam: Exam) -> Iterator[Worker]:
    """A worker for the commands that talk to one."""
    with shared_exam.worker(pool="threads") as worker:
        shared_exam.listening(worker)
        yield worker


def test_status_needs_no_more_than_the_url(shared_exam: Exam, worker: Worker) -> None:
    done = run_celery(["-b", shared_exam.broker, "status"], shared_exam.environment(), app=None)
    assert done.returncode == 0, done.stderr
    assert f"{worker.name}: OK" in done.stdout
    assert "1 node online." in done.stdout


def test_inspect_and_control(shared_exam: Exam, worker: Worker) -> None:
    answers = json.loads(shared_exam.celery("inspect", "ping", "--json"))
    assert answers == {worker.name: {"ok": "pong"}}
    shown = shared_exam.celery("inspect", "active_queues", "-d", worker.name)
    assert "'name': 'exam'" in shown and "1 node online." in shown
    answer = shared_exam.celery("control", "rate_limit", "record", "10/m", "--json")
    assert json.loads(answer) == [{worker.name: {"ok": "new rate limit set successfully"}}]
    shared_exam.celery("control", "add_consumer", "by.command")
    result = shared_exam.task("add").apply_async((2, 3), queue="by.command")
    assert result.get(timeout=30) == 5


def test_call_and_result(shared_exam: Exam, worker: Worker) -> None:
    task_id = shared_exam.celery("call", "add", "--args", "[20, 22]").split()[-1]
    wait_for(lambda: shared_exam.app.AsyncResult(task_id).ready(), 30, message="no result")
    assert "42" in shared_exam.celery("result", task_id)


def test_status_of_nobody(exam: Exam) -> None:
    done = run_celery(["status", "-t", "0.5"], exam.environment())
    assert done.returncode == 69
    assert "No nodes replied within time constraint" in done.stderr


def test_purge(exam: Exam) -> None:
    kept = exam.task("add").apply_async((1, 1), queue="other")
    for number in range(50):
        exam.task("add").apply_async((number, 1), priority=number % 10)
    exam.wait_queue_size(50)
    refused = run_celery(["purge"], exam.environment(), input_text="n\n")
    assert refused.returncode == 1 and exam.queue_size() == 50
    assert "Purged 50 messages from 1 known task queue." in exam.celery("purge", "-f")
    assert exam.queue_size() == 0
    assert "No messages purged from 1 queue." in exam.celery("purge", "-f")
    assert exam.queue_size("other") == 1
    assert "Purged 1 message from 1 known" in exam.celery("purge", "-f", "-Q", "other")
    assert kept.state == "PENDING" and exam.queue_size("other") == 0
    assert not leftovers(exam)


def leftovers(exam: Exam) -> list[bytes]:
    """Return the broker's keys that hold any trace of a message's body."""
    client = exam.server.client(exam.broker_db)
    return [key for key in client.scan_iter() if b"lang" in (client.dump(key) or b"")]


def test_purge_at_a_workers_start(exam: Exam) -> None:
    tag = "purge"
    old = [exam.task("record").delay(tag, "old") for _ in range(20)]
    with exam.worker(pool="solo", options=("--purge",)) as worker:
        assert "purge: Erased 20 messages from the queue." in worker.log()
        new = exam.task("record").delay(tag, "new")
        assert new.get(timeout=30) == "new"
        assert exam.counts(tag) == {new.id: 1}
        assert not {result.id for result in old} & set(exam.counts(tag))


def test_amqp_shell(exam: Exam) -> None:
    def amqp(*arguments: str) -> str:
        printed = exam.celery("amqp", *arguments)
        assert "ERROR" not in printed
        return printed

    assert "queue:shell messages:0 consumers:0" in amqp("queue.declare", "shell")
    sent = exam.task("echo").apply_async(("from the shell",), queue="shell")
    exam.task("echo").apply_async(("second",), queue="shell")
    shown = amqp("basic.get", "shell")
    assert "from the shell" in shown and sent.id in shown
    # The shell ended without an acknowledgement: nothing is lost.
    assert "queue:shell messages:2 consumers:0" in amqp("queue.declare", "shell", "true")
    assert "from the shell" in amqp("basic.get", "shell", "true")
    assert "1 messages deleted." in amqp("queue.purge", "shell")
    assert "No messages in queue." in amqp("basic.get", "shell")


def test_amqp_shell_in_one_session(exam: Exam) -> None:
    lines = [
        "queue.declare shell",
        "exchange.declare shellx direct",
        "queue.bind shell shellx key",
        "queue.declare shell true",
        "basic.publish hello shellx key",
        "basic.get shell true",
        "queue.purge shell",
        "queue.delete shell",
        "exchange.delete shellx false",
        "queue.declare shell true",
    ]
    done = run_celery(["amqp", "repl"], exam.environment(), input_text="\n".join(lines) + "\n")
    succeeded, not_found = done.stdout.count("OK\n"), done.stderr.count("404")
    if exam.scheme == "redis":
        # Stock knows no empty queue either, and publishes no bare text (TypeError).
        assert (succeeded, not_found) == (len(lines) - 3, 2), done
    else:
        # Only the last one fails: by then the queue is gone.
        assert (succeeded, not_found) == (len(lines) - 1, 1), done
        assert "hello" in done.stdout


def test_multi_starts_and_stops_workers(exam: Exam, tmp_path: Path) -> None:
    files = ["--pidfile=" + str(tmp_path / "%n.pid"), "--logfile=" + str(tmp_path / "%n%I.log")]
    nodes = ["one@exam", "two@exam"]
    environment = exam.environment()
    options = ["-A", "tests.celery.app", "-P", "threads", "-c", "2", "--without-mingle", *files]
    run_celery(["multi", "start", *nodes, *options], environment, app=None)
    try:
        wait_for(
            lambda: set(exam.app.control.inspect(timeout=0.5).ping() or {}) == set(nodes),
            30,
            message="not both workers answer",
        )
        results = [exam.task("record").delay("multi", number) for number in range(50)]
        assert exam.wait_ended("multi", 50) == {result.id: 1 for result in results}
    finally:
        run_celery(["multi", "stopwait", *nodes, *files], environment, app=None)
    assert not list(tmp_path.glob("*.pid"))
    assert exam.queue_size() == 0
