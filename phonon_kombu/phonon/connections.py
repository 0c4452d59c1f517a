"""The Redis servers that phonon's resources live on.

::

    import phonon_kombu.phonon.connections

    phonon_kombu.phonon.connections.connect(hosts=["redis01.example.com", "redis02.example.com"])

Every resource (a record, a lock) lives on one of the hosts, chosen by *rendezvous hashing*: the one
whose name and the resource's name together hash highest. Adding a host moves only the share that
the new one takes, and removing one only what it held.

A host may also be the master of a Redis Sentinel, or a whole Redis Cluster. A cluster moves what
it holds by itself when nodes come and go, so it needs no other hosts beside it::

    connect("phonon+sentinel://redis01;phonon+sentinel://redis02", master_name="main")
    connect("phonon+cluster://redis01:7000,redis02:7000")
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

from ..errors import ConfigurationError
from ..store import addresses
from ..store.checks import check_server
from ..store.client import CONNECTION_ERRORS, Link, fork_epoch
from ..store.closing import Closing
from ..store.cluster import Cluster
from ..store.keys import NodeKeys, layout_key
from ..store.sentinels import Settings as BySentinel
from ..store.sentinels import is_sentinel, master_of
from . import heart, hearts
from .arguments import checked_hosts, positive
from .node import node_id

logger = logging.getLogger("phonon_kombu.phonon")


class Server:
    """How one server, or the master that sentinels name, is reached."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        kwargs = pool.connection_kwargs
        #: What tells this database from another; the transport's for the same URL is equal, but
        #: where sentinels find it.
        self.identity = (addresses.place_of(pool), kwargs.get("port"), kwargs.get("db"))

    def link(self) -> Link:
        """A link of its own."""
        return Link(partial(addresses.connection_of, self.pool), self.pool.release)

    def disconnect(self) -> None:
        """Close all connections."""
        self.pool.disconnect()


class Host:
    """One Redis server or cluster: a link for commands, and the heartbeat of this process there.

    Attributes:
        name: what it is known by when resources are shared out: the address as it was given,
            without credentials.
        link: the connection for commands; safe between threads and after a fork.
    """

    def __init__(
        self, name: str, server: Server | Cluster, prefix: str, settings: heart.Settings
    ) -> None:
        self.name = name
        self.prefix = prefix
        self.server = server
        self._settings = settings
        self._checked = False
        self._heart: heart.Heart | None = None
        self._lock = threading.Lock()
        self._epoch = fork_epoch()
        self._link = self._make_link()

    def __repr__(self) -> str:
        return f"<Host {self.name}>"

    def _make_link(self) -> Link:
        if isinstance(self.server, Cluster):
            # At home where the heartbeats are: what shows that we live is the connection to there.
            return self.server.link(NodeKeys(self.prefix).beats)
        return self.server.link()

    @property
    def link(self) -> Link:
        """The link; the first use of it checks that the server is one that we can work with."""
        if not self._checked:
            check_server(self._link, layout_key(self.prefix))
            self._checked = True
        return self._link

    @property
    def identity(self) -> tuple[Any, ...]:
        """What tells this database from another."""
        return (*self.server.identity, self.prefix)

    def live(self) -> None:
        """Be seen as alive by the others from now on: what this process holds is its own until
        it dies, and then the living give it back."""
        _ = self.link  # checks the server
        self._mind_fork()
        with self._lock:
            if self._heart is None:
                self._heart = hearts.join(self.identity, self._make_heart)

    def _mind_fork(self) -> None:
        """A fork leaves the parent's heart here, which does not beat for us, and its lock."""
        if self._epoch != fork_epoch():
            self._epoch, self._heart, self._lock = fork_epoch(), None, threading.Lock()

    def _make_heart(self) -> heart.Heart:
        return heart.Heart(
            node_id(self.identity),
            self._make_link(),
            self.prefix,
            self._settings,
        )

    def close(self, goodbye: bool = True) -> None:
        """Close the connections; with `goodbye` this process holds nothing here any more."""
        self._mind_fork()
        with self._lock:
            found, self._heart = self._heart, None
        try:
            if found is not None:
                hearts.leave(self.identity, found, goodbye)
            self._link.close()
        except CONNECTION_ERRORS as error:
            logger.debug("closing %r: %r", self, error)
        self.server.disconnect()


