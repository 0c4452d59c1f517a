"""The transport options: what there is, and a clear word about what there is not."""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from kombu.transport import redis as stock

from ..errors import ConfigurationError, shortened
from ..phonon import heart
from ..store.urls import check_broker
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

#: The longest time that every clock on the way can hold: some thirty years.
LONGEST_SECONDS = 10**9

#: The largest whole number: Redis and the libraries between can hold it in any place.
LARGEST = 2**31 - 1

SECONDS = frozenset(
    (
        "node_ttl",
        "presence_grace",
        "heartbeat_interval",
        "claim_timeout",
        "polling_interval",
        "socket_timeout",
        "socket_connect_timeout",
    )
)

#: Seconds of which 0 means something too.
SECONDS_OR_NONE = frozenset(("health_check_interval", "visibility_timeout"))

#: Whole numbers -> the least that makes sense.
WHOLE = {"max_connections": 1, "max_deliveries": 1, "min_other_sentinels": 0}

SWITCHES = frozenset(
    (
        "hash_tags",
        "delayed_delivery",
        "fanout_patterns",
        "retry_on_timeout",
        "socket_keepalive",
        "sentinel_fanout_compat",
    )
)

TEXTS = frozenset(("global_keyprefix", "deadletter_queue", "master_name", "client_name"))

DICTS = frozenset(("sentinel_kwargs", "socket_keepalive_options"))

#: Of these None would not mean the default.
NEVER_NONE = frozenset(
    ("global_keyprefix", "hash_tags", "node_ttl", "presence_grace", "heartbeat_interval")
)

#: What CLIENT SETNAME takes.
_CLIENT_NAME = re.compile("[!-~]*")

CHOICES = {
    "priority_order": ("lowest_first", "highest_first"),
    "queue_order_strategy": ("round_robin", "sorted", "priority"),
    "body_encoding": ("base64", "utf-8", "UTF-8", None),
}


def check(given: Any, known: Iterable[str]) -> None:
    """See that every option has a name and a value that mean something.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    check_kind(given)
    known = {*known, *ELSEWHERE}
    for name, value in given.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigurationError(f"unknown transport option {name!r}.{hint}")
        wanted = _wanted(name, value)
        if wanted:
            raise wrong(name, value, wanted)
    if given.get("visibility_timeout") is not None:
        explain_visibility_timeout()
    node_ttl = given.get("node_ttl", heart.Settings.node_ttl)
    if given.get("heartbeat_interval", heart.Settings.heartbeat_interval) * 2 > node_ttl:
        raise ConfigurationError(
            "transport option heartbeat_interval must be at most half of node_ttl: one late beat "
            "is no death"
        )
    if given.get("presence_grace", 0) > node_ttl:
        raise wrong(
            "presence_grace", given["presence_grace"], f"be at most node_ttl ({node_ttl:g})"
        )
    confirms.check_options(given)


def check_url(url: Any) -> None:
    """See that a broker's URL makes sense; of what is no URL of ours nothing is said.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    if isinstance(url, str) and url.startswith("phonon"):
        check_broker(url, (*stock.SentinelChannel.from_transport_options, *OURS))


def check_kind(given: Any) -> None:
    """Raises :exc:`~phonon_kombu.errors.ConfigurationError` for options that are no dict."""
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"transport options must be a dict of names and values, not {type(given).__name__}"
        )


def wrong(name: str, value: Any, wanted: str) -> ConfigurationError:
    """The error for a value, which is shortened."""
    return ConfigurationError(f"transport option {name}={shortened(value)}: it must {wanted}")


def _wanted(name: str, value: Any) -> str:
    """What the value of an option must be or do; empty if it is so."""
    if value is None and name not in NEVER_NONE:
        return ""
    if name in CHOICES:
        choices = CHOICES[name]
        # kombu takes a class of one's own for the order of queues.
        own = name == "queue_order_strategy" and not isinstance(value, str)
        return "" if own or value in choices else f"be one of {', '.join(map(repr, choices))}"
    if name in SECONDS and not _is_time(value, above=0):
        return f"be a positive number of seconds, at most {LONGEST_SECONDS:,}"
    if name in SECONDS_OR_NONE and not _is_time(value, above=-1):
        return f"be a number of seconds, from 0 to {LONGEST_SECONDS:,}"
    if name in WHOLE and not (type(value) is int and WHOLE[name] <= value <= LARGEST):
        unlimited = ", or None for no limit" if name.startswith("max_") else ""
        return f"be a whole number, {WHOLE[name]} or more{unlimited}"
    if name in SWITCHES and value not in (True, False):
        return "be True or False"
    if name == "fanout_prefix" and not (isinstance(value, str) or value in (True, False)):
        return "be True, False or a string"
    if name in TEXTS and not isinstance(value, str):
        return "be a string"
    if name == "client_name" and not _CLIENT_NAME.fullmatch(value):
        return "consist of printable ASCII without spaces: Redis takes no other names"
    if name in DICTS and not isinstance(value, Mapping):
        return "be a dict"
    return ""


def _is_time(value: Any, above: float) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and above < value <= LONGEST_SECONDS and value >= 0  # never true of a NaN


@cache
def explain_visibility_timeout() -> None:
    """Say once in a process what becomes of a setting that most applications on redis:// have."""
    logger.info(
        "visibility_timeout has no effect on phonon://: a task is given to another worker when "
        "its own is dead, however long it takes. A limit for living workers too is the option "
        "claim_timeout"
    )
