"""A consumer that holds messages, as a worker that is busy does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery


@contextmanager
def holding(app: Celery, count: int, queue: str = "shop") -> Iterator[list[Any]]:
    """Take so many messages of a queue and keep them unacknowledged; given back in the end."""
    held: list[Any] = []
    with app.connection_for_read() as connection:
        channel = connection.channel()
        channel.basic_qos(0, count, False)
        consumer = app.amqp.TaskConsumer(
            channel, queues=[app.amqp.queues[queue]], on_message=held.append, no_ack=False
        )
        with consumer:
            while len(held) < count:
                try:
                    connection.drain_events(timeout=5)
                except TimeoutError:
                    raise AssertionError(f"{len(held)} of {count} messages came") from None
            yield held
