"""Fanout exchanges by PUB/SUB: kombu's, with one mend.

Stock remembers one queue for an exchange and channel, so that of two queues bound to the same
exchange only the last one hears. Here a message goes to every queue whose subscription it came by.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads

from . import codec
from .connections import Connections

logger = logging.getLogger("phonon_kombu.transport")


class Fanout(Connections):
    """Part of :class:`~.channel.Channel`."""

    def _put_fanout(
        self, exchange: str, message: dict[str, Any], routing_key: str, **kwargs: Any
    ) -> None:
        properties = message["properties"]
        properties.setdefault("delivery_tag", codec.new_id())
        properties["delivery_info"] = {"exchange": exchange, "routing_key": routing_key}
        payload = dumps(message).encode()
        batch = kwargs.get("_publish_batch")
        calls = [
            (b"PUBLISH", (self.global_keyprefix + topic).encode(), payload)
            for topic in self._topics(exchange, routing_key)
        ]
        if batch is None:
            self.link.send(calls, repeat=True)
        else:
            for call in calls:
                batch.add(call)

    def _topics(self, exchange: str, routing_key: str) -> list[str]:
        # kombu 5.6 has only the singular.
        plural = getattr(self, "_get_publish_topics", None)
        if plural is not None:
            return list(plural(exchange, routing_key))
        return [self._get_publish_topic(exchange, routing_key)]

    def _receive_one(self, c: Any) -> Any:
        try:
            response = c.parse_response()
        except self.connection_errors:
            self._in_listen = None
            raise
        if not isinstance(response, list | tuple):
            return None
        payload = self._handle_message(c, response)
        if not bytes_to_str(payload["type"]).endswith("message") or not payload["data"]:
            return None
        try:
            message = loads(bytes_to_str(payload["data"]))
        except (TypeError, ValueError):
            logger.warning(
                "Left out a PUB/SUB message on %r that is not JSON: %.200r",
                payload["channel"],
                payload["data"],
            )
            return None
        topic = bytes_to_str(payload["pattern"] or payload["channel"])
        return self._deliver_to_subscribers(message, topic)

    def _deliver_to_subscribers(self, message: dict[str, Any], topic: str) -> bool:
        delivered = False
        for queue in list(self.active_fanout_queues):
            exchange, routing_key = self._fanout_queues[queue]
            if topic not in self._topics(exchange, routing_key):
                continue
            duplicate = getattr(self, "_is_duplicate_fanout_message", None)
            if (
                duplicate is not None
                and self._fanout_compat_active
                and duplicate(message, f"{exchange}/{queue}")
            ):
                continue
            self.connection._deliver(copy.deepcopy(message), queue)
            delivered = True
        return delivered
