"""Fixtures: an empty database and a link to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from phonon_kombu.store.client import Link
from tests.lua.machine import connect
from tests.servers import RedisServer


@pytest.fixture
def url(redis_db: str) -> str:
    """The URL of an empty database."""
    return f"phonon://{redis_db}"


@pytest.fixture
def link(redis_server: RedisServer, redis_db: str) -> Iterator[Link]:
    """A link to an empty database."""
    link = connect(redis_server)
    yield link
    link.close()
