"""Publishing loads: one by one, in batches, through Celery, and with gaps for the latency."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from typing import Any

from benchmarks.client import Talk
from benchmarks.messages import PADDING, QUEUE, WARM_QUEUE, connect, messages_in, task_messages

WARM_UP = 200
BATCH = 100


def fill(talk: Talk, spec: dict[str, Any]) -> None:
    """Queue `count` messages (and `warm` in the queue for warming up), as fast as may be."""
    with connect(spec["url"]) as connection, connection.Producer() as producer:
        talk.ready()
        with producer.batch(BATCH):
            for count, queue in ((spec["warm"], WARM_QUEUE), (spec["count"], QUEUE)):
                for body, options in task_messages(count, queue, spec["mixed"]):
                    producer.publish(body, **options)
    talk.result()
    talk.end(queued=_queued(spec))


def publish(talk: Talk, spec: dict[str, Any]) -> None:
    """``Producer.publish``, one message after another on one connection."""
    with connect(spec["url"]) as connection, connection.Producer() as producer:
        for body, options in task_messages(WARM_UP):
            producer.publish(body, **options)
        # Built beforehand: this measures the transport, not the making of task messages.
        messages = list(task_messages(spec["count"]))

        def run() -> None:
            for body, options in messages:
                producer.publish(body, **options)

        figures = _timed(talk, run)
    talk.result(**figures)
    talk.end(queued=_queued(spec) - WARM_UP)


def batch(talk: Talk, spec: dict[str, Any]) -> None:
    """``Producer.publish`` within ``Producer.batch(100)``."""
    with connect(spec["url"]) as connection, connection.Producer() as producer:
        with producer.batch(BATCH):
            for body, options in task_messages(WARM_UP):
                producer.publish(body, **options)
        messages = list(task_messages(spec["count"]))

        def run() -> None:
            with producer.batch(BATCH):
                for body, options in messages:
                    producer.publish(body, **options)

        figures = _timed(talk, run)
    talk.result(**figures)
    talk.end(queued=_queued(spec) - WARM_UP)


def apply_async(talk: Talk, spec: dict[str, Any]) -> None:
    """Celery's ``apply_async`` of a task with ``ignore_result``, the application's own producer."""
    from benchmarks.app import app, noop

    app.conf.broker_url = spec["url"]
    for number in range(WARM_UP):
        noop.apply_async((number, PADDING))

    def run() -> None:
        for number in range(spec["count"]):
            noop.apply_async((number, PADDING))

    talk.result(**_timed(talk, run))
    talk.end(queued=_queued(spec) - WARM_UP)


def publish_with_gaps(talk: Talk, spec: dict[str, Any]) -> None:
    """Publish with random gaps; each message carries the time at which its publishing began."""
    gaps = random.Random(spec["seed"])
    low_seconds, high_seconds = spec["gap_seconds"]
    messages = list(task_messages(spec["count"]))
    with connect(spec["url"]) as connection, connection.Producer() as producer:
        talk.ready()
        for body, options in messages:
            time.sleep(gaps.uniform(low_seconds, high_seconds))
            options["headers"]["sent_ns"] = time.monotonic_ns()
            producer.publish(body, **options)
    talk.result()
    talk.end()


def _timed(talk: Talk, function: Callable[[], None]) -> dict[str, float]:
    gc.collect()
    gc.freeze()
    talk.ready()
    cpu_seconds, seconds = time.process_time(), time.perf_counter()
    talk.run(function)
    return {
        "seconds": time.perf_counter() - seconds,
        "cpu_seconds": time.process_time() - cpu_seconds,
    }


def _queued(spec: dict[str, Any]) -> int:
    with connect(spec["url"]) as connection:
        return messages_in(connection)
