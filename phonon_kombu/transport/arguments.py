"""Queue arguments: what rules they make, and how the rules stand in the queue's config."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ConfigurationError, shortened

logger = logging.getLogger("phonon_kombu.transport")

#: Fields of a queue's config that its arguments decide (`claim_timeout` is also set by others).
FIELDS = (
    b"expires",
    b"message_ttl",
    b"max_length",
    b"overflow",
    b"dead_exchange",
    b"dead_routing_key",
    b"rate_interval",
    b"rate_burst",
    b"max_deliveries",
    b"rules",
)


#: A rate limit lets so much time's worth of jobs go at once, so that one claim brings several.
BURST_MS = 100

#: The most jobs a second that a limit may let through: no server hands out more.
HIGHEST_RATE = 10**9

#: The largest number in a queue's config. With the time of day added, Lua still counts it exactly.
LARGEST = 10**15

PERIODS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000}

IN_MILLISECONDS = ("x-expires", "x-message-ttl", "x-consumer-timeout")

_RATE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:/\s*([smh]))?\s*")


def fields_of(queue: str, arguments: Mapping[str, Any] | None) -> dict[bytes, bytes] | None:
    """The config fields for a queue's arguments; None if they say nothing about rules.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    given = {name: v for name, v in (arguments or {}).items() if v is not None}
    if given.get("x-max-length-bytes") is not None:
        raise _wrong(queue, "x-max-length-bytes", given, "not supported, use x-max-length")
    for name in given.keys() - ARGUMENTS.keys():
        _mind_spelling(queue, name)
    fields: dict[bytes, bytes] = {}
    for name, parse in ARGUMENTS.items():
        if name in given:
            fields.update(parse(queue, name, given))
    if not fields:
        return None
    if b"dead_routing_key" in fields and b"dead_exchange" not in fields:
        raise _wrong(queue, "x-dead-letter-routing-key", given, "without x-dead-letter-exchange")
    if fields.keys() & {b"message_ttl", b"max_length", b"expires"}:
        # A publisher that knows nothing of the queue asks for this one field.
        fields[b"rules"] = b"1"
    return fields


def rate(value: Any) -> tuple[float, int]:
    """Milliseconds a job, and how many may go at once, of a rate such as ``"600/m"``.

    Raises ValueError.
    """
    match = None if isinstance(value, bool) else _RATE.fullmatch(str(value))
    count = float(match[1]) if match else 0.0
    if match is None or count <= 0:
        raise ValueError("no rate: a number for a second, or such as '600/m'")
    interval = PERIODS_MS[match[2] or "s"] / count
    if not 1000 / HIGHEST_RATE <= interval <= LARGEST:
        raise ValueError(
            f"a rate must be at most {HIGHEST_RATE:,} a second, and one job within {LARGEST:,} ms"
        )
    return interval, max(1, int(BURST_MS / interval))


def rate_fields(value: Any) -> dict[bytes, bytes]:
    """The config fields of a rate limit. Raises ValueError."""
    interval, burst = rate(value)
    return {b"rate_interval": b"%.6f" % interval, b"rate_burst": b"%d" % burst}


def _wrong(queue: str, name: str, given: Mapping[str, Any], what: str) -> ConfigurationError:
    return ConfigurationError(f"queue {queue!r}: {name}={shortened(given.get(name))}: {what}")


#: RabbitMQ's arguments that are rightly spelled and mean nothing here.
_IGNORED = frozenset(
    (
        "x-max-priority",
        "x-queue-type",
        "x-queue-mode",
        "x-queue-version",
        "x-queue-master-locator",
        "x-queue-leader-locator",
        "x-single-active-consumer",
        "x-dead-letter-strategy",
        "x-quorum-initial-group-size",
    )
)

#: Names about which a word was said.
_minded: set[str] = set()


def _mind_spelling(queue: str, name: Any) -> None:
    """Say once in a process that an argument that is ignored is nearly one that is not."""
    if not isinstance(name, str) or name[:1] != "x" or name in _minded or name in _IGNORED:
        return
    bare = {known.removeprefix("x-"): known for known in ARGUMENTS}
    close = difflib.get_close_matches(name[2:].replace("_", "-"), bare, n=1, cutoff=0.7)
    if close:
        _minded.add(name)
        logger.warning(
            "queue %r: the argument %r is unknown and ignored. Did you mean %r?",
            queue, name, bare[close[0]],
        )  # fmt: skip


def _number(field: bytes, least: int) -> Callable[..., dict[bytes, bytes]]:
    def parse(queue: str, name: str, given: Mapping[str, Any]) -> dict[bytes, bytes]:
        try:
            value = -1 if isinstance(given[name], bool) else int(given[name])
        except (TypeError, ValueError, OverflowError):
            value = -1
        if not least <= value <= LARGEST:
            wanted = "a positive number" if least else "0 or a positive number"
            unit = " of milliseconds" if name in IN_MILLISECONDS else ""
            raise _wrong(queue, name, given, f"must be {wanted}{unit}, at most {LARGEST:,}")
        return {field: b"%d" % value}

    return parse


def _delivery_limit(queue: str, name: str, given: Mapping[str, Any]) -> dict[bytes, bytes]:
    # Unlimited is -1 with RabbitMQ, 0 in our config.
    if given[name] == -1:
        return {b"max_deliveries": b"0"}
    return _number(b"max_deliveries", 1)(queue, name, given)


def _overflow(queue: str, name: str, given: Mapping[str, Any]) -> dict[bytes, bytes]:
    if given[name] not in ("drop-head", "reject-publish"):
        raise _wrong(queue, name, given, "must be 'drop-head' or 'reject-publish'")
    return {b"overflow": given[name].encode()}


def _text(field: bytes) -> Callable[..., dict[bytes, bytes]]:
    def parse(queue: str, name: str, given: Mapping[str, Any]) -> dict[bytes, bytes]:
        if not isinstance(given[name], str):
            raise _wrong(queue, name, given, "must be a string")
        return {field: given[name].encode()}

    return parse


def _rate(queue: str, name: str, given: Mapping[str, Any]) -> dict[bytes, bytes]:
    try:
        return rate_fields(given[name])
    except ValueError as error:
        raise _wrong(queue, name, given, str(error)) from None


#: Argument -> what makes config fields of it.
ARGUMENTS: dict[str, Callable[[str, str, Mapping[str, Any]], dict[bytes, bytes]]] = {
    "x-expires": _number(b"expires", 1),
    "x-message-ttl": _number(b"message_ttl", 0),
    "x-max-length": _number(b"max_length", 0),
    "x-overflow": _overflow,
    "x-dead-letter-exchange": _text(b"dead_exchange"),
    "x-dead-letter-routing-key": _text(b"dead_routing_key"),
    "x-rate-limit": _rate,
    "x-delivery-limit": _delivery_limit,
    "x-consumer-timeout": _number(b"claim_timeout", 0),
}
