"""Where the server is: URLs and clients turned into a connection pool of redis-py.

`library` is ``redis``, or ``redis.asyncio`` for pools of connections to be awaited.
"""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

import redis
import redis.asyncio

from ..errors import ConfigurationError
from . import sentinels, urls
from .patience import GREETING_SECONDS, prompt

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
#: Of a Redis Cluster -> the scheme for one of its nodes.
CLUSTERS = {"phonon+cluster": "redis", "phonons+cluster": "rediss"}

#: What is asked of the sentinels of a URL that says all by itself.
_BY_URL = sentinels.Settings()

#: What a pool of redis-py adds for itself to the arguments of its connections.
_POOL_OWN = ("maint_notifications", "orig_", "himport_registry", "event_dispatcher", "cache")

#: All replies as bytes, in the shapes of the older protocol, whatever the client prefers.
_PLAIN = {"decode_responses": False, "protocol": 2}


def pool_of(
    host: str | None,
    port: int | None,
    db: int | None,
    url: str | None,
    client: Any,
    options: dict[str, Any],
    library: Any,
) -> Any:
    """The pool for what a session was given; exactly one way to name the server.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`, and as :func:`pool_of_url`.
    """
    if host is not None and "://" in host:
        host, url = None, host if url is None else ""
    named = {"host": host, "port": port, "db": db}
    given = {name: value for name, value in named.items() if value is not None} | options
    if [url is not None, client is not None, bool(given)].count(True) > 1 or url == "":
        raise ConfigurationError("name the server once: by host, or by url, or by client")
    if url is not None:
        return pool_of_url(url, library)
    if client is not None:
        return pool_of_client(client, library)
    if host is not None:
        given["host"], given["port"] = host_and_port(host, port or 6379)
    return pool_of_options(library, **given)


def host_and_port(host: str, port: Any) -> tuple[str, Any]:
    """A host that may be written with its port: ``host:port``; `port` is of those without.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError` for credentials, which are not shown.
    """
    if "@" in host:
        raise ConfigurationError(
            "a host with @: credentials are options, or stand in a URL, as in "
            "phonon://user:password@host:6379/0"
        )
    if host.startswith("["):  # an address of IPv6, as in URLs
        name, _, own_port = host[1:].partition("]")
        return (name, own_port[1:]) if own_port[:1] == ":" else (name, port)
    name, colon, own_port = host.rpartition(":") if host.count(":") == 1 else (host, "", "")
    return (name or "localhost", own_port) if colon else (host, port)


def impatient(pool: Any, seconds: float) -> Any:
    """A pool that connects as `pool` does, in so many seconds or not at all.

    For those who connect again by themselves, and have to keep an eye on the time.
    """
    return copy_of(
        pool,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        retry=None,
        retry_on_error=[],
        retry_on_timeout=False,
    )


def place_of(pool: Any) -> Any:
    """What tells the server from others: its host, path or master; None if only the pool knows."""
    kwargs = pool.connection_kwargs
    return kwargs.get("path") or kwargs.get("host") or sentinels.place_of(pool)


def address_of(pool: Any) -> str:
    """Where the server is, for people to read; without credentials."""
    kwargs = pool.connection_kwargs
    place = kwargs.get("path") or f"{kwargs.get('host')}:{kwargs.get('port')}"
    if "host" not in kwargs and "path" not in kwargs:
        place = (sentinels.place_of(pool) or [pool.connection_class.__name__])[0]
    return f"{place}/{kwargs.get('db') or 0}"


def pool_of_client(client: Any, library: Any = redis) -> Any:
    """A pool of our own that connects as `client` does.

    Its connections are the client's kind (TLS, Unix socket, Sentinel, credential provider) with
    the client's arguments, but for the decoding of replies: items are bytes.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError` for what is no ``redis.Redis``.
    """
    theirs = getattr(client, "connection_pool", None)
    if not isinstance(theirs, library.ConnectionPool):
        raise ConfigurationError(
            f"client={type(client).__module__}.{type(client).__name__}: it must be a "
            f"{library.__name__}.Redis (RedisCluster is not supported; a session of asyncio is "
            "phonon_kombu.thoonk.aio.Thoonk)"
        )
    return copy_of(theirs)


