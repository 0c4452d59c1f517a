"""What an operator does to jobs, one or many, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from celery import Celery

from phonon_kombu.control import JobInfo, Operator
from phonon_kombu.errors import ConfigurationError, JobError, NotClaimed, NotFound, NotStalled
from phonon_kombu.thoonk import Thoonk
from tests.control.holder import holding
from tests.servers import wait_for


def publish(app: Celery, count: int, task: str = "shop.add", **options: Any) -> list[str]:
    arguments = (1, 1) if task == "shop.add" else ("x",)
    return [app.tasks[task].apply_async(arguments, **options).id for _ in range(count)]


def counts(operator: Operator, queue: str = "shop") -> tuple[int, int, int, int]:
    (found,) = operator.status(queue)
    return found.ready, found.scheduled, found.claimed, found.stalled


def test_stall_and_retry_by_id(app: Celery, operator: Operator) -> None:
    first, second = publish(app, 2)
    assert operator.stall(first, reason="no paper").done == 1
    assert (operator.get(first).state, operator.get(first).reason) == ("stalled", "no paper")
    with holding(app, 1) as (message,):
        assert message.headers["id"] == second
        operator.stall(second)
        message.ack()
        message.channel.flush()
        assert operator.get(second).state == "stalled"  # its end changes nothing
    outcome = operator.retry(first, second)
    assert (outcome.done, outcome.jobs) == (2, [("shop", first), ("shop", second)])
    assert counts(operator) == (2, 0, 0, 0)
    with holding(app, 2) as messages:
        assert {message.headers["id"] for message in messages} == {first, second}


def test_cancel_takes_a_job_from_its_worker(app: Celery, operator: Operator) -> None:
    (task_id,) = publish(app, 1)
    with holding(app, 1) as (message,):
        operator.cancel(task_id)
        assert counts(operator) == (1, 0, 0, 0)
        message.ack()
        message.channel.flush()
        with holding(app, 1) as (again,):
            assert again.headers["x-delivery-count"] == 1
            operator.cancel(task_id, delay_seconds=600)
            (job,) = operator.find(task_id)
            assert job.state == "scheduled" and job.failures == 2
            assert job.due_at == pytest.approx(operator.clock() + 600, abs=30)


def test_listeners_hear_of_it(app: Celery, operator: Operator) -> None:
    """As they do when a Thoonk session does the same."""
    told: list[tuple[str, ...]] = []
    (task_id,) = publish(app, 1)
    with Thoonk(app.conf.broker_url) as thoonk, holding(app, 1):
        for kind in ("stall", "retry", "cancel"):
            thoonk.register_handler(kind, lambda *about, kind=kind: told.append((kind, *about)))
        operator.cancel(task_id)
        operator.stall(task_id, reason="why")
        operator.retry(task_id)
        with pytest.raises(NotClaimed):
            operator.cancel(task_id)
        wait_for(lambda: len(told) == 3)
    assert told == [
        ("cancel", "shop", task_id), ("stall", "shop", task_id, "why"), ("retry", "shop", task_id),
    ]  # fmt: skip


def test_retract(app: Celery, operator: Operator) -> None:
    ready, stalled, claimed = publish(app, 3)
    operator.stall(stalled)
    with holding(app, 2) as messages:
        operator.retract(ready, stalled)
        assert counts(operator) == (0, 0, 1, 0)
        with pytest.raises(JobError, match="is claimed by a worker: it is claimed"):
            operator.retract(claimed, waiting=True)
        operator.retract(claimed)
        for message in messages:
            message.ack()
    assert counts(operator) == (0, 0, 0, 0)


def test_refusals_are_errors_where_nothing_was_done(app: Celery, operator: Operator) -> None:
    ready, stalled = publish(app, 2)
    operator.stall(stalled)
    with pytest.raises(NotStalled, match=f"job '{ready}' is not stalled: it is ready"):
        operator.retry(ready)
    with pytest.raises(NotClaimed, match="is not claimed: it is stalled"):
        operator.cancel(stalled)
    for act in (operator.retry, operator.cancel, operator.stall, operator.retract):
        with pytest.raises(NotFound, match="no job of task 'nobody' is in any queue"):
            act("nobody")
        with pytest.raises(NotFound, match="is in queue 'shop'"):
            act("nobody", "neither", queue="shop")
        with pytest.raises(NotFound, match="there is no queue 'shpo'"):
            act(ready, queue="shpo")
    assert counts(operator) == (1, 0, 0, 1)

    outcome = operator.retry(ready, stalled, "nobody")

    assert (outcome.done, outcome.refused) == (1, 2)
    assert [(one.id, one.queue, one.error) for one in outcome.refusals] == [
        (ready, "shop", "NotStalled"), ("nobody", None, "NotFound")
    ]  # fmt: skip


def test_all_jobs_of_a_task_published_twice(app: Celery, operator: Operator) -> None:
    (task_id,) = publish(app, 1)
    publish(app, 1, task_id=task_id)
    publish(app, 1, task_id=task_id, queue="other")
    # By its task's id and by its own, twice: it is one job.
    outcome = operator.stall(f"{task_id}~1", task_id, task_id)
    assert (outcome.done, outcome.already, outcome.refused) == (3, 0, 0)
    assert operator.retry(task_id, queue="other").done == 1
    assert operator.retract(task_id).done == 3


def test_many_by_task_queue_state_and_age(
    app: Celery, operator: Operator, redis_client: redis.Redis
) -> None:
    adds, mails = publish(app, 150), publish(app, 150, "shop.mail")
    others = publish(app, 10, "shop.mail", queue="other")
    assert operator.stall(task="shop.mail", reason="no post").done == 160
    assert counts(operator) == (150, 0, 0, 150)
    assert operator.retry(task="shop.mail", queue="shop").done == 150
    assert operator.retry(task="shop.add").done == 0
    for task_id in (*adds[:20], *mails[:20]):
        redis_client.zincrby(operator.keys("shop").published, -7200_000, task_id)
    assert operator.retract(older_than_seconds=3600, task="shop.mail").done == 20
    assert operator.retract(state="stalled").done == len(others)
    assert counts(operator, "other") == (0, 0, 0, 0)
    with holding(app, 5):
        assert operator.retract(queue="shop").done == 300 - 20 - 5
        assert operator.stall(queue="shop").done == 0
        assert operator.cancel(queue="shop").done == 5
        assert operator.stall(queue="shop", state="ready").done == 5
    assert {job.failures for job in operator.jobs()} == {0}  # stalling forgets them


def test_a_waiting_job_is_not_taken_for_a_claimed_one(app: Celery, operator: Operator) -> None:
    """Without ids and state, what workers hold is left alone."""
    publish(app, 3)
    with holding(app, 3):
        assert operator.stall(queue="shop").done == operator.retract(queue="shop").done == 0
        assert operator.retract(queue="shop", state="claimed").done == 3


def test_an_outcome_names_the_first_thousand(app: Celery, operator: Operator) -> None:
    publish(app, 1)
    script, item = operator.job("shop")._script("job/append"), operator.item(next(operator.jobs()))
    operator.link.send([(script, (b"%d" % n, item, b"")) for n in range(1200)])
    outcome = operator.stall(queue="shop")
    assert (outcome.done, len(outcome.jobs)) == (1201, 1000)


def test_a_job_that_is_claimed_between_the_look_and_the_act(
    app: Celery, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is taken from the worker that was seen, or from none."""
    send = Operator._send
    with ExitStack() as taken:

        def late(self: Operator, *args: Any) -> None:
            if before:
                before.pop()()
            send(self, *args)

        def claim() -> None:
            taken.enter_context(holding(app, 1))

        monkeypatch.setattr(Operator, "_send", late)
        publish(app, 2)
        before = [claim]
        assert operator.stall(queue="shop").done == 1
        (job,) = operator.jobs(state="claimed")

        def pass_on() -> None:
            taken.close()
            claim()

        before = [pass_on]
        with pytest.raises(NotClaimed):
            operator.cancel(job.id)
        (again,) = operator.jobs(state="claimed")
        assert again.id == job.id and again.owner != job.owner
        assert operator.cancel(job.id).done == 1


