"""``celery migrate`` between the stock transport and this one, in both directions."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.celery.exam import Exam, until
from tests.servers import RedisServer

# What a broker itself adds to a message that was taken and given back, and what is
# put on anew when a compressed body is packed again.
PASSING = {"redelivered", "x-delivery-count", "compression"}
DIRECTIONS = [("redis", "phonon"), ("phonon", "redis")]


def messages(exam: Exam, queue: str = "exam") -> dict[str, Any]:
    """Return task id -> everything that matters of each message that waits; leave them there."""
    found = {}
    with exam.app.connection_for_read() as connection:
        channel = connection.channel()
        taken = []
        while (message := channel.basic_get(queue)) is not None:
            taken.append(message)
            properties = message.properties
            if "x-eta" in message.headers:  # it has been waited for, in the broker
                message.headers["eta"] = message.headers.pop("x-eta")
            found[properties["correlation_id"]] = {
                "body": bytes(message.body) if isinstance(message.body, bytes) else message.body,
                "type": (message.content_type, message.content_encoding),
                "headers": {k: v for k, v in message.headers.items() if k not in PASSING},
                "priority": properties.get("priority"),
                "reply_to": properties.get("reply_to"),
                "routing_key": message.delivery_info["routing_key"],
            }
        for message in reversed(taken):
            message.requeue()
    return found


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return what is missing, added, or not the same after as before."""
    moved = [
        (task_id, field, value, after[task_id][field])
        for task_id, message in before.items() if task_id in after
        for field, value in message.items() if value != after[task_id][field]
    ]  # fmt: skip
    return [*moved, *((task_id,) for task_id in before.keys() ^ after.keys())]


def publish(exam: Exam, tag: str) -> dict[str, Any]:
    """Publish a mixed lot of tasks; return task id -> value that its run records."""
    record = exam.task("record")
    values = ["plain", "snow \N{SNOWMAN} \U0001f600", "y" * 100_000, {"nested": [1, None]}]
    sent = {record.delay(tag, value).id: value for value in values}
    for number in range(100):
        sent[record.apply_async((tag, number), priority=number % 10).id] = number
    sent[record.apply_async((tag, "kw"), {"seconds": 0.0}, headers={"origin": "here"}).id] = "kw"
    sent[record.apply_async((tag, "zip"), compression="zlib").id] = "zip"
    sent[record.apply_async((tag, "due"), countdown=0.1).id] = "due"
    return sent


@pytest.mark.parametrize(("source", "target"), DIRECTIONS)
def test_migrate(redis_server: RedisServer, source: str, target: str) -> None:
    tag = "migrated"
    old, new = Exam(redis_server, source, first_db=8), Exam(redis_server, target, first_db=12)
    with old, new:
        # Results and records are shared: only the broker moves.
        new.backend, new.records_url, new.records = old.backend, old.records_url, old.records
        sent = publish(old, tag)
        time.sleep(0.2)  # the short countdown is over: a broker may hold it back until then
        before = messages(old)
        assert set(before) == set(sent)
        printed = old.celery("migrate", "-t", "1", "-a", old.broker, new.broker)
        assert f"Migrating task {len(sent)}/" in printed
        assert old.queue_size() == 0
        assert differences(before, messages(new)) == []
        with new.worker(pool="threads"):
            ended = new.wait_ended(tag, len(sent))
            assert ended == new.counts(tag) == dict.fromkeys(sent, 1)
        assert {run["id"]: run["value"] for run in new.log(tag, "end")} == sent
        results = {task_id: old.app.AsyncResult(task_id) for task_id in sent}
        until(
            lambda: all(result.state == "SUCCESS" for result in results.values()),
            lambda: f"{[result for result in results.values() if result.state != 'SUCCESS']}",
        )
        assert {task_id: result.result for task_id, result in results.items()} == sent
        assert new.queue_size() == 0


@pytest.mark.parametrize(("source", "target"), DIRECTIONS)
def test_migrate_as_a_copy(redis_server: RedisServer, source: str, target: str) -> None:
    """Without ``-a`` nothing leaves the source: what was read goes back at the end."""
    old, new = Exam(redis_server, source, first_db=8), Exam(redis_server, target, first_db=12)
    with old, new:
        sent = {old.task("add").delay(number, 1).id for number in range(20)}
        before = messages(old)
        old.celery("migrate", "-t", "1", old.broker, new.broker)
        assert set(before) == sent
        assert differences(before, messages(old)) == []
        assert differences(before, messages(new)) == []


def test_migrate_to_other_queues(redis_server: RedisServer) -> None:
    old, new = Exam(redis_server, "redis", first_db=8), Exam(redis_server, "phonon", first_db=12)
    with old, new:
        sent = {old.task("add").apply_async((n, 1), queue="from").id for n in range(10)}
        old.celery("migrate", "-t", "1", "-a", "-Q", "from:to", old.broker, new.broker)
        assert old.queue_size("from") == 0
        assert set(messages(new, "to")) == sent
