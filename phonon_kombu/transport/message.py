"""The message class of the transport."""

from __future__ import annotations

import sys
from typing import Any

from kombu.compression import decompress
from kombu.transport import virtual

#: What Celery promises to call when a task is done.
ANSWERS = ("ack_log_error", "reject_log_error")


class Message(virtual.Message):
    """A message that knows which job of which queue it is.

    Attributes:
        job: ``(queue, job id as bytes)``, None for a message that came over PUB/SUB.
    """

    job: tuple[str, bytes] | None = None

    def __init__(self, payload: dict[str, Any], channel: Any = None, **kwargs: Any) -> None:
        # Stock's constructor goes through three classes and their keyword arguments; this one is
        # called for every message and sets the same attributes.
        properties = payload["properties"]
        headers = payload["headers"] or {}
        body = payload.get("body")
        encoding = properties.get("body_encoding")
        if body and encoding:
            body = channel.decode_body(body, encoding)
        self._raw = payload
        self.errors = []
        self.channel = channel
        tag = properties.get("delivery_tag")
        # Tags are numbers in the order of delivery, as in AMQP; a publisher's own is a string.
        self.delivery_tag = tag if type(tag) is int else next(channel._delivery_tags)
        self.content_type = payload.get("content-type")
        self.content_encoding = payload.get("content-encoding")
        self.delivery_info = properties.get("delivery_info") or {}
        self.headers = headers
        self.properties = properties
        self._decoded_cache = None
        self._state = "RECEIVED"
        self.accept = kwargs.get("accept")
        if headers.get("compression"):
            try:
                body = decompress(body, headers["compression"])
            except Exception:
                self.errors.append(sys.exc_info())
        if isinstance(body, str):
            body = body.encode()
        self.body = body


def is_answer(callback: Any) -> bool:
    """Whether `callback` is what Celery has put off to say about a message of this transport."""
    method: Any = getattr(callback, "fun", None)
    return isinstance(getattr(method, "__self__", None), Message) and method.__name__ in ANSWERS