def test_jobs_of_ids_that_are_none(app: Celery, operator: Operator) -> None:
    """A raw client may write them: they do not keep others from being dealt with."""
    publish(app, 1)
    append = operator.job("shop")._script("job/append")
    operator.link.send([(append, (name, b"{}\n[]", b"")) for name in (b"a\0b", b"\0", b"\xff")])
    assert operator.stall(queue="shop").done == operator.retry(queue="shop").done == 4
    assert [operator.item(job) for job in operator.jobs()].count(b"{}\n[]") == 3
    with holding(app, 1):
        assert operator.cancel(queue="shop").done == 1
    assert operator.retract(queue="shop").done == 4


def test_a_job_that_the_server_lists_twice(
    app: Celery, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As SSCAN does at times, of a set that is being emptied: it refuses nothing."""
    publish(app, 130)
    operator.stall(queue="shop")
    walk = Operator._walk

    def again(self: Operator, *args: Any) -> Iterator[JobInfo]:
        jobs = list(walk(self, *args))
        yield from jobs[:70] + jobs

    monkeypatch.setattr(Operator, "_walk", again)
    outcome = operator.retract(state="stalled")
    assert (outcome.done, outcome.refused) == (130, 0)


def test_pause_and_resume(app: Celery, operator: Operator) -> None:
    publish(app, 1)
    assert operator.pause("shop") and not operator.pause("shop")
    with pytest.raises(AssertionError, match="0 of 1"), holding(app, 1):
        pass
    assert operator.resume("shop") and not operator.resume("shop")
    with holding(app, 1):
        assert counts(operator) == (0, 0, 1, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "which jobs"),
        ({"ids": ["x"], "task": "shop.add"}, "not both"),
        ({"state": "lost"}, "must be one of"),
        ({"older_than_seconds": -1}, "older_than_seconds=-1"),
    ],
)
def test_what_makes_no_sense_is_refused(
    app: Celery, operator: Operator, arguments: dict[str, Any], said: str
) -> None:
    publish(app, 1)
    ids = arguments.pop("ids", ())
    with pytest.raises(ConfigurationError, match=said):
        operator.retract(*ids, **arguments)
    with pytest.raises(ConfigurationError, match="is not known"):
        operator.retry(older_than_seconds=3)
    assert counts(operator) == (1, 0, 0, 0)


def test_the_last_job_of_a_queue_that_nobody_has_declared(operator: Operator) -> None:
    """As a peer puts it, or a publisher whose queue was deleted: the queue ends with it."""
    append = operator.job("bare")._script("job/append")
    operator.link.send([(append, (b"x", b"{}\n[]", b""))])
    operator.link.command(b"UNLINK", operator.keys("bare").config)

    assert operator.retract(queue="bare").done == 1

    with pytest.raises(NotFound):
        operator.retract(queue="bare")


def test_a_stalled_job_keeps_its_reason(app: Celery, operator: Operator) -> None:
    first, second = publish(app, 2)
    operator.stall(first, reason="no paper")
    outcome = operator.stall(first, second, reason="no ink")
    assert (outcome.done, outcome.jobs) == (1, [("shop", second)])
    assert (outcome.already, outcome.already_jobs) == (1, [("shop", first)])
    assert operator.get(first).reason == "no paper"
    again = operator.stall(state="stalled")
    assert (again.done, again.already, again.refused) == (0, 2, 0)


def test_a_refusal_names_its_job(app: Celery, operator: Operator) -> None:
    (task_id,) = publish(app, 1)
    outcome = operator.retry(state="ready")
    assert [one.text for one in outcome.refusals] == [
        f"job {task_id!r} is not stalled: it is ready"
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda operator: operator.status(5),
        lambda operator: operator.status("shop", ""),
        lambda operator: operator.pause(5),
        lambda operator: operator.resume(None),
        lambda operator: operator.find("x", 5),
        lambda operator: operator.get(5),
        lambda operator: operator.find_many("abc"),
        lambda operator: operator.find_many(5),
        lambda operator: operator.find_many([5]),
        lambda operator: operator.item("x"),
        lambda operator: operator.page(queue=5),
        lambda operator: operator.page(cursor=5),
        lambda operator: operator.page(task=5),
        lambda operator: list(operator.jobs(5)),
        lambda operator: list(operator.jobs(state=5)),
        lambda operator: operator.stall("x", reason=5),
        lambda operator: operator.stall(5),
        lambda operator: operator.retry("x", queue=5),
        lambda operator: operator.retract(task=5),
        lambda operator: operator.retract(queue=5),
        lambda operator: operator.cancel(queue="shop", delay_seconds="soon"),
    ],
)
def test_arguments_of_the_wrong_kind(app: Celery, operator: Operator, wrong: Any) -> None:
    publish(app, 1)
    with pytest.raises(ConfigurationError):
        wrong(operator)
    assert counts(operator) == (1, 0, 0, 0)


def test_an_unknown_argument_is_refused_by_public_names(operator: Operator) -> None:
    for wrong in (operator.page, operator.status, operator.retract, operator.stall):
        with pytest.raises(TypeError, match=rf"Operator\.{wrong.__name__}\(\) .*'bogus'"):
            wrong(bogus=1)
