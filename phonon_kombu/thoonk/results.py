"""Results of finished jobs: looked up, or waited for."""

from __future__ import annotations

from time import monotonic
from typing import Any

from redis import exceptions as redis_errors

from ..errors import NotFound
from ..store.client import translate
from .base import POLL_SECONDS, Base, Item, job_id

#: Seconds in which the server must confirm a subscription.
CONFIRM_SECONDS = 5.0


class Results(Base):
    """How results are asked for. Part of :class:`~.job.Job`."""

    @property
    def finish_channel(self) -> bytes:
        """The PUBLISH channel of results."""
        return self._channel("finish")

    def get_result(self, id: str, timeout: float | None = None) -> tuple[Item, Item]:
        """The job's item and its result, ``(query, result)``, waiting until it is finished.

        A result that is kept can be asked for any number of times, from any process.

        Arguments:
            timeout: seconds to wait at the most; 0 does not wait; None (default) waits for as
                long as the job exists.

        Raises :exc:`TimeoutError` if the job was not finished in time, and
        :exc:`~phonon_kombu.errors.NotFound` if there is neither a job nor a result of this id:
        it was never put, was finished without a result or retracted, has expired, or its result
        is no longer kept.
        """
        until = self._deadline(timeout)
        _, found = self._look(id)
        if found is not None:
            return found
        subscription = self.session.subscription()
        try:
            _subscribe(subscription, self.finish_channel)
            while True:
                # Subscribed first: what is finished after this look is announced to us.
                query, found = self._look(id)
                if found is not None:
                    return found
                left = POLL_SECONDS if until is None else until - monotonic()
                if left <= 0:
                    raise TimeoutError(f"job {id!r} was not finished in time")
                announced = _listen(subscription, job_id(id) + b"\0", min(left, POLL_SECONDS))
                if announced is not None:
                    # Also of a peer that announces results and keeps none.
                    return self._out(query), self._out(announced)
        except redis_errors.ResponseError as error:
            raise translate(error) from None
        finally:
            subscription.close()

    def _look(self, id: str) -> tuple[bytes, tuple[Item, Item] | None]:
        """The item of an unfinished job, or else its query and result."""
        # In this order: between the two the job may be finished.
        item, (query, result) = self._link.send(
            (
                (b"HGET", self.keys.items, job_id(id)),
                (b"HMGET", self.keys.result(id), b"query", b"result"),
            ),
            repeat=True,
        )
        if result is not None:
            return b"", (self._out(query), self._out(result))
        if item is None:
            raise NotFound(f"no job and no result has the id {id!r}")
        return item, None


def _subscribe(subscription: Any, channel: bytes) -> None:
    subscription.subscribe(channel)
    until = monotonic() + CONFIRM_SECONDS
    while monotonic() < until:
        message = subscription.get_message(timeout=CONFIRM_SECONDS)
        if message is not None and message["type"] == "subscribe":
            return
    raise redis_errors.TimeoutError("the server does not confirm a subscription")


def _listen(subscription: Any, start: bytes, seconds: float) -> bytes | None:
    """What follows `start` in the first message that begins so; None if none came in time."""
    until = monotonic() + seconds
    while (left := until - monotonic()) > 0:
        message = subscription.get_message(ignore_subscribe_messages=True, timeout=left)
        if message is not None and message["data"].startswith(start):
            data: bytes = message["data"][len(start) :]
            return data
    return None
