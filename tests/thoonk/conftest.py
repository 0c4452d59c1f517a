"""Fixtures: a session with an empty database, a job feed and a queue in it, other processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from phonon_kombu.thoonk import Job, Queue, Thoonk
from tests.servers import RedisServer, wait_for

from .lossy import LossyLine


@pytest.fixture(autouse=True)
def listeners(redis_server: RedisServer) -> Iterator[Callable[[], list[Any]]]:
    """The connections that listen and did not when the test began; when it ends there is none."""

    def now() -> dict[str, Any]:
        clients = redis_server.client().client_list()
        return {one["id"]: one for one in clients if int(one["sub"]) + int(one["psub"])}

    if redis_server.is_fake:  # it does not tell
        yield list
        return
    before = now()

    def found() -> list[Any]:
        return [one for id, one in now().items() if id not in before]

    yield found
    try:
        wait_for(lambda: not found())
    except AssertionError:
        pytest.fail(f"somebody listens still: {found()}")


@pytest.fixture
def url(redis_db: str) -> str:
    """The URL of an empty database."""
    return f"phonon://{redis_db}"


@pytest.fixture
def thoonk(url: str) -> Iterator[Thoonk]:
    """A session with it."""
    with Thoonk(url) as session:
        yield session


@pytest.fixture
def job(thoonk: Thoonk) -> Job:
    """A job feed."""
    return thoonk.job("jobs")


@pytest.fixture
def queue(thoonk: Thoonk) -> Queue:
    """A simple queue."""
    return thoonk.queue("items")


@pytest.fixture
def other(url: str) -> Iterator[Thoonk]:
    """A second session, as another process would have it."""
    with Thoonk(url) as session:
        yield session


@pytest.fixture
def line(redis_server: RedisServer, redis_db: str) -> Iterator[LossyLine]:
    """A line to the server that breaks on demand."""
    lossy = LossyLine(redis_server.port)
    yield lossy
    lossy.close()


@pytest.fixture
def far(line: LossyLine) -> Iterator[Thoonk]:
    """A session at the other end of that line."""
    with Thoonk("127.0.0.1", line.port, socket_timeout=5) as session:
        yield session


@pytest.fixture(scope="session")
def processes() -> Iterator[ProcessPoolExecutor]:
    """Four other processes, started afresh and not forked; they run functions of `peers`."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, mp_context=context) as pool:
        yield pool
