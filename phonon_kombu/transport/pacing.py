"""How many jobs a consumer may claim, and when: at once, after a moment, or asked again later."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from .conversation import Conversation, Entry

#: Jobs claimed at once by a consumer without a prefetch limit, at the most. It begins with one.
LARGEST_CLAIM = 100

#: So many times as many each time that it comes back within :data:`QUICK_SECONDS`.
FASTER = 4
QUICK_SECONDS = 0.1

#: What such a consumer has claimed and not taken goes back after so many seconds, to others. A
#: consumer that is quick with a claim is through with one `FASTER` times as large before that.
UNUSED_SECONDS = 0.5

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
        #: Held while something is claimed, and while somebody else than the consumer, the keeper,
        #: reads the socket or gives back what is claimed. Not while a message is handed over.
        self.lock = threading.RLock()
        #: Taken out of the buffer, and not yet among the delivered.
        self.in_hand: Entry | None = None
        self._pace = 1
        #: Whether the last claim brought all that it was for.
        self._full = False
        self._claimed_at = 0.0
        self._lingering = self._asking = False

    def credit(self) -> int:
        """How many jobs may be claimed now."""
        qos = self.channel.qos
        if "can_consume" in qos.__dict__:
            # Somebody (worker_disable_prefetch) decides message by message.
            return 1 if not self.buffer else 0
        count = qos.prefetch_count
        if not count:
            return self._pace - len(self.buffer)
        most = LARGEST_CLAIM - len(self.buffer)
        return int(min(most, count - len(qos._delivered) - len(self.buffer)))

    @property
    def unlimited(self) -> bool:
        """Whether nobody says how many messages this consumer may have."""
        qos = self.channel.qos
        return not qos.prefetch_count and "can_consume" not in qos.__dict__

    @property
    def claiming(self) -> bool:
        """Whether the reply to a claim is outstanding."""
        return bool(self._outstanding) and not self.waiting

    def _keep_pace(self, now: float) -> None:
        """Before a claim: as many as the consumer has shown that it can take."""
        since = now - self._claimed_at
        if since >= UNUSED_SECONDS:
            self._pace = 1
        elif self._full and since < QUICK_SECONDS:
            self._pace = min(self._pace * FASTER, LARGEST_CLAIM)
        self._full = False

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
