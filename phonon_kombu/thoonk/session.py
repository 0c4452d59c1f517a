"""A session: the connection to one Redis, and the way to its jobs and queues."""

from __future__ import annotations

import logging
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import redis

from ..errors import ConfigurationError
from ..phonon import heart
from ..phonon.node import node_id
from ..store import addresses
from ..store.client import CONNECTION_ERRORS, Link, check_server, translate
from ..store.keys import feeds_key, layout_key, queue_keys
from .base import Base
from .job import Job
from .queue import Queue

logger = logging.getLogger("phonon_kombu.thoonk")

#: Seconds in which the reply to a command must come when its own wait is over.
REPLY_SECONDS = 10.0

F = TypeVar("F", bound=Base)


class Thoonk:
    """A session with one Redis server. A context manager; safe between threads and after a fork.

    Name the server in one of three ways::

        Thoonk("phonon://user:password@host:6379/0")    # or redis://, phonons://, ...
        Thoonk("host", 6379, 0, password="...")         # what redis.Redis takes
        Thoonk(client=redis.Redis(...))                 # Sentinel, TLS, credential providers

    It connects when it is first used; nothing is asked of the server before. A `client` gives
    its address and credentials only: the session opens connections of its own.

    Arguments:
        host: a host name (default ``localhost``), or a URL.
        port: default 6379.
        db: number of the database, default 0.
        url: the same as a URL in `host`: ``phonon://``, ``phonons://`` (TLS, the certificate
            verified), ``phonon+socket:///path``, ``phonon+embedded://[directory]``; also
            ``redis://``, ``rediss://``, ``unix://``.
        client: a ``redis.Redis``.
        prefix: what all keys begin with: Celery's ``global_keyprefix``.
        hash_tags: False writes key names without braces, exactly as Thoonk's contract has them.
            Must be the same for all who share the queues.
        decode: items and results are ``str`` (UTF-8; other bytes as surrogate escapes, so that
            nothing is lost); False leaves them ``bytes``. Put takes both.
        options: further arguments of ``redis.Redis``, with `host`.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError` for an address that makes no sense,
    :exc:`~phonon_kombu.errors.EmbeddedServerError`.

    All methods of a session and of what it gives raise, beside what they name: redis-py's
    ``ConnectionError`` and ``TimeoutError`` when the server cannot be reached or goes away, and
    the subclasses of :exc:`~phonon_kombu.errors.ServerError`.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        db: int | None = None,
        *,
        url: str | None = None,
        client: Any = None,
        prefix: str = "",
        hash_tags: bool = True,
        decode: bool = True,
        **options: Any,
    ) -> None:
        if host is not None and "://" in host:
            host, url = None, host if url is None else ""
        named = {"host": host, "port": port, "db": db}
        given = {name: value for name, value in named.items() if value is not None} | options
        if [url is not None, client is not None, bool(given)].count(True) > 1 or url == "":
            raise ConfigurationError("name the server once: by host, or by url, or by client")
        if url is not None:
            self._pool = addresses.pool_of_url(url)
        else:
            self._pool = addresses.pool_of_client(
                redis.Redis(**given) if client is None else client
            )
        self._client = client  # a Sentinel's connections ask its pool for the master
        self.prefix = prefix
        self.hash_tags = hash_tags
        self.decode = decode
        self.link = Link(self._connect, self._pool.release)
        self._checked = False
        self._feeds: dict[tuple[type[Base], str], Base] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}>"

    @property
    def address(self) -> str:
        """Where the server is, for people to read; without credentials."""
        kwargs = self._pool.connection_kwargs
        place = kwargs.get("path") or f"{kwargs.get('host')}:{kwargs.get('port')}"
        if "host" not in kwargs and "path" not in kwargs:
            place = self._pool.connection_class.__name__
        return f"{place}/{kwargs.get('db') or 0}"

    def job(self, name: str) -> Job:
        """The job feed `name`, made if it does not exist; a Celery queue is one.

        The same object every time: what one part of a program claims, another may finish.

        Raises :exc:`~phonon_kombu.errors.ConfigurationError` if `name` is a feed of another
        type, :exc:`~phonon_kombu.errors.ServerTooOld`,
        :exc:`~phonon_kombu.errors.LayoutMismatch`.
        """
        return self._feed(Job, name)

    def queue(self, name: str) -> Queue:
        """The simple queue `name`, made if it does not exist.

        Raises the same errors as :meth:`job`.
        """
        return self._feed(Queue, name)

    def _feed(self, kind: type[F], name: str) -> F:
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"a feed's name must be a string, not {name!r}")
        found = self._feeds.get((kind, name))
        if found is None:
            if not self._checked:
                check_server(self.link, layout_key(self.prefix))
                self._checked = True
            self._create(kind.TYPE, name)
            # Of two threads that come here together, both get the object of the first.
            found = self._feeds.setdefault((kind, name), kind(self, name))
        assert isinstance(found, kind)
        return found

    def _create(self, kind: str, name: str) -> None:
        config = queue_keys(name, self.prefix, self.hash_tags).config
        _, _, found = self.link.send(
            (
                (b"HSETNX", config, b"type", kind.encode()),
                (b"SADD", feeds_key(self.prefix), name.encode("utf-8", "surrogateescape")),
                (b"HGET", config, b"type"),
            ),
            repeat=True,
        )
        if found != kind.encode():
            raise ConfigurationError(f"{name!r} is a feed of the type {found!r}, not {kind!r}")

    def close(self) -> None:
        """Close all connections. Claims stay claimed; using the session again connects anew."""
        for feed in list(self._feeds.values()):
            try:
                feed.leave()
            except CONNECTION_ERRORS as error:
                logger.debug("closing %r: %r", feed, error)
        self.link.close()
        self._pool.disconnect()

    def __enter__(self) -> Thoonk:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # For the feeds of this session ---------------------------------------------------------

    def _connect(self) -> Any:
        return addresses.connection_of(self._pool)

    def wait(self, wake: bytes, seconds: float) -> None:
        """Wait until the key `wake` is set, for so many seconds at the most, and take it away.

        The wait has a connection of its own, so that other threads' commands do not wait too.
        """
        connection = self._connect()
        try:
            # Redis takes a timeout below a millisecond for "for ever".
            connection.send_command("BZPOPMIN", wake, max(seconds, 0.01))
            if not connection.can_read(timeout=seconds + REPLY_SECONDS):
                raise redis.TimeoutError(f"no reply from {self.address}")
            connection.read_response()
        except redis.ResponseError as error:
            raise translate(error) from None
        except BaseException:
            # The reply may come later: nobody may take it for the reply to another command.
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)

    # Who is alive --------------------------------------------------------------------------

    @property
    def server_identity(self) -> tuple[Any, ...]:
        """What tells this database from another: address, number, key prefix."""
        kwargs = self._pool.connection_kwargs
        place = kwargs.get("path") or kwargs.get("host") or id(self)
        return place, kwargs.get("port"), kwargs.get("db") or 0, self.prefix

    def join(self) -> heart.Heart:
        """The heart of this process at this database: others give back what we hold if we die."""
        return heart.join(self.server_identity, self._make_heart)

    def leave(self, beating: heart.Heart) -> None:
        """The counterpart of :meth:`join`, for those who hold nothing any more."""
        heart.leave(self.server_identity, beating, goodbye=True)

    def _make_heart(self) -> heart.Heart:
        pool = addresses.copy_of(self._pool)  # it outlives this session
        return heart.Heart(
            node_id(self.server_identity),
            Link(partial(addresses.connection_of, pool), pool.release),
            self.prefix,
            partial(queue_keys, prefix=self.prefix, hash_tags=self.hash_tags),
            heart.Settings(),
        )

    def subscription(self) -> Any:
        """A PUB/SUB conversation of redis-py on a connection of its own, to be closed."""
        return redis.Redis(connection_pool=self._pool).pubsub()  # type: ignore[no-untyped-call]
