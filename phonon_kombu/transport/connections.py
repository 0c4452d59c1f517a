"""The connections of a channel: kombu's, with our URL forms, verified TLS and one lasting link."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import unquote

import redis
from kombu.transport import redis as stock
from kombu.utils.objects import cached_property
from kombu.utils.url import _parse_url

from .. import errors
from ..store.addresses import connection_of
from ..store.checks import check_rights, check_server
from ..store.client import Link
from ..store.keys import layout_key
from ..store.patience import GREETING_SECONDS, SILENCE_SECONDS, at_most, greet, prompt
from ..store.refusals import translate
from ..store.sentinels import Sentinels
from . import orphans

#: Bytes read from the polling socket at once: a whole claim of messages.
READ_BYTES = 262144


class Connections(stock.Channel):
    """What a channel talks through. Part of :class:`~.channel.Channel`."""

    socket_connect_timeout: float | None = GREETING_SECONDS
    connection_class_ssl = prompt(stock.Channel.connection_class_ssl)
    _sentinel_manager: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().__init__(*args, **kwargs)
        except redis.ResponseError as error:
            raise translate(error) from None

    @cached_property
    def client(self) -> Any:
        # Stock opens its polling connection here, for every channel, to send a PING.
        return self._create_client()

    @cached_property
    def link(self) -> Link:
        """The connection for all commands that are answered at once."""
        return Link(partial(self.acquire_connection, None), self._release_connection)

    def _release_connection(self, connection: Any) -> None:
        if self._pool is not None:
            self._pool.release(connection)

    def lasting_link(self) -> Link:
        """A link of its own, which lives on when this channel is closed."""
        # A Sentinel pool is tied to a manager that the channel closes with itself: not this one.
        manager = self._sentinel_manager
        pool = self._get_pool()
        self._sentinel_manager = manager
        return Link(partial(connection_of, pool), pool.release)

    def acquire_connection(self, pool: Any) -> Any:
        """A connection of `pool` (None: the plain one), kept out of it until released."""
        return connection_of(self.pool if pool is None else pool)

    def check_server(self) -> None:
        """Once per connection: is this a server, and are these data, that we can work with?

        Also settles what closed channels of this process left undone while it was away.
        """
        transport = self.connection
        if transport is not None and not transport.server_checked:
            with at_most(GREETING_SECONDS):
                check_server(self.link, layout_key(self.global_keyprefix))
                check_rights(self.link, self.global_keyprefix)
            transport.server_checked = True
        orphans.settle(self.server_identity, self.link)

    @cached_property
    def server_identity(self) -> tuple[Any, ...]:
        """What tells this database from another: address, number, key prefix."""
        kwargs = self.pool.connection_kwargs
        return (
            kwargs.get("path") or kwargs.get("host") or getattr(self, "master_name", None),
            kwargs.get("port"),
            kwargs.get("db"),
            self.global_keyprefix,
        )

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        info = self.connection.client
        hostname = info.hostname or ""
        scheme = hostname.partition("://")[0] if "://" in hostname else info.transport_cls
        embedded: dict[str, Any] = {}
        if scheme in ("embedded", "phonon+embedded"):
            embedded = self._embedded(hostname)
            self.connection_class = (
                redis.UnixDomainSocketConnection if "path" in embedded else redis.Connection
            )
        params: dict[str, Any] = super()._connparams(asynchronous)
        if embedded:
            for name in ("host", "port", "socket_keepalive", "socket_keepalive_options"):
                params.pop(name, None)
            if "path" in embedded:
                params.pop("socket_connect_timeout", None)
            params.update({"username": None, "password": None, **embedded})
        elif "://" in hostname and scheme == "sentinel":
            path = _parse_url(hostname).path
            if path:
                params["db"] = self._prepare_virtual_host(path)
        if not embedded and (self.connection.tls or info.ssl is True):
            self._secure(params, info.ssl)
        params["socket_read_size"] = READ_BYTES
        params["redis_connect_func"] = greet
        return params

    def _process_credential_provider(self, given: Any, connparams: dict[str, Any]) -> None:
        # kombu 5.6.0 has no such method, and calls none.
        try:
            super()._process_credential_provider(given, connparams)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            raise errors.ConfigurationError(
                f"credential_provider={given!r} is no importable name of a subclass of "
                f"redis.CredentialProvider, and no instance of one: {error}"
            ) from error

    def _prepare_virtual_host(self, vhost: Any) -> int:
        try:
            number = int(super()._prepare_virtual_host(vhost))
        except ValueError:
            number = -1
        if not 0 <= number < 2**31:
            raise errors.ConfigurationError(
                f"the URL names database {vhost!r}; Redis's databases are numbers, as in "
                "phonon://localhost:6379/0"
            )
        return number

    def _embedded(self, hostname: str) -> dict[str, Any]:
        from ..store.embedded import acquire

        _, _, address = hostname.partition("://")
        directory, _, query = address.partition("?")
        del query
        return dict(acquire(unquote(directory) or None))

    def _secure(self, params: dict[str, Any], ssl: Any) -> None:
        """TLS with the server's certificate verified, unless the user says otherwise."""
        given = ssl if isinstance(ssl, dict) else {}
        if params.get("socket_timeout") is None:
            # The kernel's timeouts are not for TLS.
            params["socket_timeout"] = SILENCE_SECONDS
        params.setdefault("ssl_cert_reqs", given.get("ssl_cert_reqs", "required"))
        wanted = self.connection_class_ssl
        current = params["connection_class"]
        if issubclass(current, wanted):
            return
        if issubclass(current, redis.UnixDomainSocketConnection):
            raise errors.ConfigurationError("TLS makes no sense on a Unix socket")
        if current is self.connection_class:
            params["connection_class"] = wanted
        else:
            # The subclass that tells the poller of a lost connection.
            disconnect = current.disconnect
            params["connection_class"] = type(
                "Connection", (wanted,), {"disconnect": _rebased(disconnect, wanted)}
            )


