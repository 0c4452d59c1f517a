"""Redis Sentinel: a URL that names the sentinels, turned into a pool of connections to the master.

``phonon+sentinel://user:password@h1:26379/0;phonon+sentinel://h2:26379?master_name=main``, as the
transport has it: database, credentials and options are those of the master, and may stand in any
of the URLs. With ``phonons+sentinel://`` the master is reached by TLS; the sentinels are if
`sentinel_kwargs` say so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.sentinel
from redis import retry
from redis.backoff import NoBackoff

from ..errors import ConfigurationError
from . import urls
from .patience import GREETING_SECONDS

SCHEMES = ("phonon+sentinel", "phonons+sentinel", "sentinel")

PORT = 26379


@dataclass(frozen=True)
class Settings:
    """What does not stand in a URL, or need not.

    Attributes:
        master_name: what the sentinels call the master.
        min_other_sentinels: a sentinel that sees fewer others is not believed.
        sentinel_kwargs: how to connect to the sentinels (``password``, ``ssl``, ...), as arguments
            of ``redis.Redis``; by default without credentials, and with the master's time-outs,
            four seconds at most.
    """

    master_name: str | None = None
    min_other_sentinels: int | None = None
    sentinel_kwargs: Mapping[str, Any] | None = None


@dataclass
class Named:
    """What the URLs say."""

    sentinels: list[tuple[str, int]] = field(default_factory=list)
    tls: bool = False
    login: str = ""
    path: str = ""
    options: dict[str, str] = field(default_factory=dict)


class Sentinels(redis.sentinel.Sentinel):
    """redis-py's, whose error about a master that is not found fits one line, without passwords,
    and which asks the next sentinel soon if one says nothing.
    """

    def __init__(
        self, sentinels: Any, min_other_sentinels: int = 0, sentinel_kwargs: Any = None, **kw: Any
    ) -> None:
        asked = _soon(sentinel_kwargs, retry.Retry)
        super().__init__(sentinels, min_other_sentinels, asked, **kw)  # type: ignore[no-untyped-call]

    def discover_master(self, service_name: str) -> Any:
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except redis.sentinel.MasterNotFoundError as error:
            raise _not_found(self, service_name, error) from None


class AioSentinels(redis.asyncio.sentinel.Sentinel):
    """The same of redis.asyncio."""

    def __init__(
        self, sentinels: Any, min_other_sentinels: int = 0, sentinel_kwargs: Any = None, **kw: Any
    ) -> None:
        asked = _soon(sentinel_kwargs, redis.asyncio.retry.Retry)
        super().__init__(sentinels, min_other_sentinels, asked, **kw)  # type: ignore[no-untyped-call]

    async def discover_master(self, service_name: str) -> Any:
        try:
            return await super().discover_master(service_name)
        except redis.asyncio.sentinel.MasterNotFoundError as error:
            raise _not_found(self, service_name, error) from None


def _soon(given: Mapping[str, Any] | None, policy: Any) -> dict[str, Any]:
    """How to connect to one of several sentinels: that it says nothing costs a few seconds once."""
    times = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), GREETING_SECONDS)
    named = {name: value for name, value in (given or {}).items() if value is not None}
    return {"retry": policy(NoBackoff(), 0), **times, **named}


def _not_found(manager: Any, service_name: str, error: Exception) -> Exception:
    places = ", ".join(f"{host}:{port}" for host, port in _asked(manager))
    # Behind the repr of each client that could not ask stands what kept it from it.
    reasons = dict.fromkeys(re.findall(r">\)> - (.+?)(?=, <|$)", str(error)))
    return type(error)(
        f"none of the sentinels {places} knows a master {service_name!r} that is up"
        + "".join(f"; {reason}" for reason in reasons)
    )


def is_sentinel(url: str) -> bool:
    """Whether a URL names sentinels."""
    return url.partition("://")[0] in SCHEMES


def read(url: str) -> Named:
    """The parts of the URLs in `url`, which semicolons part.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`, without a password.
    """
    named = Named()
    for one in filter(None, url.split(";")):
        parts = urls.parts_of(one if "://" in one else f"{SCHEMES[0]}://{one}")
        if parts.scheme not in SCHEMES:
            raise ConfigurationError(
                f"a list of sentinels with the scheme {parts.scheme!r}: all of it must be "
                f"{SCHEMES[0]}://"
            )
        named.tls = named.tls or parts.scheme == "phonons+sentinel"
        named.sentinels.append((parts.hostname or "localhost", parts.port or PORT))
        named.login = named.login or parts.netloc.rpartition("@")[0]
        named.path = named.path or parts.path.strip("/")
        named.options |= dict(parse_qsl(parts.query))
    return named


def master_of(url: str, settings: Settings) -> str:
    """What the sentinels of `url` call the master.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    return settled(read(url), settings).master_name or ""


def settled(named: Named, settings: Settings) -> Settings:
    """The settings, with those that stand in the URLs; what was passed counts more.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    master = named.options.pop("master_name", None)
    others = named.options.pop("min_other_sentinels", "0")
    if not settings.master_name and not master:
        raise ConfigurationError(
            "sentinels without master_name: add ?master_name=... to the URL, or pass the option"
        )
    if not others.isdecimal():
        raise ConfigurationError(f"min_other_sentinels={others!r}: it must be a number")
    return Settings(
        settings.master_name or master,
        int(others) if settings.min_other_sentinels is None else settings.min_other_sentinels,
        settings.sentinel_kwargs,
    )


def pool_of(named: Named, settings: Settings, library: Any, kwargs: dict[str, Any]) -> Any:
    """The pool for the master; `kwargs` are how to connect to it, but for its address."""
    kwargs = {name: value for name, value in kwargs.items() if name not in ("host", "port")}
    kwargs.setdefault("socket_connect_timeout", GREETING_SECONDS)
    to_sentinels = settings.sentinel_kwargs
    if to_sentinels is None:
        times = ("socket_timeout", "socket_connect_timeout")
        to_sentinels = {
            name: min(kwargs.get(name) or GREETING_SECONDS, GREETING_SECONDS) for name in times
        }
    kind: Any = AioSentinels if library is redis.asyncio else Sentinels
    manager = kind(
        named.sentinels,
        min_other_sentinels=settings.min_other_sentinels or 0,
        sentinel_kwargs=dict(to_sentinels),
    )
    return library.sentinel.SentinelConnectionPool(
        settings.master_name, manager, ssl=named.tls, **kwargs
    )


def place_of(pool: Any) -> tuple[Any, ...] | None:
    """Which master a pool finds, and by whom; None where it knows the server's address itself."""
    found = pool.connection_kwargs.get("connection_pool")
    if found is None:
        return None
    return (found.service_name, *_asked(found.sentinel_manager))


def _asked(manager: Any) -> list[tuple[Any, Any]]:
    """Where the sentinels are: hosts and ports."""
    asked = [client.connection_pool.connection_kwargs for client in manager.sentinels]
    return sorted((kw.get("host"), kw.get("port")) for kw in asked)


def blocking_twin(pool: Any, kwargs: dict[str, Any], blocking: Callable[[Any], Any]) -> Any:
    """A pool that blocks and finds the master as `pool` of redis.asyncio does; None if that is of
    another kind.

    Arguments:
        kwargs: of its connections, without those that asyncio alone knows.
        blocking: makes such a twin of any other pool.
    """
    kind = pool.connection_class
    if not issubclass(kind, redis.asyncio.sentinel.SentinelManagedConnection):
        return None
    found = kwargs.pop("connection_pool")
    theirs = found.sentinel_manager
    manager = Sentinels([], min_other_sentinels=theirs.min_other_sentinels)
    manager.sentinels = [
        redis.Redis(connection_pool=blocking(client.connection_pool)) for client in theirs.sentinels
    ]
    manager._force_master_ip = getattr(theirs, "_force_master_ip", None)
    made: Any = redis.sentinel.SentinelConnectionPool
    return made(
        found.service_name,
        manager,
        ssl=issubclass(kind, redis.asyncio.sentinel.SentinelManagedSSLConnection),
        is_master=found.is_master,
        check_connection=found.check_connection,
        **kwargs,
    )
