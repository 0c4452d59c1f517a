"""The Celery application that the exam's workers run.

A worker is started with ``-A tests.celery.app`` and finds its broker, its result
backend, the address of the records and further settings in the environment (see
``ENVIRONMENT``). The test process builds its own application with ``make_app``, so
both sides know the same tasks under the same names.

Every task that takes a ``tag`` writes down what it did in Redis, outside the broker's
database: that is the evidence the tests read. A run is counted when it starts and
again when it ends, so that a task cut off in the middle is told from one that ran twice.
"""

from __future__ import annotations

import json
import os
import time
from functools import lru_cache
from typing import Any

import redis
from celery import Celery, current_app
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from kombu import Exchange, Queue
from kombu.common import Broadcast

from phonon_kombu import Stall

ENVIRONMENT = {
    "broker": "PHONON_EXAM_BROKER",
    "backend": "PHONON_EXAM_BACKEND",
    "records": "PHONON_EXAM_RECORDS",
    "settings": "PHONON_EXAM_SETTINGS",
    "queues": "PHONON_EXAM_QUEUES",
}


@lru_cache(maxsize=1)
def _records(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True)


def note(tag: str, event: str, task: Any, **fields: Any) -> None:
    """Write down that `event` ("start", "end", ...) happened to `task` under `tag`."""
    request = task.request
    entry = {
        "event": event,
        "id": request.id,
        "at": time.time(),
        "pid": os.getpid(),
        "worker": request.hostname,
        "redelivered": bool((request.delivery_info or {}).get("redelivered")),
        "routing_key": (request.delivery_info or {}).get("routing_key"),
        "priority": (request.delivery_info or {}).get("priority"),
        **fields,
    }
    pipe = _records(os.environ[ENVIRONMENT["records"]]).pipeline(transaction=False)
    pipe.hincrby(f"{event}:{tag}", request.id, 1)
    pipe.rpush(f"log:{tag}", json.dumps(entry))
    pipe.execute()


def add(x: float, y: float) -> float:
    return x + y


def echo(value: Any) -> Any:
    return value


def total(values: list[float]) -> float:
    return sum(values)


def record(self, tag: str, value: Any = None, seconds: float = 0.0) -> Any:
    """Run for `seconds`, write down start and end, return `value`."""
    note(tag, "start", self, value=value)
    if seconds:
        time.sleep(seconds)
    note(tag, "end", self, value=value)
    return value


def gate(self, tag: str, then: str = "", limit_seconds: float = 60.0) -> str:
    """Write down the start, then run until the test opens the gate of `tag`.

    When it runs for the first time it does not end well where `then` says so: "requeue", "retry"
    or "stall".
    """
    note(tag, "start", self)
    client = _records(os.environ[ENVIRONMENT["records"]])
    deadline = time.monotonic() + limit_seconds
    while not client.exists(f"gate:{tag}"):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody opened the gate of {tag}")
        time.sleep(0.05)
    if int(client.hget(f"start:{tag}", self.request.id)) == 1:
        if then == "requeue":
            raise Reject("once more", requeue=True)
        if then == "retry":
            raise self.retry(countdown=0)
        if then == "stall":
            raise Stall("enough")
    note(tag, "end", self)
    return tag


def stubborn(self, tag: str, times: int, countdown: float, value: Any = None) -> Any:
    """Fail `times` times, asking for a retry after `countdown` seconds each time."""
    note(tag, "start", self, attempt=self.request.retries)
    if self.request.retries < times:
        raise self.retry(countdown=countdown, max_retries=times)
    note(tag, "end", self, attempt=self.request.retries)
    return value


def fail(message: str) -> None:
    raise ValueError(message)


def overtime(self, tag: str, seconds: float) -> str:
    """Sleep for `seconds`; when the soft time limit comes, say so and return."""
    note(tag, "start", self)
    try:
        time.sleep(seconds)
    except SoftTimeLimitExceeded:
        note(tag, "soft_limit", self)
        return "stopped softly"
    note(tag, "end", self)
    return "in time"


def refuse(self, tag: str, requeue_times: int) -> str:
    """Reject the message with requeue, until it has been delivered `requeue_times` + 1 times."""
    note(tag, "start", self)
    count = _records(os.environ[ENVIRONMENT["records"]]).hget(f"start:{tag}", self.request.id)
    if int(count) <= requeue_times:
        raise Reject("not yet", requeue=True)
    note(tag, "end", self)
    return "accepted at last"


