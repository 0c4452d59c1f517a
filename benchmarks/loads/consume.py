"""Consuming loads: as fast as may be, one message at a time as it comes, and not at all."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable
from typing import Any

from kombu import Connection, Consumer, Queue
from kombu.asynchronous import Hub, set_event_loop

from benchmarks.client import Talk
from benchmarks.messages import QUEUE, WARM_QUEUE, connect, messages_in


class Intake:
    """A consumer on one connection, served by ``drain_events`` or by kombu's event loop.

    It takes messages as Celery's worker does: ``on_message`` gets the message undecoded,
    acknowledges it and goes on.
    """

    def __init__(
        self, connection: Connection, queue: str, prefetch: int, loop: str, count: int
    ) -> None:
        self.connection = connection
        self.left = count
        self.latencies_ns: list[int] = []
        self.channel = connection.channel()
        self.consumer = Consumer(
            self.channel,
            queues=[Queue(queue, exchange="", routing_key=queue)],
            on_message=self.on_message,
            prefetch_count=prefetch,
            auto_declare=False,
        )
        self._hub: Any = None
        if loop == "hub":
            self._hub = Hub()
            set_event_loop(self._hub)
            self._hub.propagate_errors = connection.connection_errors
            connection.register_with_event_loop(self._hub)

    def on_message(self, message: Any) -> None:
        message.ack()
        self.left -= 1

    def timed(self, message: Any) -> None:
        """In place of `on_message`: notes how long the message was under way."""
        now_ns = time.monotonic_ns()
        self.latencies_ns.append(now_ns - message.headers["sent_ns"])
        self.on_message(message)

    def run(self, until: Callable[[], bool] | None = None) -> None:
        """Serve the consumer until all messages are acknowledged, or until `until` says so."""
        if self._hub is not None:
            self._run_hub(self._hub, until or self._done)
        elif until is None:
            while self.left:
                self.connection.drain_events()
        else:
            while not until():
                # One second, as kombu's ConsumerMixin waits.
                with contextlib.suppress(TimeoutError):
                    self.connection.drain_events(timeout=1)

    def run_for(self, seconds: float) -> None:
        """Serve the consumer for so long."""
        if self._hub is not None:
            # A poll may last longer than the time that is left: a timer ends it.
            self._hub.call_later(seconds, lambda: None)
        end = time.monotonic() + seconds
        self.run(until=lambda: time.monotonic() >= end)

    def _done(self) -> bool:
        return not self.left

    @staticmethod
    def _run_hub(hub: Hub, until: Callable[[], bool]) -> None:
        loop = hub.create_loop()
        while not until():
            try:
                next(loop)
            except StopIteration:
                loop = hub.create_loop()

    def close(self) -> None:
        """Close connection and event loop."""
        self.connection.close()
        if self._hub is not None:
            self._hub.close()
            set_event_loop(None)


def consume(talk: Talk, spec: dict[str, Any]) -> None:
    """Consume and acknowledge `count` messages that are queued already.

    A connection of its own warms up on another queue first (imports, scripts). The time runs from
    ``Consumer.consume()`` until the channel is closed, so that no acknowledgement is outstanding.
    """

    def intake(queue: str, count: int) -> Intake:
        return Intake(connect(spec["url"]), queue, spec["prefetch"], spec["loop"], count)

    warm = intake(WARM_QUEUE, spec["warm"])
    warm.consumer.consume()
    warm.run()
    warm.close()

    measured = intake(QUEUE, spec["count"])
    measured.channel.queue_declare(QUEUE)

    def run() -> None:
        measured.consumer.consume()
        measured.run()

    gc.collect()
    gc.freeze()
    talk.ready()
    cpu_seconds, start = time.process_time(), time.perf_counter()
    talk.run(run)
    delivered_seconds = time.perf_counter() - start
    measured.channel.close()
    talk.result(
        seconds=time.perf_counter() - start,
        delivered_seconds=delivered_seconds,
        cpu_seconds=time.process_time() - cpu_seconds,
    )
    measured.close()
    with connect(spec["url"]) as connection:
        talk.end(left=messages_in(connection))


def latency(talk: Talk, spec: dict[str, Any]) -> None:
    """Wait for messages that another process publishes now and then; report their ways' times."""
    connection = connect(spec["url"])
    intake = Intake(connection, QUEUE, spec["prefetch"], spec["loop"], spec["count"])
    intake.consumer.on_message = intake.timed
    intake.consumer.consume()
    talk.ready()
    talk.run(intake.run)
    talk.result(latencies_ns=intake.latencies_ns)
    intake.close()
    talk.end()


def idle(talk: Talk, spec: dict[str, Any]) -> None:
    """Consume from an empty queue for `window_seconds`, after a while to settle down."""
    intake = Intake(connect(spec["url"]), QUEUE, spec["prefetch"], spec["loop"], 1)
    intake.consumer.consume()
    intake.run_for(spec["settle_seconds"])
    talk.ready()
    cpu_seconds, start = time.process_time(), time.perf_counter()
    talk.run(lambda: intake.run_for(spec["window_seconds"]))
    cpu_seconds = time.process_time() - cpu_seconds
    talk.result(seconds=time.perf_counter() - start, cpu_seconds=cpu_seconds)
    intake.close()
    talk.end()
