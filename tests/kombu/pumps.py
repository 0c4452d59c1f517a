"""The two ways to make a connection's messages arrive: ``drain_events()`` and the event loop."""

from __future__ import annotations

import contextlib
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from kombu import Connection
from kombu.asynchronous import Hub, set_event_loop


class Pump(ABC):
    """Makes a connection's messages arrive at their consumers."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @abstractmethod
    def step(self, timeout_seconds: float) -> None:
        """Let something happen, or nothing within the time."""

    def forget_connection(self) -> None:  # noqa: B027  (optional)
        """Clear what is left of a connection that broke, before it is closed."""

    def use(self, connection: Connection) -> None:
        """Go on with another connection."""
        self.connection = connection

    def close(self) -> None:  # noqa: B027  (optional)
        """Let go of what the pump itself holds."""

    def until(self, condition: Callable[[], Any], timeout_seconds: float = 15.0) -> None:
        """Run until ``condition`` is true.

        :raises AssertionError: if it is not within ``timeout_seconds``.
        """
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            assert time.monotonic() < deadline, f"not reached within {timeout_seconds} s"
            self.step(0.1)

    def run(self, seconds: float) -> None:
        """Run for a while, to see that nothing arrives which should not."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.step(left)


class DrainPump(Pump):
    """``Connection.drain_events()``."""

    def step(self, timeout_seconds: float) -> None:
        """Drain one event."""
        with contextlib.suppress(socket.timeout):
            self.connection.drain_events(timeout=timeout_seconds)


class HubPump(Pump):
    """kombu's event loop, driven as Celery's worker drives it."""

    def __init__(self, connection: Connection) -> None:
        self.hub = Hub()
        set_event_loop(self.hub)
        # The loop sleeps until the next timer: this one lets ``step`` return.
        self.hub.call_repeatedly(0.02, lambda: None)
        self.use(connection)

    def use(self, connection: Connection) -> None:
        """Go on with another connection."""
        super().use(connection)
        before = {entry.entry for entry in self.hub.timer.queue}
        connection.register_with_event_loop(self.hub)
        self._timers = {entry.entry for entry in self.hub.timer.queue} - before
        self.hub.propagate_errors = connection.connection_errors

    def forget_connection(self) -> None:
        """Reset the loop, and cancel the timers that the connection had registered."""
        self.hub.reset()
        for timer in self._timers:
            self.hub.timer.cancel(timer)

    def step(self, timeout_seconds: float) -> None:
        """Run the loop once."""
        self.hub.run_once()

    def close(self) -> None:
        """Close the loop."""
        self.hub.close()
        self.hub.timer.stop()


PUMPS: dict[str, Callable[[Connection], Pump]] = {"drain_events": DrainPump, "event_loop": HubPump}
PumpFactory = Callable[[Connection], Pump]
