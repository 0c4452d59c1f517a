"""A real Redis Cluster of three masters on loopback."""

from __future__ import annotations

import contextlib
import random
import socket
from types import TracebackType

from redis.crc import key_slot

from tests.servers import RedisServer, wait_for

SLOTS = 16384
NODES = 3


def _free_ports() -> int:
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
            port=_free_ports(),
        )  # fmt: skip
        try:
            return server.start()
        except RuntimeError:  # somebody took a port meanwhile
            server.stop()
            if attempt == 4:
                raise
    raise AssertionError("not reached")


class Cluster:
    """Three nodes that share the slots evenly. A context manager."""

    def __init__(self) -> None:
        self.nodes: list[RedisServer] = []

    def start(self) -> Cluster:
        """Start the nodes, hand out the slots, and wait until all agree."""
        self.nodes = [_start_node() for _ in range(NODES)]
        for number, node in enumerate(self.nodes):
            client = node.client()
            slots = range(number * SLOTS // NODES, (number + 1) * SLOTS // NODES)
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

    def node_of(self, key: bytes) -> RedisServer:
        """The node that serves a key."""
        return self.nodes[key_slot(key) * NODES // SLOTS]

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
