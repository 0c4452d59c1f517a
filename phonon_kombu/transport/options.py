"""The transport options: what there is, and a clear word about what there is not."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from ..errors import ConfigurationError
from . import confirms

logger = logging.getLogger("phonon_kombu.transport")

#: Options of this transport, beside those of kombu's Redis transport.
OURS = (
    "priority_order",
    "polling_interval",
    "hash_tags",
    "node_ttl",
    "presence_grace",
    "heartbeat_interval",
    "max_deliveries",
    "claim_timeout",
    "delayed_delivery",
    "confirm_publish",
    "confirm_replicas",
    "confirm_timeout_ms",
)

#: Options that kombu's Connection and Celery read themselves, or that stock's transport reads
#: from the options without listing them.
ELSEWHERE = frozenset(
    (
        "max_retries",
        "interval_start",
        "interval_step",
        "interval_max",
        "errback",
        "connect_retries_timeout",
        "connect_timeout",
        "read_timeout",
        "write_timeout",
        "login_method",
        "client_properties",
        "reauth_check_interval",
        "retry_policy",
        "result_chord_ordered",
        "additional_connection_errors",
        "retry_errors",
        "retry_on_error",
        "retry",
        "predefined_exchanges",
        "predefined_queues",
        "queue_name_prefix",
        "on_blocked",
        "on_unblocked",
        "master_name",
        "min_other_sentinels",
        "sentinel_kwargs",
        "sentinel_fanout_compat",
        "unacked_restore_interval",
        "unacked_restore_throttle",
    )
)

SECONDS = frozenset(("node_ttl", "presence_grace", "heartbeat_interval"))
NUMBERS = SECONDS | frozenset(
    ("socket_timeout", "socket_connect_timeout", "health_check_interval", "max_connections")
)

CHOICES = {
    "priority_order": ("lowest_first", "highest_first"),
    "queue_order_strategy": ("round_robin", "sorted", "priority"),
}


def check(given: Mapping[str, Any], known: Iterable[str]) -> None:
    """See that every option has a name and a value that mean something.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    known = {*known, *ELSEWHERE}
    for name, value in given.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigurationError(f"unknown transport option {name!r}.{hint}")
        if name in CHOICES and isinstance(value, str) and value not in CHOICES[name]:
            raise ConfigurationError(
                f"transport option {name}={value!r}: it must be one of "
                f"{', '.join(map(repr, CHOICES[name]))}"
            )
    for name in NUMBERS & given.keys():
        value = given[name]
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ConfigurationError(f"transport option {name}={value!r}: it must be a number")
    for name in SECONDS & given.keys():
        positive_seconds(name, given[name])
    most = given.get("max_deliveries")
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise ConfigurationError(
            f"transport option max_deliveries={most!r}: it must be 1 or more, or None for no limit"
        )
    if given.get("claim_timeout") is not None:
        positive_seconds("claim_timeout", given["claim_timeout"])
    if given.get("visibility_timeout") is not None:
        explain_visibility_timeout()
    if given.get("heartbeat_interval", 15) * 2 > given.get("node_ttl", 60):
        raise ConfigurationError(
            "transport option heartbeat_interval must be at most half of node_ttl: one late beat "
            "is no death"
        )
    delayed = given.get("delayed_delivery", True)
    if not isinstance(delayed, bool):
        raise ConfigurationError(
            f"transport option delayed_delivery={delayed!r}: it must be True or False"
        )
    confirms.check_options(given)
    interval = given.get("polling_interval")
    if interval is not None and not (isinstance(interval, int | float) and interval > 0):
        raise ConfigurationError(
            f"transport option polling_interval={interval!r}: it must be a positive number of "
            "seconds"
        )


def positive_seconds(name: str, value: Any) -> None:
    """Raises :exc:`~phonon_kombu.errors.ConfigurationError` if it is not."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ConfigurationError(
            f"transport option {name}={value!r}: it must be a positive number of seconds"
        )


@cache
def explain_visibility_timeout() -> None:
    """Say once in a process what becomes of a setting that most applications on redis:// have."""
    logger.info(
        "visibility_timeout has no effect on phonon://: a task is given to another worker when "
        "its own is dead, however long it takes. A limit for living workers too is the option "
        "claim_timeout"
    )