class Connections(Closing):
    """A set of hosts, and which resource lives where. A context manager; safe between threads.

    Arguments:
        hosts: names of hosts, ``host:port``, or URLs (``phonon://user:password@host:6379/0``,
            ``phonons://`` with TLS, ``phonon+socket:///path``, ``phonon+embedded://``,
            ``redis://``; ``phonon+sentinel://host1;phonon+sentinel://host2?master_name=main``;
            ``phonon+cluster://host1:7000,host2:7000``; with TLS ``phonons+sentinel://`` and
            ``phonons+cluster://``). One string is one host. All processes must name the same hosts
            in the same words; the order makes no difference.
        port: of the hosts that name none.
        db: number of the database, of the hosts that name none.
        prefix: what all keys begin with.
        node_ttl, presence_grace, heartbeat_interval: how soon a silent process is taken for dead,
            in seconds; as the transport's options of these names.
        master_name, min_other_sentinels, sentinel_kwargs: for hosts that are named by their
            sentinels, as the transport's options of these names: what the sentinels call the
            master (or in the URL), how many others a sentinel must see to be believed, and the
            arguments of ``redis.Redis`` for the connections to the sentinels.
        options: further arguments of ``redis.Redis`` for hosts that are given by name
            (``username``, ``password``, ``ssl``, ...).

    Raises :exc:`~phonon_kombu.errors.ConfigurationError` for hosts that make no sense.
    """

    def __init__(
        self,
        hosts: str | Sequence[str] | None = None,
        port: int = 6379,
        db: int = 0,
        *,
        prefix: str = "",
        node_ttl: float = heart.Settings.node_ttl,
        presence_grace: float = heart.Settings.presence_grace,
        heartbeat_interval: float = heart.Settings.heartbeat_interval,
        master_name: str | None = None,
        min_other_sentinels: int | None = None,
        sentinel_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        given = checked_hosts(hosts)
        settings = heart.Settings(
            positive("node_ttl", node_ttl),
            positive("presence_grace", presence_grace),
            positive("heartbeat_interval", heartbeat_interval),
        )
        by_sentinel = BySentinel(master_name, min_other_sentinels, sentinel_kwargs)
        if master_name is not None and not any(is_sentinel(host) for host in given):
            raise ConfigurationError("master_name: no host is a URL of sentinels")
        self.prefix = prefix
        self.hosts = []
        for host in given:
            server = server_of(host, port, db, options, by_sentinel)
            self.hosts.append(Host(shown(host, port, by_sentinel), server, prefix, settings))
        names = [host.name for host in self.hosts]
        if len(set(names)) < len(names):
            raise ConfigurationError(f"the same host twice: {', '.join(names)}")

    def __repr__(self) -> str:
        return f"<Connections {', '.join(host.name for host in self.hosts)}>"

    def host_of(self, resource: str) -> Host:
        """The host on which `resource` (a lock's or reference's name, a record's
        :meth:`~.Model.registry_key`) lives. Its ``name`` is the address without credentials."""
        if len(self.hosts) == 1:
            return self.hosts[0]
        name = resource.encode("utf-8", "surrogateescape")
        return max(self.hosts, key=lambda host: weight(host.name, name))

    def close(self) -> None:
        """Close all connections; using them again connects anew."""
        for host in self.hosts:
            host.close()


def weight(host: str, resource: bytes) -> bytes:
    """The bid of a host for a resource: the highest takes it. The same in every process."""
    return blake2b(host.encode() + b"\0" + resource, digest_size=16).digest()


def shown(host: str, port: int, by_sentinel: BySentinel) -> str:
    """A host as it is named: without credentials and options, with its port."""
    if "://" not in host:
        return host if ":" in host else f"{host}:{port}"
    if is_sentinel(host):
        # The same sentinels may know several masters.
        return f"{_shown_urls(host)}?master_name={master_of(host, by_sentinel)}"
    return _shown_urls(host)


def _shown_urls(urls: str) -> str:
    parts = (url.partition("://") for url in urls.split(";"))
    places = [(scheme, rest.partition("?")[0].rpartition("@")[2]) for scheme, _, rest in parts]
    return ";".join(f"{scheme}://{place}" for scheme, place in places)


def server_of(
    host: str, port: int, db: int, options: dict[str, Any], by_sentinel: BySentinel
) -> Server | Cluster:
    """How to reach a host."""
    if "://" in host:
        if host.partition("://")[0] in addresses.CLUSTERS:
            return Cluster(*addresses.cluster_of_url(host))
        return Server(addresses.pool_of_url(host, by_sentinel=by_sentinel))
    name, number = addresses.host_and_port(host, port)
    return Server(addresses.pool_of_options(host=name, port=number, db=db, **options))


#: The connections that everything uses which is not given others; made by :func:`connect`.
connection: Connections | None = None
_lock = threading.Lock()


def connect(
    hosts: str | Sequence[str] | None = None, port: int = 6379, db: int = 0, **options: Any
) -> Connections:
    """Name the servers for this process: the arguments of :class:`Connections`.

    Nothing is asked of a server before it is used. Connecting again closes what was connected
    before. Returns the connections.
    """
    global connection
    made = Connections(hosts, port, db, **options)
    with _lock:
        before, connection = connection, made
    if before is not None:
        before.close()
    return made


@atexit.register
def _at_exit() -> None:
    # After the registries, which were imported later, have let go of what they hold.
    if connection is not None:
        connection.close()


def current() -> Connections:
    """The connections of this process.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError` before :func:`connect`.
    """
    if connection is None:
        raise ConfigurationError(
            "not connected: call phonon_kombu.phonon.connections.connect(hosts=[...]) first"
        )
    return connection
