"""One dead letter: how it lies in its queue, and what its headers say of its death."""

from __future__ import annotations

from typing import Any, NamedTuple

#: Headers that would keep a dead letter from being put, or delay it again.
SPENT = ("x-deduplication-id", "x-deduplication-ttl", "x-deduplication-of", "x-delay")


class Letter(NamedTuple):
    """An entry of a ``dead`` list."""

    reason: str
    at_ms: int
    job_id: bytes
    item: bytes


def read(entry: bytes) -> Letter:
    """Parse an entry, as ``include/drop.lua`` writes it."""
    reason, at, length, rest = entry.split(b" ", 3)
    size = int(length)
    return Letter(reason.decode(), int(at), rest[:size], rest[size:])


def note_death(message: dict[str, Any], letter: Letter, queue: str) -> None:
    """Write into the headers of a message why and where it died, as RabbitMQ does.

    ``x-death`` is a list with an entry for each queue and reason, the latest first.
    """
    headers, properties = message["headers"], message["properties"]
    info = properties.get("delivery_info") or {}
    deaths = headers.get("x-death")
    deaths = [d for d in deaths if isinstance(d, dict)] if isinstance(deaths, list) else []
    deaths = [{**d, "queue": str(d.get("queue")), "reason": str(d.get("reason"))} for d in deaths]
    exchange = str(info.get("exchange", ""))
    death = next((d for d in deaths if (d["queue"], d["reason"]) == (queue, letter.reason)), None)
    if death is None:
        death = {"count": 0, "reason": letter.reason, "queue": queue}
    else:
        deaths.remove(death)
    count = death.get("count")
    death["count"] = count + 1 if isinstance(count, int) else 1
    death.setdefault("time", letter.at_ms // 1000)
    death.setdefault("exchange", exchange)
    death.setdefault("routing-keys", [str(info.get("routing_key", queue))])
    expiration = properties.pop("expiration", None)
    if expiration is not None:
        death.setdefault("original-expiration", str(expiration))
    headers["x-death"] = [death, *deaths]
    for name in SPENT:
        headers.pop(name, None)
        properties.pop(name, None)
    for name, value in (("reason", letter.reason), ("queue", queue), ("exchange", exchange)):
        headers.setdefault(f"x-first-death-{name}", value)
        headers[f"x-last-death-{name}"] = value
