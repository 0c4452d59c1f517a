"""From an application or a URL to a session with its broker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kombu import Connection
from kombu.utils.url import maybe_sanitize_url

from ..errors import ConfigurationError
from ..thoonk import Thoonk


def open_session(
    target: Any, transport_options: dict[str, Any] | None = None
) -> tuple[Thoonk, Any, Callable[[], None]]:
    """A session with the broker of an application, or with that of a URL, a channel to it, and
    how to close both.

    The transport reads the URL and the settings: TLS, Sentinel, credentials, key prefix and all.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`, and redis-py's connection errors.
    """
    connection = _connection(target, transport_options or {})
    try:
        check_transport(connection)
        connection.connect()
        channel = connection.default_channel
        session = Thoonk(
            client=channel.client, prefix=channel.global_keyprefix, hash_tags=channel.hash_tags
        )
    except BaseException:
        connection.release()
        raise

    def close() -> None:
        session.close()
        connection.release()

    return session, channel, close


def _connection(target: Any, transport_options: dict[str, Any]) -> Any:
    try:
        if isinstance(target, str):
            connection = Connection(target, transport_options=transport_options)
        elif hasattr(target, "connection_for_write"):
            connection = target.connection_for_write()
        else:
            raise ConfigurationError(
                f"{type(target).__name__} is neither a Celery application nor the URL of a broker"
            )
        connection.get_transport_cls()
    except (KeyError, ImportError) as error:  # kombu has no such transport, or cannot load it
        reason = error.args[0] if error.args else error
        raise ConfigurationError(f"the broker is none that kombu can talk to: {reason}") from None
    return connection


def check_transport(connection: Any) -> None:
    """Raise :exc:`~phonon_kombu.errors.ConfigurationError` for a broker without our jobs."""
    if not is_ours(connection):
        raise ConfigurationError(
            f"the broker is {maybe_sanitize_url(connection.as_uri())}: there are no jobs that one "
            "could operate on. It works with phonon://"
        )


def is_ours(connection: Any) -> bool:
    """Whether a connection is one of our transport."""
    from ..transport import Transport

    kind = connection.get_transport_cls()
    return isinstance(kind, type) and issubclass(kind, Transport)
