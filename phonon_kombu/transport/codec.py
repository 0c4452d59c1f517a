"""How a message is written into a job's item.

An item is one line of JSON, the envelope, then a newline and the body as it is::

    {"content-type":"application/json","content-encoding":"utf-8","headers":{...},"properties":{...}}
    [[1,2],{},{"callbacks":null,...}]

A body is never coded as base64 and never escaped: it is read without being parsed twice, and
binary bodies need no other form. What kombu can tell by itself (delivery tag, the routing of a
message sent straight to its queue) is left out. An item that is one JSON object with a ``body``
in it, as stock kombu writes its messages, is read as well.
"""

from __future__ import annotations

import json
import random
from typing import Any

from kombu.utils.json import JSONEncoder
from kombu.utils.json import loads as kombu_loads

from ..errors import ItemTooLarge, MalformedItem

#: Redis takes no larger value (``proto-max-bulk-len``).
LARGEST_ITEM_BYTES = 512 * 1024 * 1024

_encode = JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().decode
_getrandbits = random.getrandbits


def new_id() -> str:
    """An id for a message that brings none, 32 hex digits."""
    return f"{_getrandbits(128):032x}"


def new_nonce() -> str:
    """What tells one publish of a task from another publish of the same task."""
    return f"{_getrandbits(64):016x}"


def encode(message: dict[str, Any], exchange: str, routing_key: str) -> bytes:
    """The item for a message as kombu prepares it.

    Raises :exc:`~phonon_kombu.errors.ItemTooLarge` above Redis's limit.
    """
    body = message["body"]
    if isinstance(body, str):
        body = body.encode()
    envelope: dict[str, Any] = {
        "content-type": message.get("content-type"),
        "content-encoding": message.get("content-encoding"),
        "headers": message.get("headers"),
        "properties": {
            name: value
            for name, value in message["properties"].items()
            if value is not None and name != "delivery_info" and (value or name != "priority")
        },
    }
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
    properties.setdefault("priority", 0)
    return envelope


def _loads(raw: bytes) -> Any:
    # kombu's decoder calls a Python function for every object, which only its own types need.
    if b'"__type__"' in raw:
        return kombu_loads(raw)
    return _decode(raw.decode())
