"""How a message is written into a job's item.

An item is one line of JSON, the envelope, then a newline and the body as it is::

    {"headers":{...},"properties":{...},"nonce":"5f0c9e7a1b2d"}
    [[1,2],{},{"callbacks":null,...}]

A body is never coded as base64 and never escaped: it is read without being parsed twice, and
binary bodies need no other form. What most messages have in common is left out: JSON in UTF-8,
persistent, priority 0, sent straight to its queue. The nonce tells two publishes of the same task
apart. An item that is one JSON object with a ``body``
in it, as stock kombu writes its messages, is read as well.
"""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

from kombu.utils.json import JSONEncoder
from kombu.utils.json import loads as kombu_loads

from ..errors import ItemTooLarge, MalformedItem

#: Redis takes no larger value (``proto-max-bulk-len``).
LARGEST_ITEM_BYTES = 512 * 1024 * 1024

#: A longer id of a task is not used as a job's id: its digest is.
LONGEST_ID = 255

#: What most messages have is not written. An item that does not say it has it.
USUAL = {"content-type": "application/json", "content-encoding": "utf-8"}
USUAL_PROPERTIES = {"delivery_mode": 2, "priority": 0}
#: Property under which a publish keeps its nonce until it has succeeded.
NONCE = "phonon_nonce"
LEFT_OUT = frozenset(("delivery_info", "delivery_tag", NONCE))

_encode = JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode
_getrandbits = random.getrandbits


def new_id() -> str:
    """An id for a message that brings none, 32 hex digits."""
    return f"{_getrandbits(128):032x}"


def job_id_of(task_id: str) -> bytes:
    """The id of a task's job: the task's own, or its digest if it is too long for a key."""
    name = task_id.encode("utf-8", "replace")
    if len(task_id) <= LONGEST_ID:
        return name
    return hashlib.sha1(name, usedforsecurity=False).hexdigest().encode()


def new_nonce() -> str:
    """What tells one publish of a task from another publish of the same task."""
    return f"{_getrandbits(48):012x}"


def encode(
    message: dict[str, Any],
    exchange: str,
    routing_key: str,
    nonce: str = "",
    delayed: bool = False,
) -> bytes:
    """The item for a message as kombu prepares it.

    `delayed` notes that the wait that it asks for is seen to, so that its consumer does not wait
    again.

    Raises :exc:`~phonon_kombu.errors.ItemTooLarge` above Redis's limit.
    """
    body = message["body"]
    if isinstance(body, str):
        body = body.encode()
    envelope: dict[str, Any] = {
        name: message.get(name) for name, usual in USUAL.items() if message.get(name) != usual
    }
    envelope["headers"] = message.get("headers")
    envelope["properties"] = {
        name: value
        for name, value in message["properties"].items()
        if value is not None and name not in LEFT_OUT and value != USUAL_PROPERTIES.get(name)
    }
    if nonce:
        envelope["nonce"] = nonce
    if delayed:
        envelope["delayed"] = 1
    if exchange:
        envelope["exchange"] = exchange
        envelope["routing_key"] = routing_key
    item: bytes = _encode(envelope).encode() + b"\n" + (body or b"")
    if len(item) > LARGEST_ITEM_BYTES:
        raise ItemTooLarge(
            f"a message of {len(item)} bytes: Redis takes at most {LARGEST_ITEM_BYTES} in one "
            "value. Keep large data elsewhere and send its address"
        )
    return item


def decode(item: bytes, queue: str) -> dict[str, Any]:
    """The payload of an item, as :class:`~.message.Message` takes it.

    Raises :exc:`~phonon_kombu.errors.MalformedItem`.
    """
    head, newline, body = item.partition(b"\n")
    try:
        if newline and (not body or head.endswith(b"}")):
            envelope = _loads(head)
            if type(envelope) is dict and "body" not in envelope:
                envelope["body"] = body
        else:
            envelope = _loads(item)
    except ValueError:
        try:
            envelope = _loads(item)
        except ValueError as error:
            raise MalformedItem(f"not a message: {error}") from None
    if type(envelope) is not dict:
        raise MalformedItem(f"not a message: JSON of type {type(envelope).__name__}")
    properties = envelope.get("properties")
    headers = envelope.get("headers")
    if properties is None:
        properties = envelope["properties"] = {}
    if headers is None:
        headers = envelope["headers"] = {}
    if type(properties) is not dict or type(headers) is not dict or "body" not in envelope:
        raise MalformedItem("not a message: its properties, headers or body are missing")
    info = properties.get("delivery_info")
    if type(info) is not dict or "exchange" not in info:
        properties["delivery_info"] = {
            "exchange": envelope.get("exchange", ""),
            "routing_key": envelope.get("routing_key", queue),
        }
    for name, usual in USUAL.items():
        envelope.setdefault(name, usual)
    for name, value in USUAL_PROPERTIES.items():
        properties.setdefault(name, value)
    return envelope


def _loads(raw: bytes) -> Any:
    # kombu's decoder calls a Python function for every object, which only its own types need.
    if b'"__type__"' in raw:
        return kombu_loads(raw)
    return _decode(raw.decode())
