"""Messages that outlive the connection they came by.

When a connection is lost, Celery closes it, makes another, and goes on with what its pool is at
work on. RabbitMQ delivers those messages again meanwhile, and so does a Redis transport that knows
a message by the connection it went out on: a hiccup of the network runs every task in hand twice.
Here a claim belongs to the process. Messages that Celery has begun to work on stay claimed when
their channel is closed; the closed channel keeps a connection of its own for what they have to say
in the end, an acknowledgement or a requeue, and is gone after the last of them.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any

from ..phonon.heart import Heart
from ..store.client import CONNECTION_ERRORS
from . import orphans
from .connections import Connections
from .outbox import keeper

logger = logging.getLogger("phonon_kombu.transport")

#: Seconds until a closed channel tries again to tell the server what its messages had to say.
RETRY_SECONDS = 0.5

#: Closed channels some of whose messages are still worked on. Nothing else may refer to them.
_outliving: set[Any] = set()


class Outliving(Connections):
    """Part of :class:`~.channel.Channel`: its life after it was closed."""

    #: Whether this channel is closed and some of its messages are still worked on.
    outliving = False
    heart: Heart | None
    _tried_at = float("-inf")

    def outlive(self, link: Any) -> None:
        """From now on speak by `link`, and be looked after by the keeper."""
        logger.info(
            "The connection is lost; %d message(s) being worked on stay claimed",
            len(self.qos._delivered),
        )
        old, self.link = self.link, link
        old.close()
        self.outliving = True
        _outliving.add(self)
        keeper.watch(self)
        keeper.poke()

    def after_life(self) -> float | None:
        """From the keeper: say what is to be said; after the last word, be gone.

        Returns the seconds until it is to be tried again, None if nothing is to be said.
        """
        left = self._tried_at + RETRY_SECONDS - monotonic()
        if left > 0:
            return left
        try:
            self.flush()
            self.recover_lost()
        except CONNECTION_ERRORS as error:
            logger.debug("a closed channel has something to say: %r", error)
            self._tried_at = monotonic()
            return RETRY_SECONDS
        if not self.qos._delivered and not len(self.outbox):
            self.retire()
        return None

    def retire(self) -> None:
        """Nothing is claimed any more."""
        self.outliving = False
        _outliving.discard(self)
        keeper.forget(self)
        self.link.close()
        beating, self.heart = self.heart, None
        if beating is not None:
            orphans.let_go(self.server_identity, beating)

    def end(self) -> None:
        """At the end of the process: give back what nobody is going to finish."""
        try:
            self.qos.kept = frozenset()
            self.qos.restore_unacked()
            self.flush()
            self.recover_lost()
        except CONNECTION_ERRORS as error:
            logger.debug("the end of a closed channel: %r", error)
        self.retire()
