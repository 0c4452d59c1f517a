"""A real Redis Cluster of three masters on loopback."""

from __future__ import annotations

import contextlib
import random
import re
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Any

import redis
from redis.crc import key_slot

from phonon_kombu.store.keys import QueueKeys
from phonon_kombu.store.scripts import Prepared
from tests.lua.machine import Machine, connect
from tests.servers import RedisServer, wait_for

SLOTS = 16384
NODES = 3


def slots_of(number: int) -> range:
    """The slots of a node."""
    return range(number * SLOTS // NODES, (number + 1) * SLOTS // NODES)


def free_cluster_port() -> int:
    """A loopback port that is free, with the cluster bus's port 10,000 above it free too."""
    while True:
        port = random.randrange(12_000, 31_000)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", port))
            two.bind(("127.0.0.1", port + 10_000))
            return port


def _start_node() -> RedisServer:
    for attempt in range(5):
        server = RedisServer(
            "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf",
            port=free_cluster_port(),
        )  # fmt: skip
        try:
            return server.start()
        except RuntimeError:  # somebody took a port meanwhile
            server.stop()
            if attempt == 4:
                raise
    raise AssertionError("not reached")


def _text(reply: Any) -> str:
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def succeeds(function: Callable[..., Any], *args: Any) -> bool:
    try:
        return bool(function(*args))
    except redis.RedisError:
        return False


class Cluster:
    """Three nodes that share the slots evenly. A context manager."""

    def __init__(self) -> None:
        self.nodes: list[RedisServer] = []

    def start(self) -> Cluster:
        """Start the nodes, hand out the slots, and wait until all agree."""
        self.nodes = [_start_node() for _ in range(NODES)]
        for number, node in enumerate(self.nodes):
            client = node.client()
            slots = slots_of(number)
            for start in range(slots.start, slots.stop, 1000):
                part = range(start, min(start + 1000, slots.stop))
                client.execute_command("CLUSTER", "ADDSLOTS", *part)
            if number:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        for node in self.nodes:
            wait_for(
                lambda n=node: self._agrees(n), 30, message="the cluster does not come together"
            )
        return self

    @staticmethod
    def _agrees(node: RedisServer) -> bool:
        info = node.client().execute_command("CLUSTER", "INFO")
        text = info.decode() if isinstance(info, bytes) else str(info)
        text = text.replace("': '", ":")  # redis-py makes a dict of it
        return "cluster_state:ok" in text and f"cluster_known_nodes:{NODES}" in text

    def add_replica(self, master: RedisServer) -> RedisServer:
        """A replica of a node that has all that the node has."""
        replica = _start_node()
        self.nodes.append(replica)
        client = replica.client()
        client.execute_command("CLUSTER", "MEET", "127.0.0.1", master.port)
        ident = _text(master.client().execute_command("CLUSTER", "MYID"))

        def knows_its_master() -> bool:
            return ident in _text(client.execute_command("CLUSTER", "NODES"))

        wait_for(lambda: succeeds(knows_its_master), 30)
        wait_for(lambda: succeeds(client.execute_command, "CLUSTER", "REPLICATE", ident), 30)
        wait_for(lambda: client.info("replication").get("master_link_status") == "up", 60)  # type: ignore[union-attr]
        mine = _text(client.execute_command("CLUSTER", "MYID"))

        def is_known() -> bool:
            """To all: nobody listens to a stranger who says that he is the master now."""
            seen = [_text(node.client().execute_command("CLUSTER", "NODES")) for node in self.nodes]
            return all(re.search(rf"^{mine} .* (myself,)?slave ", one, re.M) for one in seen)

        wait_for(lambda: succeeds(is_known), 60)
        return replica

    def take_over(self, replica: RedisServer) -> None:
        """Make a replica the master of its slots, whatever the others think of that."""
        replica.client().execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
        wait_for(lambda: replica.client().info("replication")["role"] == "master", 30)  # type: ignore[index]

    def move_slot(self, slot: int, target: RedisServer) -> None:
        """Give an emptied slot to another node; the keys are not carried along."""
        ident = target.client().execute_command("CLUSTER", "MYID")
        for node in self.nodes:
            node.client().execute_command("CLUSTER", "SETSLOT", slot, "NODE", ident)

    def node_of(self, key: bytes) -> RedisServer:
        """The node that serves a key."""
        slot = key_slot(key)
        return next(node for number, node in enumerate(self.nodes) if slot in slots_of(number))

    @property
    def url(self) -> str:
        """The URL of the cluster, which names one of its nodes."""
        return f"phonon+cluster://127.0.0.1:{self.nodes[0].port}"

    def client(self) -> redis.RedisCluster:
        """A plain client of the whole cluster."""
        return redis.RedisCluster(host="127.0.0.1", port=self.nodes[0].port)

    def stop(self) -> None:
        """Stop all nodes."""
        for node in self.nodes:
            node.stop()

    def __enter__(self) -> Cluster:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class Routed(Machine):
    """A machine on a cluster: it talks to the node that serves its keys, and sees to it that all
    keys of each call are in one slot."""

    def __init__(self, cluster: Cluster, queue: str) -> None:
        self.cluster = cluster
        #: The scripts that have run.
        self.ran: set[str] = set()
        super().__init__(cluster.node_of(QueueKeys(queue).items), queue)

    @property
    def keys(self) -> Any:
        """What the scripts are run on; another node is asked as they change."""
        return self._keys

    @keys.setter
    def keys(self, keys: Any) -> None:
        self._keys = keys
        node = self.cluster.node_of(next(key for key in values_of(keys) if isinstance(key, bytes)))
        if node is not self.server:
            self.link.close()
            self.server, self.client, self.link = node, node.client(), connect(node)

    def call(self, prepared: Prepared, *args: Any) -> Any:
        """Run a script."""
        assert len({key_slot(key) for key in prepared.keys}) == 1, prepared.keys
        assert self.cluster.node_of(prepared.keys[0]) is self.server
        self.ran.add(prepared.script.name)
        return super().call(prepared, *args)


def values_of(keys: Any) -> list[Any]:
    """The attributes of an object, in slots or not."""
    slots = [slot for kind in type(keys).__mro__ for slot in getattr(kind, "__slots__", ())]
    return [getattr(keys, name) for name in (*slots, *getattr(keys, "__dict__", ()))]
