"""When the next delayed jobs of a channel's queues fall due, as far as its claims have told."""

from __future__ import annotations

from collections.abc import Collection
from time import monotonic
from typing import Any


class DueTimes:
    """What one consumer knows of delayed jobs. The keeper's thread reads it, too."""

    def __init__(self) -> None:
        #: When the first of them is due, by the monotonic clock, seconds; None if none is known.
        self.first: float | None = None
        self._queues: set[str] = set()
        self._announced: float | None = None

    def note(self, queue: str, in_ms: int) -> bool:
        """The next job of `queue` is due in `in_ms` milliseconds (-1: none); whether that is
        sooner than all that was known."""
        if in_ms < 0:
            self._queues.discard(queue)
            return False
        at = monotonic() + in_ms / 1000
        self._queues.add(queue)
        if self.first is not None and at >= self.first:
            return False
        self.first = at
        return True

    def forget(self, queue: str) -> None:
        """Nobody consumes from `queue` any more."""
        self._queues.discard(queue)

    def take(self, now: float, queues: Collection[str]) -> list[str]:
        """Those of `queues` that may have jobs that are due now: to be asked, once."""
        if self.first is None or now < self.first:
            return []
        self.first = None
        return self._among(queues)

    def has_come(self) -> bool:
        """Whether the time has come since they were asked last."""
        return self.first is not None and monotonic() >= self.first

    def limit(self, seconds: float, now: float) -> float:
        """How long a wait of `seconds` may last at the most."""
        return seconds if self.first is None else min(seconds, max(self.first - now, 0.001))

    def announce(self, channel: Any) -> float | None:
        """From the keeper's thread: when jobs are due, leave a wake for whoever is idle. The
        server ends a wait up to 100 ms late, and the channel's own thread may be busy.

        Returns the seconds until the next one is due, None if that is not known.
        """
        due = self.first
        if due is None or due == self._announced:
            return None
        left = due - monotonic()
        if left > 0:
            return left
        self._announced = due
        queues = self._among(channel.active_queues)
        if queues:
            channel.link.send(
                [(b"ZADD", channel.keys(queue).wake, b"0", b"w") for queue in queues], repeat=True
            )
        return None

    def _among(self, queues: Collection[str]) -> list[str]:
        return [queue for queue in list(self._queues) if queue in queues]
