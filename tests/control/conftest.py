"""An empty database with an application on it, and an operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from celery.bin.base import CLIContext
from click.testing import CliRunner, Result
from kombu import pools

from phonon_kombu.cli import phonon
from phonon_kombu.control import Operator
from tests.control.commands import Run
from tests.servers import RedisServer


def make_app(server: RedisServer, **settings: Any) -> Celery:
    """An application with a task; broker in database 0, results in database 1."""
    app = Celery(
        "shop",
        broker=server.url("phonon"),
        backend=server.url("redis", 1),
        control="phonon_kombu.control:Control",
        set_as_current=False,
    )
    app.conf.update(task_default_queue="shop", **settings)

    @app.task(name="shop.add", shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="shop.mail", shared=False, ignore_result=True)
    def mail(to: str) -> None:
        pass

    return app


@pytest.fixture
def new_app(redis_server: RedisServer, redis_db: str) -> Iterator[Callable[..., Celery]]:
    """Makes applications on the same empty databases."""
    made: list[Celery] = []

    def make(**settings: Any) -> Celery:
        made.append(make_app(redis_server, **settings))
        return made[-1]

    yield make
    for app in made:
        app.backend.result_consumer.stop()
        app.backend.remove_pending_result = lambda result: result
        app.close()
    pools.reset()  # they are shared by all applications with the same broker


@pytest.fixture
def app(new_app: Callable[..., Celery]) -> Celery:
    """An application."""
    return new_app()


@pytest.fixture
def operator(app: Celery) -> Iterator[Operator]:
    """An operator of its broker."""
    with Operator(app) as operator:
        yield operator


@pytest.fixture
def run(app: Celery) -> Run:
    """Runs a command as Celery's command line does."""

    def run(*words: str, stdin: str = "", app: Celery = app, charset: str = "utf-8") -> Result:
        context = CLIContext(app=app, no_color=True, workdir=None)
        return CliRunner(charset).invoke(phonon, words, obj=context, input=stdin)

    return run
