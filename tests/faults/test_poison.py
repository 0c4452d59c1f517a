"""A task that kills its worker, whoever takes it: in the end nobody does."""

from __future__ import annotations

from phonon_kombu.thoonk import Thoonk
from tests.celery.exam import Exam
from tests.celery.workers import Worker
from tests.faults.holding import assert_none_lost, wait_settled
from tests.servers import wait_for

LIMIT = 4


def test_a_poison_task_is_stalled(exam: Exam) -> None:
    """After `max_deliveries` workers have died of it. Its neighbours, which they held as well, are
    done; and when it is retried, with its count at zero, it runs."""
    tag = "poison"
    settings = {
        "broker_transport_options": {"max_deliveries": LIMIT, "presence_grace": 0.5},
        "worker_prefetch_multiplier": 4,
    }

    def worker() -> Worker:
        return exam.worker(pool="solo", settings=settings, may_fail=True)

    with Thoonk(exam.broker_server.url("phonon", exam.broker_db)) as thoonk:
        # In the middle of those that the first worker takes.
        ids = [exam.task("record_late").delay(tag, n, 0.1).id for n in range(2)]
        poison = exam.task("die").delay(tag, LIMIT)
        ids += [exam.task("record_late").delay(tag, n, 0.1).id for n in range(2, 12)]
        job, deaths = thoonk.job("exam"), 0
        while job.stats().stalled == 0:
            with worker() as victim:
                wait_for(
                    lambda: not victim.running or job.stats().stalled,
                    60, message="the worker neither died nor gave up",
                )  # fmt: skip
                deaths += not victim.running
        with worker():
            exam.wait_ended(tag, len(ids))
            wait_settled(exam)
            assert job.get_ids("stalled") == [poison.id]
            assert job.get_reason(poison.id) == f"max_deliveries: failed {LIMIT} times"
            print(f"{deaths} workers died of it; reason: {job.get_reason(poison.id)}")
            assert deaths == LIMIT
            assert_none_lost(exam, tag, ids)

            job.retry(poison.id)
            exam.wait_ended(tag, len(ids) + 1)
            wait_settled(exam)
    last = exam.log(tag, "start")[-1]
    assert last["id"] == poison.id and not last["redelivered"]
    assert exam.counts(tag)[poison.id] == LIMIT + 1


def test_a_task_that_is_requeued_for_ever_is_stalled(exam: Exam) -> None:
    """The default limit, without any death."""
    tag = "refused"
    with (
        exam.worker(concurrency=1),
        Thoonk(exam.broker_server.url("phonon", exam.broker_db)) as thoonk,
    ):
        result = exam.task("refuse").delay(tag, 1000)
        job = thoonk.job("exam")
        wait_for(lambda: job.stats().stalled, 60, message="it goes round and round")
        assert job.get_reason(result.id) == "max_deliveries: failed 20 times"
    assert exam.counts(tag)[result.id] == 20
