"""What a message asks for: a delay, to be the only one of its kind; and what a delivery says of it.

Headers that a message brings and that its delivery changes:

========================  =======================================================================
``eta``                   kept as ``x-eta``: the worker must not wait again, by its own clock
``x-delay``               negative, as RabbitMQ's delayed message exchange does it
``x-deduplication-id``    ``x-deduplication-of`` names the job beside it, so that a retry, which
                          inherits both, may succeed the job
========================  =======================================================================
"""

from __future__ import annotations

import math
from datetime import datetime, timezone
from time import time
from typing import Any

from ..errors import ConfigurationError, shortened
from .arguments import LARGEST

#: What a delivery adds. A message that inherits them, as a retry does, does not bring them along.
OF_A_DELIVERY = ("redelivered", "x-delivery-count", "x-eta")


def delay_ms(headers: dict[str, Any], use_eta: bool) -> tuple[int, bool]:
    """For how long a message is to wait, and whether it has asked to.

    An absolute ``eta`` is made a delay by the clock of this process, the publisher: a countdown is
    then right whatever the wall clocks say.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError` for an ``x-delay`` that is no number.
    """
    delay, asked = 0, False
    eta = headers.get("eta") if use_eta and "task" in headers else None
    if eta:
        at = _timestamp(eta)
        if at is not None:
            delay, asked = max(0, math.ceil((at - time()) * 1000)), True
    wanted = headers.get("x-delay")
    if wanted is not None:
        more = milliseconds("header x-delay", wanted)
        if more > 0:
            delay, asked = max(delay, more), True
    return delay, asked


def ttl_ms(properties: dict[str, Any]) -> bytes:
    """How long a message may wait to be delivered; ``b""`` for ever.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    expiration = properties.get("expiration")
    if expiration is None or expiration == "":
        return b""
    # What has expired already is dropped by the server, with all that belongs to that.
    return b"%d" % max(1, milliseconds("property expiration", expiration))


def milliseconds(name: str, value: Any) -> int:
    """A number, rounded up, that Redis can hold.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not -LARGEST <= number <= LARGEST:
        raise ConfigurationError(
            f"{name}={shortened(value)}: it must be a number of milliseconds, at most {LARGEST:,}"
        )
    return math.ceil(number)


def _timestamp(eta: Any) -> float | None:
    """Seconds since the epoch; None for what only the worker may understand."""
    if not isinstance(eta, datetime):
        try:
            # Python 3.10 does not know the Z.
            eta = datetime.fromisoformat(str(eta).replace("Z", "+00:00"))
        except ValueError:
            return None
    # Celery takes a time without a zone for UTC.
    aware = eta if eta.tzinfo is not None else eta.replace(tzinfo=timezone.utc)
    return float(aware.timestamp())


def dedup(headers: dict[str, Any], properties: dict[str, Any]) -> tuple[bytes, bytes, bytes]:
    """Deduplication id, its lifetime in ms and the job that may be succeeded; ``b""`` for none.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    source = headers if headers.get("x-deduplication-id") is not None else properties
    name = source.get("x-deduplication-id")
    if name is None or name == "":
        return b"", b"", b""
    ttl = source.get("x-deduplication-ttl")
    lifetime = b""
    if ttl is not None:
        number = milliseconds("x-deduplication-ttl", ttl)
        if number <= 0:
            raise ConfigurationError(
                f"x-deduplication-ttl={ttl!r}: it must be a positive number of milliseconds"
            )
        lifetime = b"%d" % number
    of = headers.get("x-deduplication-of") or ""
    return str(name).encode("utf-8", "replace"), lifetime, str(of).encode("utf-8", "replace")


def settle(payload: dict[str, Any], job_id: bytes) -> None:
    """Change the headers of a message that is being delivered as the table above says."""
    headers = payload["headers"]
    if payload.get("delayed"):
        if headers.get("eta") is not None:
            headers["x-eta"], headers["eta"] = headers["eta"], None
        wanted = headers.get("x-delay")
        if isinstance(wanted, int | float) and wanted > 0:
            headers["x-delay"] = -wanted
        elif isinstance(wanted, str):
            headers["x-delay"] = 0
    if "x-deduplication-id" in headers:
        headers["x-deduplication-of"] = job_id.decode("utf-8", "replace")
