"""Events, mingle and gossip: what the broker carries besides tasks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.celery.exam import Exam, until
from tests.servers import wait_for

STORY = ["task-received", "task-started", "task-succeeded"]


@contextmanager
def listening(exam: Exam) -> Iterator[list[dict[str, Any]]]:
    """Collect every event on the broker, from now until the end of the block."""
    events: list[dict[str, Any]] = []
    listens, enough = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            with exam.app.connection_for_read() as connection:
                receiver = exam.app.events.Receiver(connection, handlers={"*": events.append})
                # The receiver consumes on a connection of its own.
                with receiver.consumer_context(wakeup=False) as (inner, _channel, _consumers):
                    while not enough.is_set():
                        try:
                            inner.drain_events(timeout=0.2)
                        except TimeoutError:
                            # One empty round: the subscription has been sent and answered.
                            listens.set()
        except BaseException as error:
            failures.append(error)
            listens.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        assert listens.wait(20), "the receiver does not listen"
        yield events
    finally:
        enough.set()
        thread.join(20)
    assert not failures, failures


def of_task(events: list[dict[str, Any]], task_id: str) -> list[str]:
    """Return the types of the worker's events of one task, in the order of its clock."""
    mine = [event for event in events if event.get("uuid") == task_id]
    told = [event for event in mine if event["type"] != "task-sent"]  # by the client's clock
    return [event["type"] for event in sorted(told, key=lambda event: event["clock"])]


def count(events: list[dict[str, Any]], kind: str, task_id: str) -> int:
    """Return how many events of a kind there were of one task."""
    return sum(event["type"] == kind and event.get("uuid") == task_id for event in events)


@pytest.mark.since57("events of the threads pool are incomplete")
@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent"])
def test_events_of_a_task_and_of_its_worker(exam: Exam, pool: str) -> None:
    exam.settings["task_send_sent_event"] = True
    exam.app.conf.task_send_sent_event = True
    with listening(exam) as events:
        with exam.worker(pool=pool, options=("-E",)) as worker:
            results = [exam.task("add").delay(number, 1) for number in range(10)]
            failed = exam.task("fail").delay("on purpose")
            assert [result.get(timeout=30) for result in results] == list(range(1, 11))
            until(
                lambda: all(of_task(events, result.id) == STORY for result in results),
                lambda: f"incomplete: {[of_task(events, result.id) for result in results]}",
            )
            wait_for(
                lambda: of_task(events, failed.id) == [*STORY[:2], "task-failed"],
                message="no task-failed event",
            )
            wait_for(
                lambda: "worker-heartbeat" in {event["type"] for event in events},
                message="no heartbeat",
            )
            assert worker.stop() == 0
        wait_for(
            lambda: "worker-offline" in {event["type"] for event in events},
            message="no worker-offline event",
        )
    ours = [event["type"] for event in events if event["hostname"] == worker.name]
    assert ours.count("worker-online") == ours.count("worker-offline") == 1
    assert [count(events, "task-sent", result.id) for result in [*results, failed]] == [1] * 11
    received = [event for event in events if event["type"] == "task-received"]
    assert {event["name"] for event in received} == {"add", "fail"}
    # Events leave nothing behind in the broker once nobody listens.
    assert not [
        key for key in exam.server.client(exam.broker_db).scan_iter() if b"celeryev." in key
    ]


@pytest.mark.since57("no events arrive after they were switched on")
def test_events_switched_on_and_off_remotely(exam: Exam) -> None:
    with exam.worker(pool="threads") as worker, listening(exam) as events:
        quiet = exam.task("add").delay(1, 1)
        assert quiet.get(timeout=30) == 2
        assert exam.order(worker, "enable_events") == {"ok": "task events enabled"}
        loud = exam.task("add").delay(1, 2)
        wait_for(lambda: of_task(events, loud.id) == STORY, message="events are still off")
        assert exam.order(worker, "disable_events") == {"ok": "task events disabled"}
        assert not of_task(events, quiet.id)


def test_mingle_shares_revoked_ids(exam: Exam) -> None:
    tag = "mingle"
    with exam.worker(pool="threads") as first:
        exam.listening(first)
        exam.app.control.revoke("doomed-before")
        wait_for(lambda: "doomed-before" in exam.ask(first, "revoked"), message="not revoked")
        with exam.worker(pool="threads", mingle=True) as second:
            log = second.wait_for_log("mingle: sync complete")
            assert "mingle: sync with 1 nodes" in log
            first.wait_for_log(f"sync with {second.name}")
            assert "doomed-before" in exam.ask(second, "revoked")
            first.stop()
            doomed = exam.task("record").apply_async((tag,), task_id="doomed-before")
            kept = exam.task("record").delay(tag)
            kept.get(timeout=30)
            wait_for(lambda: doomed.state == "REVOKED", message="the task was not discarded")
            assert exam.counts(tag) == {kept.id: 1}


def test_mingle_of_a_worker_that_is_alone(exam: Exam) -> None:
    with exam.worker(pool="solo", mingle=True) as worker:
        assert "mingle: all alone" in worker.log()


def test_gossip_sees_neighbours_come_and_go(exam: Exam) -> None:
    with exam.worker(pool="threads", log_level="DEBUG") as first:
        with exam.worker(pool="prefork", log_level="DEBUG") as second:
            first.wait_for_log(f"{second.name} joined the party", 30)
            second.wait_for_log(f"{first.name} joined the party", 30)
            exam.listening(first, second)
            assert set(exam.app.control.inspect().ping()) == {first.name, second.name}
            assert second.stop() == 0
        first.wait_for_log(f"{second.name} left", 30)
        with exam.worker(pool="solo") as third:
            first.wait_for_log(f"{third.name} joined the party", 30)
            third.kill()
            # Nobody said good-bye: gossip itself misses the heartbeats.
            first.wait_for_log(f"missed heartbeat from {third.name}", 60)


def test_two_workers_share_the_work(exam: Exam) -> None:
    tag = "shared"
    with exam.worker(pool="prefork") as first, exam.worker(pool="threads") as second:
        results = [exam.task("record").delay(tag, number, 0.01) for number in range(300)]
        ended = exam.wait_ended(tag, 300)
        assert ended == exam.counts(tag) == {result.id: 1 for result in results}
        share = [run["worker"] for run in exam.log(tag, "start")]
        assert min(share.count(first.name), share.count(second.name)) > 30
