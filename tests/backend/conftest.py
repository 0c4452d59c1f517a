"""Fixtures of the result backend's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from phonon_kombu.backend import PhononBackend, takeover
from tests.backend.app import add_tasks
from tests.backend.closers import Closers
from tests.celery.app import ENVIRONMENT
from tests.celery.exam import Exam
from tests.celery.workers import Worker
from tests.servers import RedisServer


class BackendExam(Exam):
    """The exam with our result backend and the tasks of these tests."""

    def make_app(self, **settings: Any) -> Any:
        """Return a further application with the tasks of these tests."""
        return add_tasks(super().make_app(**settings))

    def worker(self, through: Closers | None = None, **options: Any) -> Worker:
        """Return a worker of the application of these tests; it may reach broker and results
        through a proxy."""
        if through is None:
            return super().worker(app="tests.backend.app", **options)
        environment = self.environment()
        for name, db in (("broker", self.broker_db), ("backend", self.broker_db + 1)):
            environment[ENVIRONMENT[name]] = f"phonon+socket://{through.path}?virtual_host={db}"
        return Worker(environment, app="tests.backend.app", **options)


@pytest.fixture
def exam(redis_server: RedisServer) -> Iterator[BackendExam]:
    """Empty databases, phonon broker, phonon results."""
    with BackendExam(redis_server, "phonon", backend_scheme="phonon") as exam:
        yield exam


@pytest.fixture
def make_exam(redis_server: RedisServer) -> Iterator[Callable[..., BackendExam]]:
    """Makes exams with other schemes or settings, one at a time."""
    made: list[BackendExam] = []

    def make(scheme: str = "phonon", backend: str = "phonon", **options: Any) -> BackendExam:
        made.append(BackendExam(redis_server, scheme, backend_scheme=backend, **options))
        return made[-1]

    yield make
    for exam in made:
        exam.__exit__(None, None, None)


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process pretends to be a worker; its watch must not close what the test is about."""
    monkeypatch.setattr(takeover, "watch", lambda backend: None)


@pytest.fixture
def backend(exam: BackendExam) -> PhononBackend:
    """The backend of an application on an empty database, without any worker."""
    found = exam.app.backend
    assert isinstance(found, PhononBackend)
    return found
