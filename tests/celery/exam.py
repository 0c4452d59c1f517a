"""What one test works with: a broker, a result backend, records, an application, workers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any

import redis
from celery import Celery

from tests.celery.app import ENVIRONMENT, make_app
from tests.celery.workers import Worker, celery_environment, run_celery
from tests.servers import RedisServer, wait_for

RESULT_TIMEOUT_SECONDS = 60.0


def until(
    condition: Callable[[], Any],
    describe: Callable[[], str],
    timeout_seconds: float = 20.0,
    interval_seconds: float = 0.05,
) -> Any:
    """Wait for `condition`; if it does not come true, fail with what `describe` says then."""
    try:
        return wait_for(condition, timeout_seconds, interval_seconds)
    except AssertionError:
        raise AssertionError(f"{describe()} (waited {timeout_seconds:g} s)") from None


class Exam:
    """Three empty databases of `server` (broker, results, records) and an application on them.

    :param scheme: of the broker's URL: ``redis`` or ``phonon``.
    :param backend_scheme: of the result backend's URL; by default Celery's own Redis backend.
    :param settings: Celery settings, for the application here and for every worker.
    :param broker_server: another server for the broker, where that one is to suffer.
    """

    def __init__(
        self,
        server: RedisServer,
        scheme: str,
        *,
        first_db: int = 0,
        settings: dict[str, Any] | None = None,
        broker_server: RedisServer | None = None,
        backend_scheme: str = "redis",
    ) -> None:
        self.server = server
        self.scheme = scheme
        self.broker_server = broker_server or server
        self.broker_db = first_db
        self.broker = self.broker_server.url(scheme, first_db)
        self.backend = server.url(backend_scheme, first_db + 1)
        self.records_url = server.url("redis", first_db + 2)
        self.settings = dict(settings or {})
        self.broker_server.client(first_db).flushdb()
        for db in (first_db + 1, first_db + 2):
            server.client(db).flushdb()
        self.records = redis.Redis.from_url(self.records_url, decode_responses=True)
        self._apps: list[Celery] = []
        self.app = self.make_app()

    def make_app(self, **settings: Any) -> Celery:
        """Return a further application on the same broker, with other settings."""
        app = make_app(self.broker, self.backend, {**self.settings, **settings})
        self._apps.append(app)
        return app

    def __enter__(self) -> Exam:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for app in self._apps:
            app.backend.result_consumer.stop()
            # A result that outlives the exam must not go looking for its server.
            app.backend.remove_pending_result = lambda result: result
            app.close()
        self.records.close()

    # Processes

    def environment(self, settings: dict[str, Any] | None = None, **extra: str) -> dict[str, str]:
        """Return the environment for a process of this exam."""
        settings = {**self.settings, **(settings or {})}
        return celery_environment(self.broker, self.backend, self.records_url, settings, extra)

    def worker(
        self,
        *,
        settings: dict[str, Any] | None = None,
        queue_kind: str = "",
        **options: Any,
    ) -> Worker:
        """Return a worker on this exam's broker, to be entered with ``with``.

        `queue_kind` gives it special queues, "topic" or "broadcast" (see ``app.QUEUES``).
        """
        extra = {ENVIRONMENT["queues"]: queue_kind} if queue_kind else {}
        return Worker(self.environment(settings, **extra), **options)

    def celery(self, *arguments: str, **options: Any) -> str:
        """Run ``celery arguments`` and return what it printed.

        :raises AssertionError: if it fails, with its output.
        """
        done = run_celery(arguments, self.environment(), **options)
        assert done.returncode == 0, f"celery {arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def ask(self, worker: Worker, question: str, *arguments: Any, **options: Any) -> Any:
        """Return one worker's answer to ``inspect question``.

        Asks again until there is one: a broadcast does not reach a worker that is ready for
        tasks and about to subscribe, on any broker.
        """

        def answer() -> Any:
            inspect = self.app.control.inspect(destination=[worker.name], timeout=1.0)
            return getattr(inspect, question)(*arguments, **options)

        answers = until(
            answer, lambda: f"{worker.name} does not answer {question}:\n{worker.tail()}"
        )
        return answers[worker.name]

    def listening(self, *workers: Worker) -> None:
        """Wait until these workers hear what is broadcast."""
        for worker in workers:
            assert self.ask(worker, "ping") == {"ok": "pong"}

    def order(self, worker: Worker, command: str, **arguments: Any) -> Any:
        """Send a ``control`` command to one worker, once, and return its answer."""
        self.listening(worker)
        replies = self.app.control.broadcast(
            command, arguments, destination=[worker.name], reply=True, timeout=10, limit=1
        )
        assert replies, f"{worker.name} does not answer {command}:\n{worker.tail()}"
        return replies[0][worker.name]

    # Tasks

    def task(self, name: str) -> Any:
        """Return the task called `name`."""
        return self.app.tasks[name]

    # Records

    def counts(self, tag: str, event: str = "start") -> Counter[str]:
        """Return task id -> how often that happened to it."""
        found = self.records.hgetall(f"{event}:{tag}")
        return Counter({task_id: int(number) for task_id, number in found.items()})

    def log(self, tag: str, event: str | None = None) -> list[dict[str, Any]]:
        """Return the records of `tag`, oldest first."""
        entries = [json.loads(line) for line in self.records.lrange(f"log:{tag}", 0, -1)]
        return [entry for entry in entries if event in (None, entry["event"])]

    def wait_started(
        self, tag: str, count: int, timeout_seconds: float = RESULT_TIMEOUT_SECONDS
    ) -> list[dict[str, Any]]:
        """Wait until `count` runs have started, and return their records."""
        until(
            lambda: len(self.log(tag, "start")) >= count,
            lambda: f"{len(self.log(tag, 'start'))} of {count} runs of {tag} have started",
            timeout_seconds,
        )
        return self.log(tag, "start")

    def wait_ended(
        self, tag: str, count: int, timeout_seconds: float = RESULT_TIMEOUT_SECONDS
    ) -> Counter[str]:
        """Wait until `count` different tasks have run to the end; return how often each did."""
        until(
            lambda: self.records.hlen(f"end:{tag}") >= count,
            lambda: f"{self.records.hlen(f'end:{tag}')} of {count} tasks of {tag} have ended",
            timeout_seconds,
        )
        return self.counts(tag, "end")

    def open_gate(self, tag: str) -> None:
        """Let the ``gate`` tasks of `tag` run to their end."""
        self.records.set(f"gate:{tag}", "1")

    # The broker, by its own means

    def queue_size(self, queue: str = "exam") -> int:
        """Return how many messages wait in a queue, not counting those that a worker holds."""
        with self.app.connection_for_read() as connection:
            # Not a passive declaration: stock says "not found" of an empty queue.
            return int(connection.default_channel._size(queue))

    def wait_queue_size(self, size: int, queue: str = "exam", timeout_seconds: float = 20) -> None:
        """Wait until exactly `size` messages wait in the queue."""
        until(
            lambda: self.queue_size(queue) == size,
            lambda: f"{self.queue_size(queue)} messages wait in {queue}, not {size}",
            timeout_seconds,
        )
