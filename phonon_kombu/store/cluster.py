"""A Redis Cluster: which of its nodes serves a key, and a :class:`~.client.Link` to all of them.

The keys of one script share a slot (:mod:`.keys`), so every call has one node that it goes to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from time import sleep
from typing import Any

import redis
from redis import exceptions as redis_errors
from redis.crc import key_slot

from ..errors import ConfigurationError
from . import addresses
from .client import CONNECTION_ERRORS, Link, fork_epoch
from .patience import alone
from .scripts import Prepared

#: Host and port of a node.
Address = tuple[str, int]

#: Commands about a server, not about a key: they go to the node at home.
KEYLESS = frozenset({b"CLIENT", b"CLUSTER", b"ECHO", b"INFO", b"PING", b"SCRIPT", b"TIME"})

#: How often a call is sent on before the cluster counts as being away.
MOST_ROUNDS = 16

#: Seconds until a call is tried again whose keys are on their way from one node to another.
MOVING_SECONDS = 0.05


class Cluster:
    """The nodes of a cluster, and a pool of connections to each. Safe between threads.

    Arguments:
        seeds: nodes to ask for all the others: those that answer first are enough.
        pool: how to connect; its host and port do not count.
    """

    def __init__(self, seeds: Sequence[Address], pool: redis.ConnectionPool) -> None:
        self.seeds = list(seeds)
        self._template = pool
        self._pools: dict[Address, redis.ConnectionPool] = {}
        #: First and last slot of a range, and its master.
        self._ranges: list[tuple[int, int, Address]] = []
        #: All nodes that were heard of last: those that are named may die first.
        self._nodes: list[Address] = []
        self._renew()

    def _renew(self) -> None:
        self._lock = threading.RLock()
        self._epoch = fork_epoch()

    def _alone(self) -> Any:
        if self._epoch != fork_epoch():  # another thread of the parent may have held it
            self._renew()
        return alone(self._lock)

    @property
    def identity(self) -> tuple[Any, ...]:
        """What tells this database from another."""
        return ("cluster", *sorted(self.seeds))

    def link(self, home: bytes = b"") -> ClusterLink:
        """A link to all nodes, at home where the key `home` is."""
        return ClusterLink(self, key_slot(home))

    def address_of(self, slot: int) -> Address:
        """The node that serves a slot, as far as is known.

        Raises connection errors if no node says anything, or none serves the slot.
        """
        # The list is replaced, never changed: another thread may forget it meanwhile.
        for first, last, address in self._ranges or self.refresh():
            if first <= slot <= last:
                return address
        self.forget()
        raise redis_errors.ConnectionError(f"no node of the cluster serves slot {slot}")

    def forget(self) -> None:
        """What is known may be out of date: ask before the next call."""
        self._ranges = []

    def refresh(self) -> list[tuple[int, int, Address]]:
        """Ask the nodes, one after the other, who serves which slots now.

        Raises :exc:`~phonon_kombu.errors.ConfigurationError` for a server that is in no cluster.
        """
        with self._alone():
            known = dict.fromkeys([*self.seeds, *self._nodes])
            lost: Exception = redis_errors.ConnectionError("the cluster has no nodes")
            for address in known:
                link = self.link_to(address)
                try:
                    found = list(_ranges(link.command(b"CLUSTER", b"SLOTS"), address))
                except CONNECTION_ERRORS as error:
                    lost = error
                    continue
                except redis_errors.ResponseError as error:
                    host, port = address
                    raise ConfigurationError(
                        f"{host}:{port} is named as a node of a Redis Cluster: {error}"
                    ) from None
                finally:
                    link.close()
                if found:
                    self._nodes = list(dict.fromkeys(n for *_, nodes in found for n in nodes))
                    ranges = [(first, last, nodes[0]) for first, last, nodes in found]
                    self._ranges = ranges
                    return ranges
        raise lost

    def pool_of(self, address: Address) -> redis.ConnectionPool:
        """The pool of connections to a node."""
        with self._alone():
            found = self._pools.get(address)
            if found is None:
                host, port = address
                found = addresses.copy_of(self._template, host=host, port=port)
                self._pools[address] = found
            return found

    def link_to(self, address: Address) -> Link:
        """A link to one node."""
        pool = self.pool_of(address)
        return Link(partial(addresses.connection_of, pool), pool.release)

    def disconnect(self) -> None:
        """Close all connections."""
        with self._alone():
            for pool in self._pools.values():
                pool.disconnect()


class ClusterLink(Link):
    """A link whose calls go each to the node that serves its keys.

    The calls of one :meth:`send` that go to one node keep their order, and the nodes are asked one
    after the other, in the order of their first calls: what comes second is done second.

    What has no keys goes to the node at *home*, which serves the slot `home`; :meth:`connection` is
    the one to it, and :attr:`generation` grows when it is made anew or the slot has moved.
    """

    def __init__(self, cluster: Cluster, home: int) -> None:
        super().__init__(self._go_home, self._leave_home)
        self._cluster = cluster
        self._home = home
        self._at: Address | None = None
        self._links: dict[Address, Link] = {}

    def _go_home(self) -> Any:
        self._cluster.refresh()  # a lost connection is often the sign of a move
        self._at = self._cluster.address_of(self._home)
        return addresses.connection_of(self._cluster.pool_of(self._at))

    def _leave_home(self, connection: Any) -> None:
        assert self._at is not None
        self._cluster.pool_of(self._at).release(connection)

    def after_fork(self) -> None:
        super().after_fork()
        for link in self._links.values():
            link.after_fork()

    def close(self) -> None:
        super().close()
        for link in list(self._links.values()):
            link.close()

    def post(self, calls: Sequence[Any], on_replies: Callable[[list[Any]], None]) -> None:
        """As :meth:`.Link.post`, but that the replies are awaited at once."""
        on_replies(self.send(calls, raise_first=False))

    def send(
        self, calls: Sequence[Any], repeat: bool = False, raise_first: bool = True
    ) -> list[Any]:
        """As :meth:`.Link.send`, over all nodes; calls that a node sends on are sent on."""
        self._mind_fork()
        replies: list[Any] = [None] * len(calls)
        todo: Iterable[int] = range(len(calls))
        tries = 2 if repeat else 1
        for _ in range(MOST_ROUNDS):
            again: list[int] = []
            for address, places in self._by_node(calls, todo).items():
                if again:  # what was sent before has not been done yet
                    again += places
                    continue
                try:
                    found = self._send_to(address, [calls[i] for i in places], repeat)
                except CONNECTION_ERRORS:
                    self._cluster.forget()
                    tries -= 1
                    if not tries:
                        raise
                    again += places
                    continue
                for i, reply in zip(places, found, strict=True):
                    replies[i] = self._sent_on(calls[i], reply, address)
                    if refusal(replies[i]):
                        again.append(i)
            todo = sorted(again)
            if not todo:
                break
        for i in todo:
            replies[i] = redis_errors.ConnectionError(f"the cluster does not settle: {replies[i]}")
        if raise_first:
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies

    def _by_node(self, calls: Sequence[Any], places: Iterable[int]) -> dict[Address, list[int]]:
        found: dict[Address, list[int]] = {}
        for i in places:
            slot = slot_of(calls[i])
            address = self._cluster.address_of(self._home if slot is None else slot)
            found.setdefault(address, []).append(i)
        return found

    def _send_to(self, address: Address, calls: Sequence[Any], repeat: bool) -> list[Any]:
        if address != self._cluster.address_of(self._home):
            return self._link_to(address).send(calls, repeat, raise_first=False)
        with alone(self.lock):
            if self._connection is not None and self._at != address:
                super().close()  # home has moved
            return super().send(calls, repeat, raise_first=False)

    def _link_to(self, address: Address) -> Link:
        link = self._links.get(address)
        if link is None:
            # Of two threads that come first together one gives its link up, unconnected.
            link = self._links.setdefault(address, self._cluster.link_to(address))
        return link

    def _sent_on(self, call: Any, reply: Any, asked: Address) -> Any:
        """The reply to a call, from another node if its slot is on the way there."""
        if refusal(reply) == "ASK":
            host, _, port = str(reply).rpartition(" ")[2].rpartition(":")
            # A node that knows no name of the other one means the host by which it was asked.
            link = self._link_to((host or asked[0], int(port)))
            reply = link.send(((b"ASKING",), call), raise_first=False)[1]
        if refusal(reply) == "MOVED":
            self._cluster.forget()
        elif refusal(reply):
            sleep(MOVING_SECONDS)
        return reply


#: Replies of a node that has done nothing: the slot is another's, or its keys are on the way. A
#: MovedError is an AskError too.
_REFUSALS = {
    "MOVED": redis_errors.MovedError,
    "ASK": redis_errors.AskError,
    "TRYAGAIN": redis_errors.TryAgainError,
}


def refusal(reply: Any) -> str:
    """Which of these a reply is; empty if none."""
    if isinstance(reply, redis_errors.ResponseError):
        for word, kind in _REFUSALS.items():
            # redis-py before 6 has these errors for its own cluster client only.
            if isinstance(reply, kind) or str(reply).startswith(f"{word} "):
                return word
    return ""


def slot_of(call: Any) -> int | None:
    """The slot of a call's keys, None if it has none."""
    if isinstance(call[0], Prepared):
        return key_slot(call[0].keys[0]) if call[0].keys else None
    return None if call[0] in KEYLESS else key_slot(call[1])


def _ranges(slots: Any, asked: Address) -> Iterable[tuple[int, int, list[Address]]]:
    """The reply to CLUSTER SLOTS: first and last slot, their master and its replicas."""
    for first, last, *nodes in slots:
        # A node that does not know its own name means the one by which it was asked.
        yield (
            int(first),
            int(last),
            [(node[0].decode() if node[0] else asked[0], int(node[1])) for node in nodes],
        )
