"""phonon on a real cluster of three nodes: values right, whichever slots they lie in."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from phonon_kombu.errors import ConfigurationError, LayoutMismatch
from phonon_kombu.phonon import field
from phonon_kombu.phonon.connections import Connections
from phonon_kombu.phonon.lock import Lock
from phonon_kombu.phonon.model import Model
from phonon_kombu.phonon.reference import Reference
from phonon_kombu.phonon.registry import Registry
from phonon_kombu.store.addresses import cluster_of_url
from phonon_kombu.store.keys import NodeKeys, layout_key
from phonon_kombu.store.phonon_keys import ReferenceKeys, lock_key
from tests.celery.test_acl import row, rules
from tests.cluster.cluster import Cluster
from tests.servers import wait_for

from .clusters import NAMES, client_fixture, cluster_fixture, made_fixture  # noqa: F401
from .test_processes import MESSAGES, RECORDS, Consumers, check, in_the_middle


class Visit(Model):
    """A record of some fields."""

    TTL = 60.0
    FLUSH_SECONDS = 0.05
    n = field.Sum()
    log = field.ListAppend()
    done: list[Any] = []

    def on_complete(self) -> None:
        self.done.append((self.id, self.n, sorted(self.log)))


class Everything(Model):
    """Fields of each kind that Redis keeps in a way of its own."""

    sum = field.Sum(float)
    list = field.ListAppend()
    set = field.SetAppend()
    last = field.WindowedList(3, window_seconds=60)
    top = field.TopN(2)
    who = field.CountDistinct()
    count = field.Count()


def test_locks_in_all_slots(
    cluster: Cluster, client: redis.RedisCluster, made: Connections
) -> None:
    locks = [Lock(name, connections=made) for name in NAMES]
    assert all(lock.acquire(blocking=False) for lock in locks)
    assert not any(Lock(name, connections=made).acquire(blocking=False) for name in NAMES)
    assert {cluster.node_of(lock_key(name)).port for name in NAMES} == {
        node.port for node in cluster.nodes
    }
    for lock in locks:
        assert 29 < lock.remaining_seconds() <= 30 and lock.owned()
        lock.extend(50)
        assert lock.remaining_seconds() > 40
        lock.release()
    assert not any(client.exists(lock_key(name)) for name in NAMES)


def test_references_in_all_slots(made: Connections) -> None:
    lasts: list[str] = []

    def note(reference: Reference) -> None:
        lasts.append(f"{reference.name} {reference.times_modified()}")

    both = [
        [Reference(name, note, holder=holder, connections=made) for holder in "ab"]
        for name in NAMES
    ]
    for one, other in both:
        assert (one.hold(), other.hold(), one.count()) == (1, 2, 2)
        other.stall("why")
        assert one.stalled() == {"b": "why"}
        other.retry()
    for one, other in both:
        assert (one.finish(), other.finish()) == (False, True)
        assert one.maintain()
    assert lasts == [f"{name} 2" for name in NAMES]


def test_records_in_all_slots(made: Connections, client: redis.RedisCluster) -> None:
    Visit.done.clear()
    registries = [Registry(connections=made) for _ in range(2)]
    for number, registry in enumerate(registries):
        for n in range(30):
            registry.register(Visit(id=n, n=1 + number, log=number))
        registry.flush()
    assert [Visit.read(n, made).n for n in range(30)] == [3] * 30
    assert {key_slot(f"model.row:{{Visit.{n}}}".encode()) * 3 // 16384 for n in range(30)} == {
        0,
        1,
        2,
    }
    for registry in registries:
        registry.close()
    assert sorted(Visit.done) == [(n, 3, [0, 1]) for n in range(30)]
    assert not list(client.scan_iter("model.row*")) and not list(client.scan_iter("model.held*"))


def test_killed_consumers(cluster: Cluster, client: redis.RedisCluster) -> None:
    """As on one server: every message counts once, and the dead one's records are completed."""
    consumers = Consumers(cluster.url, client)
    client.rpush("{bus}", *range(MESSAGES))
    try:
        for name in "abc":
            consumers.start(name)
        consumers.go()
        wait_for(lambda: in_the_middle(consumers), 60, 0.001)
        for name in "ab":
            consumers.kill(name)
        wait_for(consumers.finished, 60)
        assert set(check(consumers)) == set(range(RECORDS))
        consumers.stop()
    finally:
        consumers.end()


def hold_for_ever(url: str, name: str, ready: Any) -> None:
    """Hold a reference until killed."""
    with Connections(url) as made:
        Reference(name, connections=made).hold()
        ready.set()
        signal.pause()


