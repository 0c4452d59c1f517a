"""What a worker holds beside what it runs, and what that leaves to others."""

from __future__ import annotations

import time

from tests.celery.exam import Exam, until
from tests.servers import wait_for

WAITING = 20


def held(exam: Exam, tag: str, total: int) -> int:
    """Return how many messages workers hold, or have acknowledged, of `total` sent ones."""
    return total - exam.queue_size() - len(exam.counts(tag, "end"))


def test_disabled_prefetch_of_messages_that_wait_already(exam: Exam) -> None:
    tag = "no-prefetch-before"
    settings = {"worker_disable_prefetch": True}
    gates = [exam.task("gate_late").delay(tag) for _ in range(12)]
    with exam.worker(pool="prefork", concurrency=2, settings=settings) as first:
        exam.wait_started(tag, 2)
        assert not exam.ask(first, "reserved")
        assert held(exam, tag, 12) == 2
        with exam.worker(pool="threads", concurrency=10, settings=settings) as second:
            exam.wait_started(tag, 12)
            assert exam.queue_size() == 0
            exam.open_gate(tag)
            assert exam.wait_ended(tag, 12) == {result.id: 1 for result in gates}
            where = [run["worker"] for run in exam.log(tag, "start")]
            assert (where.count(first.name), where.count(second.name)) == (2, 10)


def test_disabled_prefetch_of_messages_that_come_later(exam: Exam) -> None:
    tag = "no-prefetch-after"
    settings = {"worker_disable_prefetch": True}
    with exam.worker(pool="prefork", concurrency=2, settings=settings) as first:
        gates = [exam.task("gate").delay(tag) for _ in range(2)]
        exam.wait_started(tag, 2)
        rest = [exam.task("record").delay(tag, number) for number in range(WAITING)]
        # A round trip through the worker: it has looked at its queue since.
        assert not exam.ask(first, "reserved")
        assert exam.queue_size() == WAITING
        with exam.worker(pool="solo", settings=settings) as second:
            exam.wait_ended(tag, WAITING)
            assert {run["worker"] for run in exam.log(tag, "end")} == {second.name}
        exam.open_gate(tag)
        ended = exam.wait_ended(tag, WAITING + 2)
        assert ended == exam.counts(tag) == {result.id: 1 for result in [*gates, *rest]}
        # And the slots are used again as soon as they are free.
        again = [exam.task("record").delay("again", number, 0.02) for number in range(50)]
        assert exam.wait_ended("again", 50) == {result.id: 1 for result in again}


def test_disabled_prefetch_in_a_pool_of_threads_does_not_sleep_between_tasks(exam: Exam) -> None:
    """The end of a task in a thread wakes nobody: the worker must look by itself."""
    settings = {"worker_disable_prefetch": True}
    with exam.worker(pool="threads", concurrency=2, settings=settings):
        start = time.monotonic()
        results = [exam.task("record").delay("threads", number, 0.02) for number in range(40)]
        assert exam.wait_ended("threads", 40) == {result.id: 1 for result in results}
        # Waiting for the worker's other timers it took half a second and more for each.
        assert time.monotonic() - start < 15


def test_no_more_than_the_prefetch_count_is_held(exam: Exam) -> None:
    tag = "multiplier-2"
    gates = [exam.task("gate_late").delay(tag) for _ in range(WAITING)]
    options = ("--prefetch-multiplier", "2")
    with exam.worker(pool="prefork", concurrency=2, options=options) as worker:
        exam.wait_started(tag, 2)
        until(
            lambda: len(exam.ask(worker, "reserved")) == 2,
            lambda: f"reserved: {exam.ask(worker, 'reserved')}",
        )
        assert held(exam, tag, WAITING) == 4
        exam.open_gate(tag)
        assert exam.wait_ended(tag, WAITING) == {result.id: 1 for result in gates}


def test_multiplier_one_keeps_all_children_busy(exam: Exam) -> None:
    tag, options = "busy", ("--prefetch-multiplier", "1")
    with exam.worker(pool="prefork", concurrency=4, options=options) as worker:
        gates, rest = [], []
        for number in range(4):
            gates.append(exam.task("gate").delay(tag))
            rest += [exam.task("record").delay(tag, number, 0.005) for _ in range(20)]
        # However the short ones fall, in the end a long one runs in every process.
        ids = {result.id for result in gates}
        wait_for(lambda: len(ids & set(exam.counts(tag))) == 4, 30, message="not all long ones run")
        pids = {run["pid"] for run in exam.log(tag, "start") if run["id"] in ids}
        assert pids == set(worker.children())
        exam.open_gate(tag)
        ended = exam.wait_ended(tag, 84)
        assert ended == exam.counts(tag) == {result.id: 1 for result in [*gates, *rest]}


