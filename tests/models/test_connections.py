"""Hosts: their names, what lives where, how they are reached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from phonon_kombu.errors import ConfigurationError, LayoutMismatch
from phonon_kombu.phonon import connections
from phonon_kombu.phonon.connections import Connections, connect, current
from phonon_kombu.phonon.node import node_id
from phonon_kombu.store.keys import layout_key
from tests.servers import RedisServer, start_server, wait_for

RESOURCES = [f"Session:{n}" for n in range(3000)]


@pytest.fixture(autouse=True)
def not_connected() -> Iterator[None]:
    """Each test begins and ends unconnected."""
    connections.connection = None
    yield
    if connections.connection is not None:
        connections.connection.close()
    connections.connection = None


def shares(hosts: list[str]) -> dict[str, str]:
    """Resource -> its host."""
    made = Connections(hosts)
    return {resource: made.host_of(resource).name for resource in RESOURCES}


def test_hosts_share_evenly_and_alike_in_every_process() -> None:
    hosts = ["redis01.example.com", "redis02.example.com", "redis03.example.com"]
    found = shares(hosts)
    assert found == shares(hosts[::-1])
    assert all(900 < count < 1100 for count in Counter(found.values()).values())
    # Every release must place them alike.
    assert [found[f"Session:{n}"][:7] for n in range(8)] == [
        "redis01", "redis01", "redis02", "redis01", "redis03", "redis02", "redis01", "redis03",
    ]  # fmt: skip


def test_a_new_host_moves_only_its_share() -> None:
    before = shares(["a", "b", "c"])
    after = shares(["a", "b", "c", "d"])
    moved = [resource for resource in RESOURCES if before[resource] != after[resource]]
    assert {after[resource] for resource in moved} == {"d:6379"}
    assert 600 < len(moved) < 900


@pytest.mark.parametrize(
    ("host", "name", "expected"),
    [
        ("redis01", "redis01:7000", {"host": "redis01", "port": 7000, "db": 3}),
        ("redis01:6400", "redis01:6400", {"host": "redis01", "port": 6400, "db": 3}),
        ("phonon://me:secret@redis01:6400/2?socket_timeout=3", "phonon://redis01:6400/2",
         {"host": "redis01", "port": 6400, "db": 2, "password": "secret"}),
        ("phonon+socket:///tmp/redis.sock", "phonon+socket:///tmp/redis.sock",
         {"path": "/tmp/redis.sock"}),
    ],
)  # fmt: skip
def test_what_a_host_can_be(host: str, name: str, expected: dict[str, Any]) -> None:
    made = Connections([host], port=7000, db=3).hosts[0]
    assert made.name == name and "secret" not in repr(made)
    kwargs = made.server.pool.connection_kwargs  # type: ignore[union-attr]
    assert {key: kwargs[key] for key in expected} == expected


def test_options_of_redis() -> None:
    made = Connections("redis01", password="secret", socket_timeout=3).hosts[0]
    assert made.server.pool.connection_kwargs["password"] == "secret"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("hosts", "options"),
    [
        ([""], {}),
        ([5], {}),
        (["a", "a:6379"], {}),
        (["a:port"], {}),
        (["http://a"], {}),
        (["a"], {"no_such_option": 1}),
        ([], {}),
        (5, {}),
        (b"a", {}),
        ({"a": 1}, {}),
        (["a"], {"port": None}),
        (["a"], {"port": "redis"}),
        (["a"], {"db": "one"}),
        (["a"], {"node_ttl": "60"}),
        (["a"], {"presence_grace": 0}),
        (["a"], {"heartbeat_interval": -1}),
        (["a"], {"master_name": "main"}),
    ],
)
def test_hosts_that_make_no_sense(hosts: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Connections(hosts, **options)


def test_connecting(redis_server: RedisServer, redis_db: str) -> None:
    with pytest.raises(ConfigurationError, match="not connected"):
        current()
    first = connect(hosts=["127.0.0.1"], port=redis_server.port, db=0)
    assert current() is first
    assert first.host_of("x").link.command(b"PING") == b"PONG"
    assert repr(first) == f"<Connections 127.0.0.1:{redis_server.port}>"
    second = connect(f"phonon://{redis_db}")
    assert current() is second is connections.connection
    assert second.host_of("x").link.command(b"PING") == b"PONG"


def test_the_server_is_checked(redis_server: RedisServer, redis_db: str) -> None:
    redis_server.client().set(layout_key("p."), 99)
    with (
        Connections(f"phonon://{redis_db}", prefix="p.") as made,
        pytest.raises(LayoutMismatch),
    ):
        _ = made.hosts[0].link


def test_a_database_that_the_server_has_not(redis_server: RedisServer, redis_db: str) -> None:
    with (
        Connections("127.0.0.1", redis_server.port, db=10_000) as made,
        pytest.raises(ConfigurationError, match="no database"),
    ):
        _ = made.hosts[0].link


def test_two_hosts(redis_server: RedisServer, redis_db: str) -> None:
    """Each resource is on its host and nowhere else."""
    from phonon_kombu.phonon.lock import Lock

    with start_server() as other:
        hosts = [f"127.0.0.1:{redis_server.port}", f"127.0.0.1:{other.port}"]
        with Connections(hosts) as made:
            locks = [Lock(name, connections=made) for name in RESOURCES[:40]]
            assert all(lock.acquire() for lock in locks)
            counts = [len(s.client().keys("lock:*")) for s in (redis_server, other)]  # type: ignore[arg-type]
    assert sum(counts) == 40 and min(counts) > 5


def test_a_heartbeat_while_it_is_wanted(redis_server: RedisServer, redis_db: str) -> None:
    client = redis_server.client()
    with Connections(f"phonon://{redis_db}", prefix="alone.") as made:
        node = node_id(made.hosts[0].identity)
        assert client.zscore("alone.node.beats:{nodes}", node) is None
        made.hosts[0].live()
        made.hosts[0].live()
        assert client.zscore("alone.node.beats:{nodes}", node) is not None
    wait_for(lambda: client.zscore("alone.node.beats:{nodes}", node) is None)
