"""The one message that everything is measured with: a real Celery task message of about 1 KB.

``app.amqp`` builds it, exactly as ``apply_async`` does. With `PADDING` in its arguments it takes
1.33 KB on the way to Redis with kombu's Redis transport. Both transports get the same logical
message; what each makes of it on the wire is its own affair and part of what is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kombu import Connection

PADDING = "x" * 160
QUEUE = "celery"
WARM_QUEUE = "benchmarks.warm"


def connect(url: str) -> Connection:
    """A kombu connection; registers the ``phonon`` schemes where they are wanted."""
    if url.startswith("phonon"):
        import phonon_kombu  # noqa: F401
    return Connection(url)


def task_messages(
    count: int, queue: str = QUEUE, mixed: bool = False
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield `count` different task messages as ``(body, arguments of Producer.publish)``.

    `mixed`: the padding is of any length from nothing to twice the usual, evenly distributed.
    """
    from celery import uuid

    from benchmarks.app import TASK_NAME, app

    lengths = 2 * len(PADDING) + 1
    for number in range(count):
        # A prime step goes through all lengths without order.
        padding = "x" * (number * 7919 % lengths) if mixed else PADDING
        task = app.amqp.as_task_v2(
            uuid(), TASK_NAME, args=(number, padding), kwargs={}, ignore_result=True
        )
        yield (
            task.body,
            {
                "exchange": "",
                "routing_key": queue,
                "serializer": "json",
                "delivery_mode": 2,
                "headers": task.headers,
                **task.properties,
            },
        )


def messages_in(connection: Connection, queue: str = QUEUE) -> int:
    """The number of messages that wait in `queue`."""
    with connection.channel() as channel:
        # Not passive: to kombu's Redis transport an empty queue is no queue.
        return int(channel.queue_declare(queue).message_count)
