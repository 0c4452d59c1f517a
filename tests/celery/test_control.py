"""Remote control: what an operator asks of running workers and orders them to do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.celery.app import TASKS
from tests.celery.exam import Exam
from tests.celery.workers import Worker
from tests.servers import wait_for


@pytest.fixture(scope="module")
def worker(shared_exam: Exam) -> Iterator[Worker]:
    """A prefork worker of two processes for the tests that leave it as it was."""
    with shared_exam.worker(pool="prefork", concurrency=2) as worker:
        yield worker


@pytest.fixture
def tag(request: pytest.FixtureRequest) -> str:
    return str(request.node.name)


def test_inspect_at_rest(shared_exam: Exam, worker: Worker) -> None:
    assert shared_exam.ask(worker, "ping") == {"ok": "pong"}
    assert {name.split(" ")[0] for name in shared_exam.ask(worker, "registered")} == set(TASKS)
    (queue,) = shared_exam.ask(worker, "active_queues")
    assert (queue["name"], queue["routing_key"]) == ("exam", "exam")
    assert queue["exchange"]["type"] == "direct"
    stats = shared_exam.ask(worker, "stats")
    assert stats["pid"] == worker.pid
    assert stats["prefetch_count"] == 8
    assert sorted(stats["pool"]["processes"]) == sorted(worker.children())
    assert stats["broker"]["port"] == shared_exam.server.port
    assert stats["broker"]["transport"] == shared_exam.scheme
    assert shared_exam.ask(worker, "conf")["task_default_queue"] == "exam"
    assert shared_exam.ask(worker, "report")["ok"]
    assert shared_exam.ask(worker, "clock")["clock"] > 0


def test_inspect_at_work(shared_exam: Exam, worker: Worker, tag: str) -> None:
    gates = [shared_exam.task("gate").delay(tag) for _ in range(2)]
    shared_exam.wait_started(tag, 2)
    waiting = [shared_exam.task("record").delay(tag) for _ in range(3)]
    wait_for(lambda: len(shared_exam.ask(worker, "reserved")) == 3, message="3 are not prefetched")
    ids = {result.id for result in gates}
    assert {task["id"] for task in shared_exam.ask(worker, "active")} == ids
    assert all(task["worker_pid"] for task in shared_exam.ask(worker, "active"))
    assert {task["id"] for task in shared_exam.ask(worker, "reserved")} == {
        result.id for result in waiting
    }
    found = shared_exam.ask(worker, "query_task", gates[0].id, waiting[0].id)
    assert {state for state, _info in found.values()} == {"active", "reserved"}
    shared_exam.open_gate(tag)
    assert shared_exam.wait_ended(tag, 5) == shared_exam.counts(tag)
    wait_for(lambda: not shared_exam.ask(worker, "active"), message="tasks are still active")


def test_rate_limit(shared_exam: Exam, worker: Worker, tag: str) -> None:
    def seconds_for(count: int, name: str) -> float:
        results = [shared_exam.task("record_rated").delay(name, n) for n in range(count)]
        ended = shared_exam.wait_ended(name, count)
        assert ended == {result.id: 1 for result in results}
        starts = [run["at"] for run in shared_exam.log(name, "start")]
        return max(starts) - min(starts)

    assert seconds_for(8, f"{tag}-5") > 1.0  # five a second
    answer = shared_exam.order(worker, "rate_limit", task_name="record_rated", rate_limit="2/s")
    assert answer == {"ok": "new rate limit set successfully"}
    assert seconds_for(5, f"{tag}-2") > 1.4
    answer = shared_exam.order(worker, "rate_limit", task_name="record_rated", rate_limit="")
    assert answer == {"ok": "rate limit disabled successfully"}
    # At two a second they would take twenty seconds.
    assert seconds_for(40, f"{tag}-0") < 10.0


def test_time_limit(shared_exam: Exam, worker: Worker) -> None:
    def limits() -> str:
        tasks = shared_exam.ask(worker, "registered", "soft_time_limit", "time_limit")
        return next(task for task in tasks if task.split(" ")[0] == "overtime")

    def set_limits(soft: float | None, hard: float | None) -> None:
        answer = shared_exam.order(worker, "time_limit", task_name="overtime", soft=soft, hard=hard)
        assert answer == {"ok": "time limits set successfully"}

    # That the new limits are then kept is Celery's affair: 5.7 reads them only when the
    # worker builds its strategies anew, as after a reconnect.
    assert limits() == "overtime"
    set_limits(1.0, 30.0)
    assert limits() == "overtime [soft_time_limit=1.0 time_limit=30.0]"
    set_limits(None, None)
    assert limits() == "overtime"
    answer = shared_exam.order(worker, "time_limit", task_name="nobody", soft=1, hard=1)
    assert answer == {"error": "unknown task"}


def test_add_and_cancel_consumer(shared_exam: Exam, worker: Worker, tag: str) -> None:
    def queues() -> set[str]:
        return {queue["name"] for queue in shared_exam.ask(worker, "active_queues")}

    record = shared_exam.task("record")
    first = record.apply_async((tag, 1), queue="extra")
    shared_exam.wait_queue_size(1, "extra")
    assert shared_exam.order(worker, "add_consumer", queue="extra") == {"ok": "add consumer extra"}
    assert first.get(timeout=30) == 1
    assert queues() == {"exam", "extra"}
    # Both queues are served, whatever the order in which they were added.
    results = [
        record.apply_async((tag, number), queue=("exam", "extra")[number % 2])
        for number in range(100)
    ]
    assert [result.get(timeout=30) for result in results] == list(range(100))
    answer = shared_exam.order(worker, "cancel_consumer", queue="extra")
    assert answer == {"ok": "no longer consuming from extra"}
    wait_for(lambda: queues() == {"exam"}, message="still consuming from extra")
    left = [record.apply_async((tag, number), queue="extra") for number in range(3)]
    assert record.delay(tag, "exam").get(timeout=30) == "exam"
    shared_exam.wait_queue_size(3, "extra")
    assert not {result.id for result in left} & set(shared_exam.counts(tag))
    shared_exam.order(worker, "add_consumer", queue="extra")
    assert [result.get(timeout=30) for result in left] == [0, 1, 2]
    shared_exam.order(worker, "cancel_consumer", queue="extra")


def test_pool_grow_and_shrink(shared_exam: Exam, worker: Worker, tag: str) -> None:
    def prefetch() -> int:
        return int(shared_exam.ask(worker, "stats")["prefetch_count"])

    assert shared_exam.order(worker, "pool_grow", n=2) == {"ok": "pool will grow"}
    worker.wait_for_children(4)
    assert prefetch() == 16
    gates = [shared_exam.task("gate").delay(tag) for _ in range(4)]
    assert len({run["pid"] for run in shared_exam.wait_started(tag, 4)}) == 4
    shared_exam.open_gate(tag)
    assert [result.get(timeout=30) for result in gates] == [tag] * 4
    wait_for(lambda: not shared_exam.ask(worker, "active"), message="tasks are still active")
    assert shared_exam.order(worker, "pool_shrink", n=2) == {"ok": "pool will shrink"}
    wait_for(lambda: prefetch() == 8, message="the prefetch count was not lowered")
    results = [shared_exam.task("add").delay(number, 1) for number in range(50)]
    assert [result.get(timeout=30) for result in results] == list(range(1, 51))
    worker.wait_for_children(2)


def test_autoscale(exam: Exam) -> None:
    tag = "autoscale"
    with exam.worker(pool="prefork", options=("--autoscale", "4,1")) as worker:
        worker.wait_for_children(1)
        gates = [exam.task("gate").delay(tag) for _ in range(4)]
        assert len({run["pid"] for run in exam.wait_started(tag, 4)}) == 4
        exam.open_gate(tag)
        assert [result.get(timeout=30) for result in gates] == [tag] * 4