def spurn(self, tag: str) -> None:
    """Reject the message for good."""
    note(tag, "start", self)
    raise Reject("never", requeue=False)


def ignored(self, tag: str) -> None:
    note(tag, "start", self)
    raise Ignore()


def die(self, tag: str, times: int) -> str:
    """Kill the pool process in mid-task, the first `times` times."""
    note(tag, "start", self)
    time.sleep(0.5)
    count = _records(os.environ[ENVIRONMENT["records"]]).hget(f"start:{tag}", self.request.id)
    if int(count) <= times:
        os.kill(os.getpid(), 9)
    note(tag, "end", self)
    return "survived"


def burn(self, tag: str, seconds: float) -> None:
    """Compute for so long, letting nobody else have a turn."""
    note(tag, "start", self)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        sum(range(1000))
    note(tag, "end", self)


def spread(self, tag: str, count: int) -> list[str]:
    """Publish `count` further tasks from inside the pool; return their ids."""
    note(tag, "start", self)
    child = current_app.tasks["record"]
    return [child.delay(tag, number).id for number in range(count)]


def balk(self, tag: str, times: int, reason: str = "balked") -> str:
    """Stall itself, the first `times` times."""
    note(tag, "start", self)
    count = _records(os.environ[ENVIRONMENT["records"]]).hget(f"start:{tag}", self.request.id)
    if int(count) <= times:
        raise Stall(reason)
    note(tag, "end", self)
    return f"ran with {self.request.headers and self.request.headers.get('x-mine')}"


TASKS: dict[str, tuple[Any, dict[str, Any]]] = {
    "add": (add, {}),
    "echo": (echo, {}),
    "total": (total, {}),
    "record": (record, {"bind": True}),
    "record_late": (record, {"bind": True, "acks_late": True}),
    "record_quiet": (record, {"bind": True, "ignore_result": True}),
    "record_rated": (record, {"bind": True, "rate_limit": "5/s"}),
    "gate": (gate, {"bind": True}),
    "gate_late": (gate, {"bind": True, "acks_late": True}),
    "stubborn": (stubborn, {"bind": True}),
    "fail": (fail, {}),
    "overtime": (overtime, {"bind": True}),
    "overtime_soft": (overtime, {"bind": True, "soft_time_limit": 1}),
    "overtime_hard": (overtime, {"bind": True, "time_limit": 1}),
    "refuse": (refuse, {"bind": True, "acks_late": True}),
    "spurn": (spurn, {"bind": True, "acks_late": True}),
    "ignored": (ignored, {"bind": True}),
    "die": (die, {"bind": True, "acks_late": True, "reject_on_worker_lost": True}),
    "balk": (balk, {"bind": True}),
    "balk_late": (balk, {"bind": True, "acks_late": True}),
    "balk_auto": (balk, {"bind": True, "acks_late": True, "autoretry_for": (Exception,)}),
    "burn_late": (burn, {"bind": True, "acks_late": True}),
    "spread": (spread, {"bind": True}),
}


def topic_queues() -> list[Queue]:
    """Two queues on one topic exchange, for the routing tests."""
    exchange = Exchange("exam.topic", type="topic")
    return [
        Queue("exam.any", exchange, routing_key="exam.#"),
        Queue("exam.stars", exchange, routing_key="exam.*.star"),
    ]


def broadcast_queues() -> list[Queue]:
    """A queue of which every worker has a copy of its own, and the usual one."""
    return [Queue("exam"), Broadcast("everybody")]


QUEUES = {"topic": topic_queues, "broadcast": broadcast_queues}


def make_app(broker: str, backend: str, settings: dict[str, Any] | None = None) -> Celery:
    """Return an application with the exam's tasks, on this broker and result backend."""
    app = Celery("exam", broker=broker, backend=backend)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        result_expires=600,
        task_default_queue="exam",
        worker_hijack_root_logger=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
    )
    app.conf.update(settings or {})
    for name, (function, options) in TASKS.items():
        app.task(name=name, **options)(function)
    return app


def app_from_environment() -> Celery:
    """Return the application that the environment describes: what a worker runs."""
    settings = json.loads(os.environ.get(ENVIRONMENT["settings"], "{}"))
    kind = os.environ.get(ENVIRONMENT["queues"])
    if kind:
        settings["task_queues"] = QUEUES[kind]()
    return make_app(os.environ[ENVIRONMENT["broker"]], os.environ[ENVIRONMENT["backend"]], settings)


if ENVIRONMENT["broker"] in os.environ:
    app = app_from_environment()