def test_what_a_killed_process_held(cluster: Cluster, made: Connections) -> None:
    """The living give it back, though its heartbeat and the reference lie on two nodes."""
    beats = cluster.node_of(NodeKeys().beats)
    name = next(n for n in NAMES if cluster.node_of(ReferenceKeys(n).holders) is not beats)
    lasts: list[str] = []
    mine = Reference(name, lambda reference: lasts.append(name), connections=made)
    mine.hold()
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    child = context.Process(target=hold_for_ever, args=(cluster.url, name, ready), daemon=True)
    child.start()
    assert ready.wait(60) and mine.count() == 2 and child.pid
    os.kill(child.pid, signal.SIGKILL)
    child.join(60)
    assert not mine.finish()
    wait_for(lambda: lasts == [name], 60)


def test_a_fork_has_connections_of_its_own(made: Connections) -> None:
    locks = [Lock(name, connections=made) for name in NAMES[:9]]
    assert all(lock.acquire() for lock in locks)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(30)
            link: Any = made.hosts[0].link
            link.command(b"PING")
            # Whatever it talks with first, no copy of the parent's sockets stays open.
            assert len(link._links) == 2
            assert all(one._connection is None for one in link._links.values())
            free = [Lock(name, connections=made).acquire(blocking=False) for name in NAMES]
            status = 0 if free == [False] * 9 + [True] * 15 else 2
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    for lock in locks:
        lock.release()


def test_a_user_with_the_rules_of_the_page(cluster: Cluster, client: redis.RedisCluster) -> None:
    added = [*row("`phonon_kombu.phonon`"), *row("the same on a Redis Cluster")]
    assert "~lock:*" in added and "+asking" in added
    for node in cluster.nodes:
        node.client().execute_command("ACL", "SETUSER", "shop", *rules(), *added)
        node.client().acl_log_reset()
    url = cluster.url.replace("://", "://shop:secret@")
    try:
        with Connections(url, presence_grace=0.5) as made:
            registry = Registry(connections=made)
            for n in range(6):
                with Lock(str(n), connections=made) as lock, Reference(str(n), connections=made):
                    lock.extend()
                registry.register(
                    Everything(id=n, sum=0.5, list=1, set=1, last=(1, 1), top=2, who="x", count=1)
                )
            registry.flush()
            assert Everything.read(1, made).count == 1
            registry.close()
        for node in cluster.nodes:
            assert node.client().acl_log() == []
    finally:
        for node in cluster.nodes:
            node.client().acl_deluser("shop")


# URLs and checks ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "seeds"),
    [
        ("phonon+cluster://a", [("a", 6379)]),
        ("phonon+cluster://me:secret@a:1,b:2/", [("a", 1), ("b", 2)]),
        ("phonon+cluster://me:secret@a:1;phonon+cluster://b:2/0", [("a", 1), ("b", 2)]),
        ("phonon+cluster://[::1]:7,b?socket_timeout=3", [("::1", 7), ("b", 6379)]),
    ],
)
def test_urls(url: str, seeds: list[tuple[str, int]]) -> None:
    found, pool = cluster_of_url(url)
    assert found == seeds
    assert pool.connection_kwargs.get("password") == ("secret" if "secret" in url else None)
    assert pool.connection_kwargs.get("socket_timeout") == (3 if "?" in url else None)
    assert "secret" not in Connections(url).hosts[0].name


@pytest.mark.parametrize(
    "url",
    [
        "phonon+cluster://:secret@a/1",
        "phonon+cluster://:secret@a:x",
        "phonon+cluster://:secret@a?no=1",
    ],
)
def test_urls_that_make_no_sense(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _ = Connections(url).hosts[0].link
    assert "secret" not in str(caught.value)


def test_the_layout_is_checked(cluster: Cluster, client: redis.RedisCluster) -> None:
    client.set(layout_key("p."), 99)
    with Connections(cluster.url, prefix="p.") as made, pytest.raises(LayoutMismatch):
        _ = made.hosts[0].link


def test_no_cluster(redis_db: str) -> None:
    """A single server says so."""
    with (
        Connections(f"phonon+cluster://{redis_db}") as made,
        pytest.raises(ConfigurationError, match="cluster"),
    ):
        _ = made.hosts[0].link
    with Connections("phonon+cluster://127.0.0.1:1") as made, pytest.raises(redis.ConnectionError):
        _ = made.hosts[0].link


def test_order_and_posts(made: Connections) -> None:
    """The replies stand in the order of the calls, whichever node they come from."""
    link = made.hosts[0].link
    keys = [f"key {n}".encode() for n in range(50)]
    link.send([(b"SET", key, b"%d" % n) for n, key in enumerate(keys)])
    calls = [*((b"GET", key) for key in keys), (b"PING",), (b"LPUSH", keys[0], b"x")]
    expected = [*(b"%d" % n for n in range(50)), b"PONG"]
    replies = link.send(calls, raise_first=False)
    assert replies[:-1] == expected and isinstance(replies[-1], redis.ResponseError)
    heard: list[Any] = []
    link.post(calls[:-1], heard.append)
    assert heard == [expected]
    with pytest.raises(redis.ResponseError, match="wrong kind"):
        link.send(calls)
