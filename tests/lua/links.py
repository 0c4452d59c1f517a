"""Links to a real server, for tests of the client: their fixtures and a call to make."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from phonon_kombu.store.client import Link
from phonon_kombu.store.keys import QueueKeys
from phonon_kombu.store.scripts import load
from tests.servers import RedisServer
from tests.thoonk.lossy import LossyLine


@pytest.fixture(name="server", scope="module")
def server_fixture() -> Iterator[RedisServer]:
    """A real server."""
    with RedisServer() as server:
        yield server


@pytest.fixture(name="client")
def client_fixture(server: RedisServer) -> redis.Redis:
    """A plain client of the emptied server."""
    server.client().flushall()
    return server.client()


class Links:
    """Makes links and notes what they acquire and release."""

    def __init__(self) -> None:
        self.made: list[Link] = []
        self.acquired: list[Any] = []
        self.released: list[Any] = []

    def __call__(self, port: int, **options: Any) -> Link:
        def acquire() -> Any:
            connection = redis.Connection(host="127.0.0.1", port=port, **options)
            self.acquired.append(connection)
            return connection

        self.made.append(Link(acquire, self.released.append))
        return self.made[-1]


@pytest.fixture(name="links")
def links_fixture() -> Iterator[Links]:
    """Makes links that are closed in the end."""
    links = Links()
    yield links
    for link in links.made:
        link.close()


@pytest.fixture(name="line")
def line_fixture(server: RedisServer) -> Iterator[LossyLine]:
    """A line to the server that can lose replies."""
    line = LossyLine(server.port)
    yield line
    line.close()


def put_call(keys: QueueKeys, id: bytes, item: bytes = b"item") -> Any:
    """A call that puts a job."""
    return load("job/put").prepare(keys), (id, item, b"", b"0", b"", b"", b"", b"")
