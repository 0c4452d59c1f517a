"""phonon on a real cluster while slots move and nodes die, and with TLS."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from phonon_kombu.phonon.connections import Connections
from phonon_kombu.phonon.lock import Lock
from phonon_kombu.phonon.node import node_id
from phonon_kombu.store.keys import NodeKeys
from phonon_kombu.store.phonon_keys import lock_key
from tests.cluster.cluster import Cluster, free_cluster_port, succeeds
from tests.dual_port import DualPort
from tests.servers import RedisServer, wait_for
from tests.topologies import Certificates

from .clusters import NAMES, client_fixture, cluster_fixture, made_fixture  # noqa: F401


def test_a_slot_that_has_moved(cluster: Cluster, made: Connections) -> None:
    lock = Lock("moved", connections=made)
    slot, first = key_slot(lock_key("moved")), cluster.node_of(lock_key("moved"))
    assert lock.acquire()
    lock.release()
    other = next(node for node in cluster.nodes if node is not first)
    try:
        cluster.move_slot(slot, other)
        assert lock.acquire(blocking=False)
        assert other.client().exists(lock_key("moved"))
        lock.release()
    finally:
        cluster.move_slot(slot, first)


def test_threads_while_slots_move(cluster: Cluster, made: Connections) -> None:
    """Each has the replies to its own commands, and none is told of the move."""
    name = "moving about"
    slot, first = key_slot(lock_key(name)), cluster.node_of(lock_key(name))
    other = next(node for node in cluster.nodes if node is not first)
    link, wrong, ended = made.hosts[0].link, [], threading.Event()

    def work(number: int) -> None:
        mine = [f"{name} {number} {n}".encode() for n in range(6)]
        link.send([(b"SET", key, key) for key in mine])
        asked = [*((b"GET", key) for key in mine), (b"EXISTS", lock_key(name))]
        while not ended.is_set():
            try:
                found = link.send(asked, repeat=True)
            except Exception as error:
                found = [error]
            if found != [*mine, 0]:
                wrong.append(found)
                return

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for target in (other, first) * 10:
            cluster.move_slot(slot, target)
            time.sleep(0.02)  # no synchronisation: only moves spread over the run
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)
        cluster.move_slot(slot, first)
    assert not wrong


@pytest.mark.parametrize("endpoint", ["ip", "unknown-endpoint"])
def test_a_slot_on_its_way(cluster: Cluster, made: Connections, endpoint: str) -> None:
    """What is not at the old node any more is asked of the new one, and scripts run there.

    A node that does not know by what name it is reached gives the others' ports only.
    """
    lock, key = Lock("moving", connections=made), lock_key("moving")
    slot, first = key_slot(key), cluster.node_of(key)
    other = next(node for node in cluster.nodes if node is not first)
    assert not lock.locked()
    idents = [node.client().execute_command("CLUSTER", "MYID") for node in (first, other)]
    other.client().execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", idents[0])
    first.client().execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", idents[1])
    other.client().script_flush()
    try:
        for node in cluster.nodes:
            with suppress(redis.ResponseError):  # 6.2 always names an address
                node.client().config_set("cluster-preferred-endpoint-type", endpoint)
        assert lock.acquire(blocking=False)
        assert lock.owned()
        lock.release()
        assert not lock.locked()
    finally:
        for node in (first, other):
            node.client().execute_command("CLUSTER", "SETSLOT", slot, "STABLE")
        for node in cluster.nodes:
            with suppress(redis.ResponseError):
                node.client().config_set("cluster-preferred-endpoint-type", "ip")


def test_heartbeats_that_have_moved(cluster: Cluster, made: Connections) -> None:
    """The process shows itself at the node that has them now, and is not taken for dead."""
    host, beats = made.hosts[0], NodeKeys().beats
    host.live()
    node = node_id(host.identity)
    first = cluster.node_of(beats)
    other = next(one for one in cluster.nodes if one is not first)
    assert _asked(first, "zscore", beats, node) is not None
    try:
        _move_emptied(cluster, beats, first, other)
        # What the other connections of this process say finds its way too.
        run_id = b"run_id:" + _run_id(other)
        assert host.link.command(b"ZCARD", b"other:{nodes}") == 0
        assert run_id in host.link.command(b"INFO", b"server")
        wait_for(lambda: _asked(other, "zscore", beats, node) is not None, 60)
        presence = "node.presence:{nodes}"
        wait_for(lambda: _run_id(other) in (_asked(other, "hget", presence, node) or b""), 60)
        assert Lock("x", connections=made).acquire(blocking=False)
    finally:
        made.close()
        _move_emptied(cluster, beats, other, first)


def _move_emptied(cluster: Cluster, key: bytes, source: RedisServer, target: RedisServer) -> None:
    def moved() -> bool:
        keys: Any = source.client().keys("node.*")
        try:
            if keys:
                source.client().delete(*keys)
            cluster.move_slot(key_slot(key), target)
        except redis.ResponseError:  # a beat came in between
            return False
        return True

    wait_for(moved, 30)


def _asked(node: Any, command: str, *args: Any) -> Any:
    return getattr(node.client(), command)(*args)


def _run_id(node: Any) -> bytes:
    return str(node.client().info("server")["run_id"]).encode()


@pytest.mark.parametrize("victim", [0, 1], ids=["the one that the URL names", "another"])
def test_a_node_that_dies(victim: int) -> None:
    """Its replica takes over: nothing that was replicated is lost, and work goes on."""
    with Cluster() as cluster, Connections(cluster.url, presence_grace=0.5) as made:
        node = cluster.nodes[victim]
        name = next(n for n in NAMES if cluster.node_of(lock_key(n)) is node)
        replica = cluster.add_replica(node)
        lock = Lock(name, ttl_seconds=600, connections=made)
        assert lock.acquire()
        node.client().wait(1, 30_000)
        node.kill()
        with pytest.raises(redis.ConnectionError):
            lock.owned()
        # What comes first has been done when what comes second fails.
        here = next(n for n in NAMES if cluster.node_of(n.encode()) is not node).encode()
        there = next(n for n in NAMES if cluster.node_of(n.encode()) is node).encode()
        with pytest.raises(redis.ConnectionError):
            made.hosts[0].link.send(((b"SET", here, b"1"), (b"SET", there, b"1")))
        assert cluster.node_of(here).client().get(here) == b"1"
        cluster.take_over(replica)

        def settled() -> bool:
            try:
                return lock.owned() and made.hosts[0].link.command(b"GET", b"x") is None
            except redis.ConnectionError:
                return False

        wait_for(settled, 60)
        lock.release()
        with Lock(name, connections=made):
            assert not Lock(name, connections=made).acquire(blocking=False)


def test_tls() -> None:
    """To all nodes, at the ports that they tell; their certificates are verified."""
    files, port = Certificates(), free_cluster_port()
    front = DualPort(port, files)
    options = ("--cluster-enabled", "yes", "--cluster-announce-port", str(front.port))
    with RedisServer(*options, port=port) as node:
        node.client().execute_command("CLUSTER", "ADDSLOTS", *range(16384))
        wait_for(lambda: succeeds(node.client().set, "it is", "up"), 30)
        url = f"phonons+cluster://127.0.0.1:{front.port}"
        with Connections(f"{url}?ssl_ca_certs={files.ca}") as made:
            assert Lock("x", connections=made).acquire()
            made.hosts[0].live()
            assert front.secured >= 2 and node.client().exists(lock_key("x"))
        with (
            Connections(url) as made,
            pytest.raises(redis.ConnectionError, match=r"(?i)certificate"),
        ):
            Lock("x", connections=made).acquire()
    front.close()
    files.close()
