"""``app.control.revoke`` deletes what waits, and tells those who wait for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, chord, signals
from celery.exceptions import TaskRevokedError

from phonon_kombu.control import Control, Operator
from phonon_kombu.errors import ConfigurationError
from tests.celery.exam import Exam
from tests.control.holder import holding
from tests.servers import RedisServer, wait_for


def test_a_queued_task_is_deleted_and_its_result_is_revoked(
    app: Celery, operator: Operator
) -> None:
    add = app.tasks["shop.add"]
    result, kept = add.delay(1, 1), add.delay(2, 2)
    app.control.revoke(result.id)
    with pytest.raises(TaskRevokedError, match="revoked"):
        result.get(timeout=10)
    assert result.state == "REVOKED" and kept.state == "PENDING"
    assert operator.find(result.id) == [] and operator.get(kept.id).state == "ready"


def test_several_at_once_and_by_their_results(app: Celery, operator: Operator) -> None:
    add = app.tasks["shop.add"]
    results = [add.delay(n, n) for n in range(250)]
    operator.stall(results[0].id)
    results[1].revoke()
    app.control.terminate(result.id for result in results)
    assert operator.status("shop")[0].ready == operator.status("shop")[0].stalled == 0
    assert {result.state for result in results} == {"REVOKED"}


def test_a_task_that_waits_for_its_time(app: Celery, operator: Operator) -> None:
    result = app.tasks["shop.add"].apply_async((1, 1), countdown=3600)
    (job,) = operator.find(result.id)
    assert job.state == "scheduled"
    assert job.due_at == pytest.approx(operator.clock() + 3600, abs=30)
    app.control.revoke(result.id)
    assert operator.find(result.id) == [] and result.state == "REVOKED"


def test_a_task_without_result_leaves_none(app: Celery, redis_server: RedisServer) -> None:
    results = [
        app.tasks["shop.mail"].delay("x"),
        app.tasks["shop.add"].apply_async((1, 1), ignore_result=True),
    ]
    app.control.revoke([result.id for result in results])
    assert redis_server.client(1).keys("celery-task-meta-*") == []


def test_what_a_worker_holds_is_left_to_it(app: Celery, operator: Operator) -> None:
    add = app.tasks["shop.add"]
    result = add.delay(1, 1)
    with holding(app, 1):
        add.apply_async((1, 1), task_id=result.id)  # a retry, that waits
        app.control.revoke(result.id)
        (job,) = operator.find(result.id)
        assert job.state == "claimed"
        assert result.state == "PENDING"  # its worker has the last word


def test_with_a_destination_nothing_is_deleted(app: Celery, operator: Operator) -> None:
    result = app.tasks["shop.add"].delay(1, 1)
    app.control.revoke(result.id, destination=["one@host"])
    assert operator.get(result.id).state == "ready" and result.state == "PENDING"


def test_the_signal_is_sent_in_the_process_that_revokes(app: Celery) -> None:
    seen: list[Any] = []

    def note(sender: Any, request: Any, terminated: Any, expired: Any, **_: Any) -> None:
        seen.append((sender.name, request.id, tuple(request.args), terminated, expired))

    signals.task_revoked.connect(note)
    try:
        result = app.tasks["shop.add"].delay(1, 2)
        app.control.revoke(result.id)
    finally:
        signals.task_revoked.disconnect(note)
    assert seen == [("shop.add", result.id, (1, 2), False, False)]


def test_a_body_that_may_not_be_read_is_not_read(
    new_app: Callable[..., Celery], operator: Operator
) -> None:
    """Pickle from the broker is not trusted: the task is revoked without it."""
    writer = new_app(task_serializer="pickle", accept_content=["pickle", "json"])
    reader = new_app()
    result = writer.tasks["shop.add"].delay(1, 1)
    reader.control.revoke(result.id)
    assert operator.find(result.id) == []
    assert reader.AsyncResult(result.id).state == "REVOKED"


@pytest.mark.parametrize("headers", [{}, {"much": "x" * 100_000}], ids=["", "long headers"])
def test_a_chord_learns_of_a_revoked_part(app: Celery, headers: dict[str, str]) -> None:
    add = app.tasks["shop.add"]
    header = [add.s(n, n).set(headers=headers) for n in range(2)]
    body = chord(header)(app.signature("shop.mail", ignore_result=False))
    app.control.revoke([result.id for result in body.parent.results])
    assert {result.state for result in body.parent.results} == {"REVOKED"}
    wait_for(lambda: body.state == "FAILURE", message=f"the chord's body is {body.state}")


def test_on_another_broker_it_is_celerys(redis_server: RedisServer) -> None:
    app = Celery("other", broker=redis_server.url("redis", 3), control=Control)
    try:
        assert app.control.revoke("nobody") is None
        with pytest.raises(ConfigurationError, match="works with phonon://"):
            _ = app.control.jobs
    finally:
        app.close()


@pytest.fixture
def exam(redis_server: RedisServer) -> Iterator[Exam]:
    """An application with workers."""
    with Exam(redis_server, "phonon") as exam:
        yield exam


def test_running_and_prefetched_tasks_of_a_worker(exam: Exam) -> None:
    """As with Celery's own control: the running one is terminated, the reserved one discarded."""
    control = Control(exam.app)
    with exam.worker(pool="prefork", concurrency=1) as worker:
        exam.listening(worker)
        running = exam.task("gate").delay("revoke")
        exam.wait_started("revoke", 1)
        reserved = [exam.task("record").delay("revoked", n) for n in range(2)]
        wait_for(
            lambda: len(exam.ask(worker, "reserved")) == 2, message="the worker does not prefetch"
        )
        waiting = [exam.task("record").delay("revoked", n) for n in range(10)]
        control.revoke([r.id for r in (*reserved, *waiting, running)], terminate=True)
        for result in (*reserved, *waiting, running):
            with pytest.raises(TaskRevokedError):
                result.get(timeout=30)
        assert exam.task("record").delay("after", 1).get(timeout=30) == 1
        assert not exam.counts("revoked")
