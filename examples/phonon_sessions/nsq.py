"""A stand-in for `pynsq`, as far as this example uses it, with a bus that lives in this process.

It delivers the lines of the file that NSQ_EVENTS names (or 300 made-up ones), never more than
`max_in_flight` that are not finished, delivers again what was not finished in time, and ends when
all are. With the real thing installed, delete this file.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import deque
from collections.abc import Callable
from typing import Any

#: Seconds until a message that was not finished is delivered again.
MESSAGE_TIMEOUT = 60.0

_readers: list[Reader] = []


class Message:
    """One message, as its handler sees it."""

    def __init__(self, reader: Reader, body: bytes) -> None:
        self.body = body
        self._reader = reader
        self._responded = False

    def enable_async(self) -> None:
        """The handler's return does not finish it."""

    def finish(self) -> None:
        """It need not come again."""
        assert not self._responded, "a message is finished once"
        self._responded = True
        self._reader.finished(self)


class Reader:
    """Hands messages to a handler."""

    def __init__(
        self,
        topic: str,
        channel: str,
        message_handler: Callable[[Message], Any],
        lookupd_http_addresses: list[str],
        max_in_flight: int = 1,
    ) -> None:
        self._handler = message_handler
        self._max_in_flight = max_in_flight
        self._waiting = deque(events())
        self._in_flight: dict[Message, asyncio.TimerHandle] = {}
        _readers.append(self)

    def pump(self) -> None:
        """Deliver what may be delivered."""
        while self._waiting and len(self._in_flight) < self._max_in_flight:
            message = Message(self, self._waiting.popleft())
            timer = asyncio.get_running_loop().call_later(MESSAGE_TIMEOUT, self._again, message)
            self._in_flight[message] = timer
            self._handler(message)

    def finished(self, message: Message) -> None:
        """A message is done with."""
        self._in_flight.pop(message).cancel()
        asyncio.get_running_loop().call_soon(self.pump)

    def _again(self, message: Message) -> None:
        del self._in_flight[message]
        self._waiting.append(message.body)
        self.pump()

    @property
    def idle(self) -> bool:
        """Whether all messages are finished."""
        return not self._waiting and not self._in_flight


def events() -> list[bytes]:
    """The messages on the bus."""
    path = os.environ.get("NSQ_EVENTS")
    if path:
        with open(path, "rb") as lines:
            return lines.read().splitlines()
    kinds = ("unit_impression", "unit_impression", "unit_click")
    return [
        json.dumps({"user_id": random.randint(1, 5), "type": random.choice(kinds)}).encode()
        for _ in range(300)
    ]


async def _run() -> None:
    for reader in _readers:
        asyncio.get_running_loop().call_soon(reader.pump)
    while not all(reader.idle for reader in _readers):
        await asyncio.sleep(0.05)


def run() -> None:
    """Deliver until everything is finished."""
    asyncio.run(_run())