def test_multiplier_one_with_late_acknowledgement_leaves_the_rest(exam: Exam) -> None:
    tag, options = "fair", ("--prefetch-multiplier", "1")
    gates = [exam.task("gate_late").delay(tag) for _ in range(4)]
    with exam.worker(pool="prefork", concurrency=4, options=options) as first:
        exam.wait_started(tag, 4)
        rest = [exam.task("record_late").delay(tag, number) for number in range(WAITING)]
        assert not exam.ask(first, "reserved")
        assert exam.queue_size() == WAITING
        with exam.worker(pool="threads", options=options) as second:
            exam.wait_ended(tag, WAITING)
            assert {run["worker"] for run in exam.log(tag, "end")} == {second.name}
        exam.open_gate(tag)
        assert exam.wait_ended(tag, WAITING + 4) == {r.id: 1 for r in [*gates, *rest]}


def test_unlimited_prefetch(exam: Exam) -> None:
    tag, settings = "unlimited", {"worker_prefetch_multiplier": 0}
    count = 500
    with exam.worker(pool="prefork", concurrency=1, settings=settings) as worker:
        gate = exam.task("gate").delay(tag)
        exam.wait_started(tag, 1)
        rest = [exam.task("record").delay(tag, number) for number in range(count)]
        exam.wait_queue_size(0)
        until(
            lambda: len(exam.ask(worker, "reserved")) == count,
            lambda: f"{len(exam.ask(worker, 'reserved'))} of {count} reserved",
        )
        exam.open_gate(tag)
        ended = exam.wait_ended(tag, count + 1)
        assert ended == exam.counts(tag) == {result.id: 1 for result in [gate, *rest]}
        # First in, first out.
        order = [run["value"] for run in exam.log(tag, "start")[1:]]
        assert order == list(range(count))


def test_disabled_prefetch_does_not_wait_between_tasks(exam: Exam) -> None:
    """One slot, one message at a time: the next one is fetched as soon as the slot is free."""
    tag, count = "one-by-one", 100
    with exam.worker(pool="solo", settings={"worker_disable_prefetch": True}):
        exam.task("add").delay(1, 1).get(timeout=30)
        started = time.monotonic()
        results = [exam.task("record").delay(tag, number) for number in range(count)]
        assert exam.wait_ended(tag, count) == {result.id: 1 for result in results}
        # About a second on stock; a pause of a tenth of a second between two would be ten.
        assert time.monotonic() - started < 10


def test_eta_task_limit(exam: Exam) -> None:
    """A worker full of delayed tasks takes no more, and gives them back when it ends.

    Tasks that wait in Redis are not counted: that is switched off here.
    """
    app = exam.make_app(broker_transport_options={"delayed_delivery": False})
    record, settings = app.tasks["record"], {"worker_eta_task_limit": 8}
    delayed = {record.apply_async(("eta", n), countdown=600).id for n in range(WAITING)}
    with exam.worker(pool="prefork", concurrency=2, settings=settings) as worker:
        until(
            lambda: len(exam.ask(worker, "scheduled")) >= 8,
            lambda: f"{len(exam.ask(worker, 'scheduled'))} scheduled",
        )
        scheduled = exam.ask(worker, "scheduled")
        assert len(scheduled) == 8
        assert {entry["request"]["id"] for entry in scheduled} < delayed
        assert all(entry["eta"] for entry in scheduled)
        assert exam.queue_size() == WAITING - 8
        assert worker.stop() == 0
    assert exam.queue_size() == WAITING
    assert not exam.counts("eta")


def test_delayed_tasks_do_not_hold_up_others(exam: Exam) -> None:
    """However many delayed tasks a worker holds, those that are due run at once."""
    record, tag, waited = exam.task("record"), "due", 0.0
    with exam.worker(pool="solo"):
        for turn in range(15):
            for _ in range(20):
                record.apply_async(("later", turn), countdown=600)
            sent_at = time.monotonic()
            assert record.delay(tag, turn).get(timeout=30) == turn
            waited += time.monotonic() - sent_at
        # A third of a second on stock, in all. A worker that sleeps till its next poll: ten.
        assert waited < 5
        assert not exam.counts("later")