def copy_of(pool: Any, **changes: Any) -> Any:
    """Another pool that connects as `pool` does, with connections of its own."""
    asynchronous = isinstance(pool, redis.asyncio.ConnectionPool)
    kind: Any = redis.asyncio.ConnectionPool if asynchronous else redis.ConnectionPool
    connections = prompt(pool.connection_class)
    made = kind(connection_class=connections, **{**_arguments(pool), **changes, **_PLAIN})
    made.copied_from = pool  # a Sentinel's connections ask it for the master
    return made


#: What redis.asyncio connects with -> what redis.Redis connects with in its place.
_BLOCKING = {
    redis.asyncio.Connection: redis.Connection,
    redis.asyncio.SSLConnection: redis.SSLConnection,
    redis.asyncio.UnixDomainSocketConnection: redis.UnixDomainSocketConnection,
}


def blocking_copy(pool: Any) -> Any:
    """A pool of connections that block, which connects as `pool` does.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError` where only redis.asyncio knows how.
    """
    if isinstance(pool, redis.ConnectionPool):
        return copy_of(pool)
    kwargs = {**_arguments(pool), "retry": None, **_PLAIN}
    twin = sentinels.blocking_twin(pool, kwargs, blocking_copy)
    if twin is not None:
        return copy_of(twin)
    kind = next((k for a, k in _BLOCKING.items() if pool.connection_class in (a, prompt(a))), None)
    if kind is None:
        raise ConfigurationError(
            f"jobs cannot be claimed through a {pool.connection_class.__name__} of redis.asyncio: "
            "the thread that shows that we are alive cannot connect so. Name a host or a URL"
        )
    return redis.ConnectionPool(connection_class=prompt(kind), **kwargs)


def _arguments(pool: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in pool.connection_kwargs.items()
        if not name.startswith(_POOL_OWN)
    }


def connection_of(pool: redis.ConnectionPool) -> Any:
    """A connection of `pool`, kept out of it until released."""
    try:
        return pool.get_connection()
    except TypeError:  # redis-py before 5.3 wants to know for what
        return pool.get_connection("_")


def pool_of_url(url: str, library: Any = redis, by_sentinel: sentinels.Settings = _BY_URL) -> Any:
    """A pool for the server that `url` names; an embedded one is started if need be.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError` (without the URL's password), and
    :exc:`~phonon_kombu.errors.EmbeddedServerError`.
    """
    if sentinels.is_sentinel(url):
        return _sentinel_pool(url, library, by_sentinel)
    form = url.partition("://")[0]
    parts = urls.parts_of(url, names_a_file=SCHEMES.get(form) == "unix" or form == EMBEDDED)
    if parts.scheme == EMBEDDED:
        return _embedded_pool(unquote(parts.netloc + parts.path), library)
    scheme = SCHEMES.get(parts.scheme)
    if scheme is None:
        hint = ""
        if "cluster" in parts.scheme:
            hint = "; a Redis Cluster is for phonon.connections.connect, as phonon+cluster://"
        raise ConfigurationError(
            f"a URL with the scheme {parts.scheme!r}: it must be one of "
            f"{', '.join([*SCHEMES, EMBEDDED, sentinels.SCHEMES[0]])}{hint}"
        )
    if ";" in url or "," in parts.netloc.rpartition("@")[2]:
        raise ConfigurationError("a list of URLs: a session talks to one server, name one")
    if scheme == "unix" and (parts.netloc.rpartition("@")[2] or not parts.path.strip("/")):
        raise ConfigurationError(
            f"a {parts.scheme}:// URL without the whole path of a socket: it must look like "
            f"{urls.FORMS['phonon+socket']}, with three slashes"
        )
    if scheme != "unix" and not _is_database(parts.path.strip("/")):
        raise ConfigurationError(
            f"{parts.path!r} in a URL: the path must be the number of a database, as in "
            f"{parts.scheme}://host:6379/0"
        )
    options = dict(_option(*option) for option in parse_qsl(parts.query))
    if scheme == "rediss":
        options = _checking_the_host(options)
    try:
        pool = library.ConnectionPool.from_url(
            f"{scheme}://{parts.netloc}{parts.path}?{urlencode(options)}", **_PLAIN
        )
        pool.connection_class(**pool.connection_kwargs)  # it alone knows what it takes
    except (ValueError, redis.RedisError) as error:
        said = urls.complaint(options.items()) or f"a URL that makes no sense: {error}"
        raise ConfigurationError(said) from None
    except TypeError as error:
        raise ConfigurationError(f"a URL with an option that redis-py has not: {error}") from None
    pool.connection_class = prompt(pool.connection_class)
    pool.connection_kwargs |= _PLAIN  # whatever the URL says
    return pool


