"""The other process of a test: reads ``[operation, arguments]`` lines, answers one line each.

Run as ``python -m tests.kombu.peer URL SETTINGS``; ends, closing nothing, when its input does.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

from kombu import Connection, Consumer, Exchange, Message, Queue

import phonon_kombu  # noqa: F401  (makes phonon:// known to kombu)

Operation = Callable[..., Any]


class Operations:
    """What the other process can be asked to do, one method each."""

    def __init__(self, url: str, settings: dict[str, Any]) -> None:
        self.connection = Connection(url, **settings)
        self.held: list[Message] = []

    def publish(
        self, body: Any, exchange: str = "", type: str = "direct", routing_key: str = ""
    ) -> None:
        """Publish; the exchange is declared, but no queue and no binding ever is."""
        Operations._producer(self, exchange, type).publish(body, routing_key=routing_key)

    def _producer(self, exchange: str, type: str) -> Any:
        spec = Exchange(exchange, type=type) if exchange else None
        return self.connection.Producer(exchange=spec)

    def hold(self, queue: str, count: int) -> list[Any]:
        """Consume ``count`` messages and keep them unacknowledged; returns their bodies."""
        Consumer(
            self.connection, [Queue(queue)], on_message=self.held.append, prefetch_count=count
        ).consume()
        while len(self.held) < count:
            self.connection.drain_events(timeout=10)
        return [message.payload for message in self.held]

    def size(self, queue: str) -> int:
        """Return how many messages are ready, as a passive declare says."""
        return int(self.connection.default_channel.queue_declare(queue, passive=True)[1])


def main() -> None:
    """Answer until the input ends."""
    operations = Operations(sys.argv[1], json.loads(sys.argv[2]))
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"value": getattr(operations, name)(**arguments)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
