"""Which messages a channel has delivered and not yet heard of again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Any

from kombu.transport import virtual

from ..store.client import CONNECTION_ERRORS
from . import orphans
from .message import Message
from .outbox import keeper

logger = logging.getLogger("phonon_kombu.transport")


class Delivered(dict[Any, Any]):
    """Unacknowledged messages by delivery tag, in the order of their delivery."""

    restored = False


class QoS(virtual.QoS):
    """Prefetch limit and acknowledgements.

    A tag leaves :attr:`_delivered` the moment it is acknowledged, from whatever thread; what the
    server must be told is gathered by the channel's :class:`~.outbox.Outbox`.
    """

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        self._delivered = Delivered()
        #: Messages of which the server is being told what becomes of them, by delivery tag.
        self.saying: dict[Any, Message] = {}
        #: Messages that stay claimed when the channel is closed.
        self.kept: AbstractSet[Message] = frozenset()
        self._quick_append = self._delivered.__setitem__

    def append(self, message: Message, delivery_tag: Any) -> None:
        self._delivered[delivery_tag] = message

    def ack(self, delivery_tag: Any, multiple: bool = False) -> None:
        if multiple:
            for tag in [t for t in list(self._delivered) if t <= delivery_tag]:
                self.ack(tag)
            return
        # First there, then gone here: whatever comes in between, it is known.
        message = self._delivered.get(delivery_tag)
        if message is not None and message.job is not None:
            self.channel.outbox.add(message.job)
        self._delivered.pop(delivery_tag, None)

    def reject(self, delivery_tag: Any, requeue: bool = False) -> None:
        message = self._delivered.get(delivery_tag)
        if message is None or message.job is None:
            self._delivered.pop(delivery_tag, None)
            return
        with self._saying(message):
            if requeue:
                self.channel.give_back([(*message.job, delivery_tag)], mode=b"cancel")
            else:
                self.channel.reject(*message.job)

    @contextmanager
    def _saying(self, message: Message) -> Iterator[None]:
        """While the server is told what becomes of `message`."""
        # At every moment it is known as ours, also to another thread that looks for what is not.
        self.saying[message.delivery_tag] = message
        self._delivered.pop(message.delivery_tag, None)
        try:
            yield
        except BaseException as error:
            if not (self.channel.outliving and isinstance(error, CONNECTION_ERRORS)):
                self._delivered[message.delivery_tag] = message
                raise
            # Nobody says it a second time for a closed channel: it is to be delivered again.
            self.channel.claims_lost = True
        finally:
            self.saying.pop(message.delivery_tag, None)
        if self.channel.outliving:
            keeper.poke()

    def stall(self, delivery_tag: Any, reason: str) -> None:
        """Take the job of a message out of the running until an operator decides."""
        message = self._delivered.get(delivery_tag)
        if message is not None and message.job is not None:
            with self._saying(message):
                self.channel.stall(*message.job, reason)

    def restore_unacked(self) -> list[Any]:
        """Give all unacknowledged messages back but those that are kept, in front and in order, as
        redelivered."""
        gone = self._to_give_back()
        jobs = [(*message.job, tag) for tag, message in gone if message.job is not None]
        for tag, _ in gone:
            self._delivered.pop(tag, None)
        if jobs:
            self.channel.give_back(jobs, mode=b"restore")
        return []

    def _to_give_back(self) -> list[tuple[Any, Message]]:
        return [item for item in list(self._delivered.items()) if item[1] not in self.kept]

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """At the end of the channel. What cannot be given back now is when the server is back."""
        self._on_collect.cancel()
        state = self._delivered
        if state.restored:
            return
        state.restored = True
        if not self.restore_at_shutdown or not self.channel.do_restore:
            if any(message.job is not None for message in state.values()):
                orphans.leave_claimed(self.channel.server_identity)
            state.clear()
            return
        count = len(self._to_give_back())
        if count:
            logger.info("Giving back %d unacknowledged message(s)", count)
            self.restore_unacked()