def pool_of_options(library: Any = redis, **options: Any) -> Any:
    """A pool for the server that the arguments of ``redis.Redis`` name.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError` for arguments that it does not know, and
    for a port or a database that is no number.
    """
    for name in ("port", "db"):
        value = options.get(name, 0)
        if isinstance(value, bool) or not str(value).isdecimal():
            # Not shown: behind a colon may stand a password.
            raise ConfigurationError(f"{name}: it must be a number, as in host:6379 with db=0")
        if name in options:
            options[name] = int(value)
    if options.get("ssl"):
        options = _checking_the_host(options)
    try:
        pool = pool_of_client(library.Redis(**options), library)
        pool.connection_class(**pool.connection_kwargs)
    except TypeError as error:
        raise ConfigurationError(f"an option that redis.Redis does not know: {error}") from None
    except (ValueError, redis.RedisError) as error:
        raise ConfigurationError(f"an option that makes no sense: {error}") from None
    return pool


def _sentinel_pool(url: str, library: Any, settings: sentinels.Settings) -> Any:
    named = sentinels.read(url)
    settings = sentinels.settled(named, settings)
    login = f"{named.login}@" if named.login else ""
    query = urlencode(named.options)
    scheme = "rediss" if named.tls else "redis"
    master = pool_of_url(f"{scheme}://{login}localhost/{named.path}?{query}", library)
    return copy_of(sentinels.pool_of(named, settings, library, _arguments(master)))


def cluster_of_url(url: str) -> tuple[list[tuple[str, int]], Any]:
    """Some nodes of the cluster that `url` names, and a pool that shows how to connect to them:
    ``phonon+cluster://user:password@host1:7000,host2:7001``, with TLS ``phonons+cluster://``.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError` (without the URL's password).
    """
    # The form with a URL for each node says the same.
    form = url.partition("://")[0]
    each = [one.rpartition("://")[2] for one in url.split(";") if one]
    place, _, query = each[0].partition("?")
    netloc, _, path = place.partition("/")
    login, at, _ = netloc.rpartition("@")
    seeds = []
    for one in each:
        _, own, nodes = one.partition("?")[0].partition("/")[0].rpartition("@")
        if "@" in one and not own:
            raise urls.unreadable(form)
        for node in nodes.split(","):
            parts = urls.parts_of(f"{form}://{node}")
            seeds.append((parts.hostname or "localhost", parts.port or 6379))
    if path.strip("/") not in ("", "0"):
        raise ConfigurationError(f"{path!r} in a URL: a cluster has no database but 0")
    scheme = CLUSTERS[form]
    pool = pool_of_url(f"{scheme}://{login}{at}localhost/0?{query}")
    # A node that is cut off must not keep us from asking the next one.
    if pool.connection_kwargs.get("socket_connect_timeout") is None:
        pool.connection_kwargs["socket_connect_timeout"] = GREETING_SECONDS
    return seeds, pool


def _checking_the_host(options: dict[str, Any]) -> dict[str, Any]:
    """Those of TLS, so that a certificate must be the host's: redis-py before 6 takes any other."""
    if options.get("ssl_cert_reqs", "required") in ("none", None, ssl.CERT_NONE):
        return options
    return {"ssl_check_hostname": True, **options}


def _is_database(path: str) -> bool:
    return not path or (path.isascii() and path.isdigit())


def _option(name: str, value: str) -> tuple[str, str]:
    """An option of a URL as Celery's users write it, as redis-py reads it."""
    if name == "virtual_host":
        return "db", value.strip("/")
    if name == "ssl_cert_reqs":
        return name, value.lower().removeprefix("cert_")
    return name, value


def _embedded_pool(directory: str, library: Any) -> Any:
    from .embedded import acquire

    options = acquire(directory or None).client_options()
    return pool_of_client(library.Redis(**options), library)
