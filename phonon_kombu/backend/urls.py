"""The URL forms of the result backend, in terms of Celery's own.

Celery looks up a backend by what stands before a ``+`` and hands over the rest: of
``phonon+socket:///path`` it leaves ``socket:///path``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import redis

from ..errors import ConfigurationError

#: Our scheme -> the scheme that Celery's Redis backend knows for the same.
SCHEMES = {
    "phonon": "redis",
    "phonons": "rediss",
    "phonon+socket": "socket",
    "phonon+sentinel": "sentinel",
    "phonon+embedded": "embedded",
}


def translate(url: str) -> str:
    """`url` with the scheme that Celery's own backend would call it by."""
    scheme, separator, rest = url.partition("://")
    return SCHEMES.get(scheme, scheme) + separator + rest


@contextmanager
def blamed() -> Iterator[None]:
    """Within, Celery reads a URL whose form is right: what it stumbles over has a name."""
    try:
        yield
    except (ImportError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            "the URL of the result backend makes no sense (credential_provider must be the "
            f"importable name of a subclass of redis.CredentialProvider): {error}"
        ) from error


def is_sentinel(url: str | None) -> bool:
    """Whether `url` names sentinels."""
    return bool(url) and translate(str(url)).startswith("sentinel://")


def embedded_parameters(url: str) -> dict[str, Any] | None:
    """Where the embedded server of `url` listens, started if need be; None for other URLs.

    Raises :exc:`~phonon_kombu.errors.EmbeddedServerError`.
    """
    if not url.startswith("embedded://"):
        return None
    from ..store.embedded import acquire

    directory = url.partition("://")[2].partition("?")[0]
    address = dict(acquire(unquote(directory) or None))
    address["connection_class"] = (
        redis.UnixDomainSocketConnection if "path" in address else redis.Connection
    )
    return address
