"""``raise Stall("why")``: a task sets its job aside, in every pool, with early and late acks."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest
from celery import Celery
from kombu import Exchange, Queue

from phonon_kombu import Stall
from phonon_kombu.control import Operator
from tests.celery.exam import Exam, until
from tests.servers import RedisServer

pytestmark = pytest.mark.beyond_stock("it requeues the message, and again, and again")


@pytest.fixture
def operator(exam: Exam) -> Iterator[Operator]:
    """An operator of the exam's broker."""
    with Operator(exam.app) as operator:
        yield operator


@pytest.mark.parametrize("task", ["balk", "balk_late"])
@pytest.mark.parametrize("pool", ["solo", "prefork", "threads"])
def test_a_task_stalls_its_job(exam: Exam, operator: Operator, pool: str, task: str) -> None:
    tag = f"{pool}-{task}"
    with exam.worker(pool=pool) as worker:
        result = exam.task(task).apply_async(
            (tag, 1, "out of paper"), priority=4, headers={"x-mine": "kept"}
        )
        after = exam.task("record").delay(tag, "after")
        assert after.get(timeout=30) == "after"
        until(
            lambda: [job.state for job in operator.find(result.id)] == ["stalled"],
            lambda: f"{operator.find(result.id)}\n{worker.tail()}",
        )
        job = operator.get(result.id)
        assert (job.reason, job.priority, job.task) == ("out of paper", 4, task)
        assert (job.task_id, job.headers["x-mine"]) == (result.id, "kept")
        assert "x-stall" not in job.headers
        assert result.state in ("PENDING", "STARTED")
        assert exam.counts(tag)[result.id] == 1

        operator.retry(result.id)

        assert result.get(timeout=30).startswith("ran")
        assert exam.counts(tag)[result.id] == 2
        until(lambda: not operator.find(result.id), lambda: f"{operator.find(result.id)}")


def test_a_task_that_retries_by_itself_is_stalled_all_the_same(
    exam: Exam, operator: Operator
) -> None:
    """`autoretry_for=(Exception,)` does not count a stall among what is to be tried again."""
    with exam.worker(pool="solo") as worker:
        result = exam.task("balk_auto").delay("auto", 1)
        until(
            lambda: [job.state for job in operator.find(result.id)] == ["stalled"],
            lambda: f"{operator.find(result.id)}\n{worker.tail()}",
        )
        assert operator.get(result.id).retries == 0


def test_a_stalled_task_stalls_again_with_its_new_reason(exam: Exam, operator: Operator) -> None:
    with exam.worker(pool="solo"):
        result = exam.task("balk_late").delay("again", 2)
        for times in (1, 2):
            until(
                lambda n=times: (
                    exam.counts("again")[result.id] == n
                    and operator.get(result.id).state == "stalled"
                ),
                lambda: f"{operator.find(result.id)} {exam.counts('again')}",
            )
            operator.retry(result.id)
        assert result.get(timeout=30).startswith("ran")


@pytest.mark.parametrize("task", ["balk", "balk_late"])
def test_on_another_broker_the_task_fails(redis_server: RedisServer, task: str) -> None:
    """It is not requeued without end, and its failure is there to be seen."""
    with Exam(redis_server, "redis", first_db=8) as exam, exam.worker(pool="prefork"):
        result = exam.task(task).delay("stock", 100, "no paper")
        with pytest.raises(Exception, match="no paper"):
            result.get(timeout=30)
        assert exam.task("add").delay(1, 1).get(timeout=30) == 2
        assert exam.counts("stock")[result.id] == 1


def test_publishing_a_task_stalled(exam: Exam, operator: Operator) -> None:
    """By the header, also through a named exchange and with an id that is there already."""
    result = exam.task("record").apply_async(("header", 1), headers={"x-stall": "from Monday on"})
    (job,) = operator.find(result.id)
    assert (job.state, job.reason) == ("stalled", "from Monday on")
    with exam.app.connection_for_write() as connection:
        Queue("exam", Exchange("named"), "key")(connection.default_channel).declare()
    exam.task("record").apply_async(
        ("header", 2), task_id=result.id, headers={"x-stall": "later"},
        exchange="named", routing_key="key",
    )  # fmt: skip
    assert [j.reason for j in operator.find(result.id)] == ["from Monday on", "later"]
    operator.retry(result.id)
    with exam.worker(pool="solo"):
        exam.wait_started("header", 2)


def test_a_stall_survives_its_way_from_a_child() -> None:
    stall = pickle.loads(pickle.dumps(Stall("why")))
    assert (stall.reason, stall.requeue, str(stall)) == ("why", "why", "why")
    assert Stall().requeue and Stall("").requeue and Stall("") is not None
    failed = Stall("why")
    failed.requeue = False
    assert pickle.loads(pickle.dumps(failed)).requeue is False


def test_a_task_called_directly_or_eagerly_just_raises() -> None:
    app = Celery("eager", broker="memory://", set_as_current=False)
    app.conf.task_always_eager = True

    @app.task(shared=False)
    def balk() -> None:
        raise Stall("why")

    with pytest.raises(Stall, match="why"):
        balk()
    assert balk.delay().state == "REJECTED"
