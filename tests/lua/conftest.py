"""Fixtures of the script tests, and what fakeredis cannot do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.lua.machine import Machine
from tests.servers import FakeRedisServer, RedisServer, server_name, start_server

#: What some tests ask for and fakeredis does not have -> how it differs. A test names it with
#: ``@pytest.mark.needs("acl")``; a run on fakeredis leaves those tests out.
FAKEREDIS_LACKS: dict[str, str] = {
    "acl": "its ACL checks the command that a client sends, not the commands inside a script",
    "commandstats": "it does not count commands",
    "maxmemory": "it knows no limit",
    "script kill": "a script blocks the whole server, SCRIPT KILL included",
    "scale": "it takes many seconds for what is done to ten thousand jobs",
}


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "needs(feature): a feature named in FAKEREDIS_LACKS")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On fakeredis leave out what it cannot do; refuse features without a reason everywhere."""
    dropped = []
    here = os.path.dirname(__file__)
    for item in items:
        if not str(item.path).startswith(here):
            continue
        needed = [name for mark in item.iter_markers("needs") for name in mark.args]
        unknown = [name for name in needed if name not in FAKEREDIS_LACKS]
        if unknown:
            raise pytest.UsageError(f"{item.nodeid} needs {unknown}, of which nothing is known")
        if needed and server_name() == "fakeredis":
            dropped.append(item)
    items[:] = [item for item in items if item not in dropped]
    config.hook.pytest_deselected(items=dropped)


class PackagedFakeServer(FakeRedisServer):
    """fakeredis as the package runs it: its own server breaks the connection at a refusal."""

    _PROGRAM = (
        "import sys; from phonon_kombu.store._fake_server import make_server; "
        "make_server(('127.0.0.1', int(sys.argv[1]))).serve_forever()"
    )


def start() -> RedisServer:
    """A server of the kind that this run is for."""
    return PackagedFakeServer().start() if server_name() == "fakeredis" else start_server()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The session's server."""
    server = start()
    yield server
    server.stop()


@pytest.fixture
def machine(redis_server: RedisServer, redis_db: str) -> Iterator[Machine]:
    """A queue in an empty database."""
    machine = Machine(redis_server)
    yield machine
    machine.close()


@pytest.fixture
def make_machine(redis_server: RedisServer, redis_db: str) -> Iterator[Callable[..., Machine]]:
    """Makes queues by name, prefix and hash_tags in one empty database."""
    made: list[Machine] = []

    def make(*args: object, **kwargs: object) -> Machine:
        made.append(Machine(redis_server, *args, **kwargs))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for machine in made:
        machine.close()


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server that the test may configure, fill up or keep busy."""
    server = start()
    yield server
    server.stop()
