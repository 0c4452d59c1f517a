"""A consumer that survives: after a connection error it connects again, in Celery's own order."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from kombu import Connection, Consumer, Queue

from tests.kombu.exam import Broker, Inbox, Pump, PumpFactory


class Worker:
    """Consumes some queues over a connection that it replaces when it breaks.

    What Celery's worker does on a connection error is done here step by step: reset the event
    loop, ``connection.collect()``, ``connection.close()``, then a new connection and consumers.
    An exception that ends a Celery worker ends the test.
    """

    def __init__(
        self,
        broker: Broker,
        pump: PumpFactory,
        queues: list[Queue | str],
        inbox: Inbox,
        prefetch_count: int = 0,
        **settings: Any,
    ) -> None:
        self.broker = broker
        self.queues = queues
        self.inbox = inbox
        self.prefetch_count = prefetch_count
        self.settings = settings
        #: The connection errors that were survived.
        self.errors: list[BaseException] = []
        self.connection = self._connect()
        self.pump: Pump = pump(self.connection)
        self.consumer = self._consume()

    def _connect(self) -> Connection:
        connection = self.broker.connection(**self.settings)
        connection.ensure_connection(interval_start=0.05, interval_step=0, timeout=20)
        return connection

    def _consume(self) -> Consumer:
        return self.broker.consumer(
            self.connection, self.queues, self.inbox, prefetch_count=self.prefetch_count
        )

    def add(self, queue: Queue | str) -> None:
        """Consume this queue, too; connect again if the connection breaks."""
        self.queues = [*self.queues, queue]
        try:
            self.consumer.add_queue(Queue(queue) if isinstance(queue, str) else queue)
            self.consumer.consume()
        except self.connection.connection_errors as error:
            self.errors.append(error)
            self.reconnect()

    def step(self) -> None:
        """Run the loop once; connect again if the connection breaks."""
        try:
            self.pump.step(0.05)
        except self.connection.connection_errors as error:
            self.errors.append(error)
            self.reconnect()

    def reconnect(self) -> None:
        """Drop the connection and make another, until that works."""
        while True:
            self.pump.forget_connection()
            drop(self.connection)
            try:
                self.connection = self._connect()
                self.pump.use(self.connection)
                self.consumer = self._consume()
                return
            except self.connection.connection_errors as error:
                self.errors.append(error)

    def until(self, condition: Callable[[], Any], timeout_seconds: float = 20.0) -> None:
        """Run until ``condition`` is true; AssertionError after ``timeout_seconds``."""
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            assert time.monotonic() < deadline, f"not reached; survived: {self.errors}"
            self.step()


def drop(connection: Connection) -> None:
    """Let go of a broken connection as Celery's worker does after an error."""
    with contextlib.suppress(Exception):  # Celery ignores what collect() raises
        connection.collect(socket_timeout=2)
    with contextlib.suppress(*connection.connection_errors, *connection.channel_errors):
        connection.close()
