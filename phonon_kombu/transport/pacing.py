"""How many jobs a consumer may claim, and when: at once, after a moment, or asked again later."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from .conversation import Conversation, Entry

#: Jobs claimed at once by a consumer without a prefetch limit.
LARGEST_CLAIM = 100

#: Seconds that a busy consumer waits for more credit before it claims a few jobs only.
LINGER_SECONDS = 0.005

#: How often to see, while a consumer has no credit, whether it has some again, seconds.
CREDIT_SECONDS = 0.05


class Pacing(Conversation):
    """Part of :class:`~.waiter.Waiter`."""

    def __init__(self, channel: Any) -> None:
        super().__init__(channel)
        #: Claimed and not yet handed over.
        self.buffer: deque[Entry] = deque()
        self._claimed_at = 0.0
        self._lingering = self._asking = False

    def credit(self) -> int:
        """How many jobs may be claimed now."""
        qos = self.channel.qos
        if "can_consume" in qos.__dict__:
            # Somebody (worker_disable_prefetch) decides message by message.
            return 1 if not self.buffer else 0
        most = LARGEST_CLAIM - len(self.buffer)
        count = qos.prefetch_count
        if not count:
            return most
        return int(min(most, count - len(qos._delivered) - len(self.buffer)))

    def _ripe(self, credit: int, now: float) -> bool:
        qos = self.channel.qos
        count = qos.prefetch_count
        return (
            not count
            or "can_consume" in qos.__dict__
            or credit * 2 >= count
            or credit == count
            or now - self._claimed_at >= LINGER_SECONDS
        )

    def limit_linger(self, call_later: Callable[[float, Callable[[], None]], Any]) -> None:
        """See that the event loop comes by when the moment has passed.

        To be called while the loop handles its events: a timer that is added in a tick does not
        shorten the sleep that follows.
        """
        if not self._lingering:
            self._lingering = True
            call_later(LINGER_SECONDS, partial(self._stop_lingering, call_later))

    def _stop_lingering(self, call_later: Callable[[float, Callable[[], None]], Any]) -> None:
        self._lingering = False
        left = LINGER_SECONDS - (monotonic() - self._claimed_at)
        if left > 0:
            # Set before the last claim, whose moment has not passed: nobody else would come by.
            self._lingering = True
            call_later(left, partial(self._stop_lingering, call_later))

    def await_credit(self, call_later: Callable[[float, Callable[[], None]], Any]) -> None:
        """Let the event loop come by at times while somebody else decides whether there is credit
        (worker_disable_prefetch): nobody says when that changes, and the loop may sleep for long.

        To be called while the loop handles its events.
        """
        if not self._asking and "can_consume" in self.channel.qos.__dict__:
            self._asking = True
            call_later(CREDIT_SECONDS, partial(self._ask_again, call_later))

    def _ask_again(self, call_later: Callable[[float, Callable[[], None]], Any]) -> None:
        self._asking = False
        if not self._outstanding and self.channel.active_queues:
            self.await_credit(call_later)
