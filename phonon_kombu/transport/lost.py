"""Claims that were lost: the server has run them, and their reply has never come."""

from __future__ import annotations

import logging
from time import monotonic

from redis.exceptions import RedisError

from ..errors import PhononError
from ..phonon.recovery import clock_ms, recover
from ..store.client import CONNECTION_ERRORS
from ..store.patience import alone, at_most
from .outbox import keeper
from .outliving import RETRY_SECONDS, Outliving
from .waiter import AGAIN_SECONDS, RETURN_SECONDS, Waiter

logger = logging.getLogger("phonon_kombu.transport")

#: What may go wrong and go away again.
PASSING_ERRORS: tuple[type[Exception], ...] = (*CONNECTION_ERRORS, PhononError, RedisError)


class Losing(Outliving):
    """Part of :class:`~.channel.Channel`: what it has claimed without knowing it goes back."""

    waiter: Waiter
    owner: bytes
    claims_lost: bool
    #: Whether somebody is giving back what was lost; if that fails, it is lost still.
    recovering = False

    def lose_claims(self) -> None:
        """Something may have been claimed without our knowing: the keeper gives it back."""
        self.claims_lost = True
        keeper.poke()

    def recover_lost(self) -> None:
        """After a broken conversation: give back what was claimed without our knowing."""
        if not self.claims_lost:
            return
        waiter = self.waiter
        with alone(waiter.lock):
            self.recovering = True
            self.claims_lost = False  # now: another thread may lose some meanwhile
            # In the order in which a message goes through them, as another thread may move it.
            jobs = [(entry[0], entry[1]) for entry in list(waiter.buffer)]
            if (entry := waiter.in_hand) is not None:
                jobs.append((entry[0], entry[1]))
            jobs += [m.job for m in list(self.qos._delivered.values()) if m.job is not None]
            jobs += [m.job for m in list(self.qos.saying.values()) if m.job is not None]
            known: dict[str, list[bytes]] = {}
            for queue, job_id in [*jobs, *waiter.leaving]:
                known.setdefault(queue, []).append(job_id)
            try:
                self.flush()
                until_ms = clock_ms(self.link)
                for queue in list(waiter.claimed_queues):
                    keep = known.get(queue, ())
                    recover(
                        self.link, self.keys(queue), self.owner, b"restore", keep, until_ms=until_ms
                    )
            except BaseException:
                self.claims_lost = True
                raise
            finally:
                self.recovering = False

    def _recover_soon(self) -> float | None:
        """From the keeper: what is lost while the channel's own thread does not come by."""
        if not self.claims_lost or self.closed:
            return None
        left = self._tried_at + RETRY_SECONDS - monotonic()
        if left > 0:
            return left
        lock = self.waiter.lock
        if not lock.acquire(blocking=False):
            return AGAIN_SECONDS
        try:
            if self.waiter.claiming:
                return AGAIN_SECONDS  # what the reply names is not lost
            with at_most(RETURN_SECONDS):
                self.recover_lost()
        except PASSING_ERRORS as error:
            logger.debug("claims are lost: %r", error)
            self._tried_at = monotonic()
            return RETRY_SECONDS
        finally:
            lock.release()
        return None
