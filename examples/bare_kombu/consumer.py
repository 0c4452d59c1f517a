"""Print the events about orders, until there is none for the seconds given (default: for ever)."""

import sys
from typing import Any

# A program without Celery imports the package once: that makes phonon:// known to kombu.
import phonon_kombu  # noqa: F401  isort: skip
from kombu import Connection, Message

from queues import ORDERS, URL


def show(body: dict[str, Any], message: Message) -> None:
    """Print one event, then acknowledge it: should this process die before, it is not lost."""
    print(message.delivery_info["routing_key"], body, flush=True)
    message.ack()


patience_seconds = float(sys.argv[1]) if len(sys.argv) > 1 else None
with Connection(URL) as connection, connection.Consumer(ORDERS, callbacks=[show]):
    print("waiting for events", flush=True)
    try:
        while True:
            connection.drain_events(timeout=patience_seconds)
    except TimeoutError:
        print("nothing more")
    except KeyboardInterrupt:
        print("stopped")
