"""Several queues, topic exchanges, broadcast queues and priorities."""

from __future__ import annotations

import pytest
from celery import group
from kombu import Exchange

from tests.celery.app import broadcast_queues, topic_queues
from tests.celery.exam import Exam
from tests.servers import wait_for


def test_each_worker_serves_its_own_queues(exam: Exam) -> None:
    record = exam.task("record")
    with (
        exam.worker(pool="threads", queues="red,green") as first,
        exam.worker(pool="prefork", queues="blue") as second,
    ):
        sent = {
            colour: {record.apply_async((colour, n), queue=colour).id for n in range(30)}
            for colour in ("red", "green", "blue")
        }
        nobody = record.apply_async(("exam", 0))
        for colour, ids in sent.items():
            assert exam.wait_ended(colour, 30) == dict.fromkeys(ids, 1)
            name = second.name if colour == "blue" else first.name
            assert {run["worker"] for run in exam.log(colour)} == {name}
        assert not exam.counts("exam") and exam.queue_size() == 1
        assert nobody.state == "PENDING"


def test_queues_of_one_worker_take_turns(exam: Exam) -> None:
    record = exam.task("record")
    sent = [record.apply_async(("turns", q), queue=q) for q in "ab" for _ in range(40)]
    with exam.worker(pool="solo", queues="a,b"):
        assert exam.wait_ended("turns", 80) == {result.id: 1 for result in sent}
    order = "".join(run["value"] for run in exam.log("turns", "start"))
    # Nobody waits until the other queue is empty.
    assert order.index("b") < 20 and order.rindex("a") > 60, order


def test_task_routes_and_replies(exam: Exam) -> None:
    routed = exam.make_app(task_routes={"add": {"queue": "sums"}, "echo": {"queue": "echoes"}})
    add, echo = routed.tasks["add"], routed.tasks["echo"]
    with exam.worker(pool="threads", queues="sums"), exam.worker(pool="solo", queues="echoes"):
        mixed = group([*(add.s(n, n) for n in range(10)), *(echo.s(n) for n in range(10))])()
        assert mixed.get(timeout=60) == [*(2 * n for n in range(10)), *range(10)]


@pytest.mark.since57("runs in the threads pool are recorded in part")
def test_a_topic_exchange(exam: Exam) -> None:
    app = exam.make_app(task_queues=topic_queues(), task_default_queue="exam.any")
    record = app.tasks["record"]

    def publish(key: str) -> str:
        options = {"exchange": "exam.topic", "routing_key": key, "declare": topic_queues()}
        return str(record.apply_async(("topic", key), **options).id)

    with (
        exam.worker(pool="threads", queues="exam.any", queue_kind="topic") as anything,
        exam.worker(pool="solo", queues="exam.stars", queue_kind="topic") as stars,
    ):
        both = {publish("exam.red.star") for _ in range(10)}
        one = {publish(key) for key in ("exam.red.dwarf", "exam.a.b.star", "exam.")}
        nobody = publish("elsewhere.red.star")
        wait_for(lambda: sum(exam.counts("topic", "end").values()) == 23, 30, message="not all")
        assert exam.counts("topic") == {**dict.fromkeys(both, 2), **dict.fromkeys(one, 1)}
        assert nobody not in exam.counts("topic")
        by_worker = {
            worker.name: [run["id"] for run in exam.log("topic", "end")
                          if run["worker"] == worker.name]
            for worker in (anything, stars)
        }  # fmt: skip
        assert sorted(by_worker[stars.name]) == sorted(both)
        assert sorted(by_worker[anything.name]) == sorted(both | one)


def test_a_broadcast_queue(exam: Exam) -> None:
    """Every worker gets its own copy of a task that is sent to a fanout exchange."""
    app = exam.make_app(task_queues=broadcast_queues())
    with (
        exam.worker(pool="threads", queue_kind="broadcast") as first,
        exam.worker(pool="prefork", queue_kind="broadcast") as second,
    ):
        exam.listening(first, second)
        # Celery declares no Broadcast queue for a publisher, so it must be told what it is.
        options = {"queue": "everybody", "declare": [Exchange("everybody", type="fanout")]}
        sent = [app.tasks["record_quiet"].apply_async(("all",), **options) for _ in "abc"]
        wait_for(lambda: sum(exam.counts("all", "end").values()) == 6, 30, message="not all")
        assert exam.counts("all") == {result.id: 2 for result in sent}
        where = [run["worker"] for run in exam.log("all", "end")]
        assert where.count(first.name) == where.count(second.name) == 3


def priorities(scheme: str) -> list[int]:
    """Return priorities that the broker tells apart: stock has four steps, ours is exact."""
    return [0, 3, 6, 9] if scheme == "redis" else list(range(10))


def test_priorities_of_tasks_that_wait(exam: Exam) -> None:
    record, steps = exam.task("record"), priorities(exam.scheme)
    for turn in range(5):
        for priority in reversed(steps):
            record.apply_async(("order", [priority, turn]), priority=priority)
    with exam.worker(pool="solo"):
        ended = exam.wait_ended("order", 5 * len(steps))
    assert set(ended.values()) == {1}
    order = [run["value"] for run in exam.log("order", "start")]
    assert order == sorted(order)
    assert all(run["priority"] == run["value"][0] for run in exam.log("order"))


def test_an_urgent_task_overtakes(exam: Exam) -> None:
    record, tag = exam.task("record"), "urgent"
    options = ("--prefetch-multiplier", "1")
    with exam.worker(pool="prefork", concurrency=1, options=options):
        exam.task("gate").delay(tag)
        exam.wait_started(tag, 1)
        for number in range(30):
            record.apply_async((tag, number), priority=9)
        record.apply_async((tag, "urgent"), priority=0)
        exam.open_gate(tag)
        exam.wait_ended(tag, 32)
    order = [run["value"] for run in exam.log(tag, "start")[1:]]
    # Only what the worker had prefetched before it came is in front of it.
    assert order.index("urgent") <= 2, order
    order.remove("urgent")
    assert order == list(range(30))


def test_queue_names(exam: Exam) -> None:
    names = ["with space", "ünïcode-☃", "a{b}c", "dots.and:colons/slash", "x" * 300]
    record = exam.task("record")
    results = [record.apply_async(("named", n), queue=name) for name in names for n in range(5)]
    with exam.worker(pool="solo", queues=",".join(names)) as worker:
        assert exam.wait_ended("named", 25) == {result.id: 1 for result in results}
        assert {queue["name"] for queue in exam.ask(worker, "active_queues")} == set(names)
        assert [exam.queue_size(name) for name in names] == [0] * 5
