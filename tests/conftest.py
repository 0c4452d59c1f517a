"""Fixtures that all tests share: one private Redis a session, emptied for every test."""

from __future__ import annotations

from collections.abc import Iterator

import celery
import pytest
import redis

from phonon_kombu.phonon import hearts
from tests.servers import RedisServer, start_server


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "since57(what): Celery 5.6 fails this on stock too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Do not ask Celery 5.6 for what came later: the marker says what happens there."""
    if celery.VERSION[:2] < (5, 7):
        later = [item for item in items if item.get_closest_marker("since57") is not None]
        items[:] = [item for item in items if item not in later]
        config.hook.pytest_deselected(items=later)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The session's server, of the kind that PHONON_TEST_SERVER names (default: redis8)."""
    server = start_server()
    yield server
    server.stop()


@pytest.fixture
def redis_db(redis_server: RedisServer) -> str:
    """Host, port and number of an empty database: put ``redis://`` or ``phonon://`` before it."""
    for beating in list(hearts._hearts.values()):
        # Left by a test that did not close its channel. It would find the emptied database at its
        # next beat, and until then what this process claims would look like a dead one's.
        beating.stop(goodbye=False)
    hearts._hearts.clear()
    redis_server.client().flushall()
    return f"127.0.0.1:{redis_server.port}/0"


@pytest.fixture
def redis_client(redis_server: RedisServer, redis_db: str) -> redis.Redis:
    """A plain client of the database that ``redis_db`` names."""
    return redis_server.client()
