"""Where the server is: URLs and clients turned into a connection pool of redis-py."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import redis

from ..errors import ConfigurationError

#: Scheme of a URL -> the scheme that redis-py knows it by.
SCHEMES = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "phonon": "redis",
    "phonon+tcp": "redis",
    "phonons": "rediss",
    "phonon+socket": "unix",
    "redis+socket": "unix",
}

EMBEDDED = "phonon+embedded"

#: What a pool of redis-py adds for itself to the arguments of its connections.
_POOL_OWN = ("maint_notifications", "orig_", "himport_registry", "event_dispatcher", "cache")

#: All replies as bytes, in the shapes of the older protocol, whatever the client prefers.
_PLAIN = {"decode_responses": False, "protocol": 2}


def pool_of_client(client: Any) -> redis.ConnectionPool:
    """A pool of our own that connects as `client` does.

    Its connections are the client's kind (TLS, Unix socket, Sentinel, credential provider) with
    the client's arguments, but for the decoding of replies: items are bytes.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError` for what is no ``redis.Redis``.
    """
    theirs = getattr(client, "connection_pool", None)
    if not isinstance(theirs, redis.ConnectionPool):
        raise ConfigurationError(
            f"client={type(client).__name__}: it must be a redis.Redis "
            "(redis.asyncio and RedisCluster are not supported)"
        )
    return copy_of(theirs)


def copy_of(pool: redis.ConnectionPool) -> redis.ConnectionPool:
    """Another pool that connects as `pool` does, with connections of its own."""
    kwargs = {
        name: value
        for name, value in pool.connection_kwargs.items()
        if not name.startswith(_POOL_OWN)
    }
    return redis.ConnectionPool(connection_class=pool.connection_class, **{**kwargs, **_PLAIN})


def connection_of(pool: redis.ConnectionPool) -> Any:
    """A connection of `pool`, kept out of it until released."""
    try:
        return pool.get_connection()
    except TypeError:  # redis-py before 5.3 wants to know for what
        return pool.get_connection("_")


def pool_of_url(url: str) -> redis.ConnectionPool:
    """A pool for the server that `url` names; an embedded one is started if need be.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError` (without the URL's password), and
    :exc:`~phonon_kombu.errors.EmbeddedServerError`.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # reading it is what checks it
    except ValueError as error:
        raise ConfigurationError(f"a URL that cannot be read: {error}") from None
    if parts.scheme == EMBEDDED:
        return _embedded_pool(unquote(parts.netloc + parts.path))
    scheme = SCHEMES.get(parts.scheme)
    if scheme is None:
        hint = ""
        if "sentinel" in parts.scheme:
            hint = "; for Sentinel pass client=redis.Sentinel(...).master_for(...)"
        raise ConfigurationError(
            f"a URL with the scheme {parts.scheme!r}: it must be one of "
            f"{', '.join([*SCHEMES, EMBEDDED])}{hint}"
        )
    if ";" in url or "," in parts.netloc.rpartition("@")[2]:
        raise ConfigurationError("a list of URLs: a session talks to one server, name one")
    if scheme != "unix" and not _is_database(parts.path.strip("/")):
        raise ConfigurationError(
            f"{parts.path!r} in a URL: the path must be the number of a database, as in "
            f"{parts.scheme}://host:6379/0"
        )
    query = urlencode([_option(*option) for option in parse_qsl(parts.query)])
    try:
        return redis.ConnectionPool.from_url(
            f"{scheme}://{parts.netloc}{parts.path}?{query}", **_PLAIN
        )
    except ValueError as error:
        raise ConfigurationError(f"a URL that makes no sense: {error}") from None


def pool_of_options(**options: Any) -> redis.ConnectionPool:
    """A pool for the server that the arguments of ``redis.Redis`` name.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError` for arguments that it does not know.
    """
    try:
        return pool_of_client(redis.Redis(**options))
    except TypeError as error:
        raise ConfigurationError(f"an option that redis.Redis does not know: {error}") from None


def _is_database(path: str) -> bool:
    return not path or (path.isascii() and path.isdigit())


def _option(name: str, value: str) -> tuple[str, str]:
    """An option of a URL as Celery's users write it, as redis-py reads it."""
    if name == "virtual_host":
        return "db", value.strip("/")
    if name == "ssl_cert_reqs":
        return name, value.lower().removeprefix("cert_")
    return name, value


def _embedded_pool(directory: str) -> redis.ConnectionPool:
    from .embedded import acquire

    return pool_of_client(redis.Redis(**acquire(directory or None).client_options()))
