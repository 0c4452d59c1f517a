"""Limits of a queue that its declaration names: how often a job may fail, how long it may run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigurationError


def config(
    queue: str, arguments: Mapping[str, Any] | None, claim_timeout: float | None
) -> list[bytes]:
    """The fields of a queue's config, as name, value, ..., for those limits that are given.

    Arguments:
        arguments: of the declaration: ``x-delivery-limit``, failures after which a job is stalled
            (-1: never); ``x-consumer-timeout``, milliseconds after which a claim is taken back
            from a living worker too (0: never).
        claim_timeout: seconds, the transport option: for queues without ``x-consumer-timeout``.

    What is not given stays as it was. Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    given = arguments or {}
    fields: list[bytes] = []
    if given.get("x-delivery-limit") is not None:
        fields += [b"max_deliveries", _number(queue, given, "x-delivery-limit", -1)]
    if given.get("x-consumer-timeout") is not None:
        fields += [b"claim_timeout", _number(queue, given, "x-consumer-timeout", 0)]
    elif claim_timeout is not None:
        fields += [b"claim_timeout", b"%d" % math.ceil(claim_timeout * 1000)]
    return fields


def _number(queue: str, arguments: Mapping[str, Any], name: str, least: int) -> bytes:
    value = arguments[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(
            f"queue {queue!r}: {name}={value!r} must be a whole number, {least} or more"
        )
    return b"%d" % max(value, 0)