def _rebased(disconnect: Any, base: type) -> Any:
    """The disconnect hook of kombu's wrapper class, for another base class."""
    channel = next(
        cell.cell_contents
        for cell in disconnect.__closure__
        if isinstance(cell.cell_contents, stock.Channel)
    )

    def hooked(self: Any, *args: Any, **kwargs: Any) -> None:
        base.disconnect(self, *args, **kwargs)  # type: ignore[attr-defined]
        if channel._registered:
            channel._on_connection_disconnect(self)

    return hooked


class SentinelConnections(Connections, stock.SentinelChannel):
    """The same through Redis Sentinel: the URLs name the sentinels."""

    connection_class_ssl = prompt(stock.SentinelChannel.connection_class_ssl)

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        params = self._connparams(asynchronous)
        params.pop("host", None)
        params.pop("port", None)
        master_name = getattr(self, "master_name", None)
        if not master_name:
            raise errors.ConfigurationError(
                "phonon+sentinel:// needs the transport option 'master_name'"
            )
        to_sentinels = getattr(self, "sentinel_kwargs", None)
        if to_sentinels is None:
            # As redis-py does it, but for the one that its older clients do not take.
            to_sentinels = {
                name: value
                for name, value in params.items()
                if name.startswith("socket_") and name != "socket_read_size"
            }
        manager: Any = Sentinels(
            self._sentinels(),
            min_other_sentinels=getattr(self, "min_other_sentinels", 0),
            sentinel_kwargs=to_sentinels,
            **params,
        )
        if asynchronous:
            self._async_sentinel_manager = manager
        else:
            self._sentinel_manager = manager
        given = {name: params[name] for name in ("username", "password") if name in params}
        return manager.master_for(master_name, redis.Redis, **given).connection_pool

    def _sentinels(self) -> list[tuple[str, int]]:
        info = self.connection.client
        found = []
        for url in [*(info.alt or ()), *([] if info.alt else [info.hostname])]:
            parts = _parse_url(url if "://" in url else f"sentinel://{url}")
            if parts.scheme in ("sentinel", "phonon+sentinel"):
                found.append((parts.hostname or "127.0.0.1", parts.port or info.port or 26379))
        return found
