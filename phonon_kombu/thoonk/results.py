"""Results of finished jobs: looked up, or waited for."""

from __future__ import annotations

from time import monotonic

from ..errors import NotFound
from .base import POLL_SECONDS, Base, Item, job_id
from .notices import Topic
from .steps import Hear, Listen, Send, Steps


class ResultSteps(Base):
    """How results are asked for, for both faces."""

    def _get_result(self, id: str, timeout: float | None = None) -> Steps[tuple[Item, Item]]:
        """The job's item and its result, ``(query, result)``, waiting until it is finished.

        A result that is kept can be asked for any number of times, from any process. A connection
        that breaks while it waits is made anew.

        Arguments:
            timeout: seconds to wait at the most; 0 does not wait; None (default) waits for as
                long as the job exists.

        Raises :exc:`TimeoutError` if the job was not finished in time, and
        :exc:`~phonon_kombu.errors.NotFound` if there is neither a job nor a result of this id:
        it was never put, was finished without a result or retracted, has expired, or its result
        is no longer kept.
        """
        until = self._deadline(timeout)
        _, found = yield from self._look(id)
        if found is not None:
            return found
        subscription = yield Listen(Topic("finish", self.name))
        try:
            while True:
                # Subscribed first: what is finished after this look is announced to us.
                query, found = yield from self._look(id)
                if found is not None:
                    return found
                left = POLL_SECONDS if until is None else until - monotonic()
                if left <= 0:
                    raise TimeoutError(f"job {id!r} was not finished in time")
                look_again_at = monotonic() + min(left, POLL_SECONDS)
                while (left := look_again_at - monotonic()) > 0:
                    notice = yield Hear(subscription, left)
                    if notice is None or notice.kind != "finish":
                        break
                    if notice.id == id:
                        # Also of a peer that announces results and keeps none.
                        return self._out(query), self._out(notice.data)
        finally:
            yield Hear(subscription, None)

    def _look(self, id: str) -> Steps[tuple[bytes, tuple[Item, Item] | None]]:
        """The item of an unfinished job, or else its query and result."""
        # In this order: between the two the job may be finished.
        item, (query, result) = yield Send(
            (b"HGET", self.keys.items, job_id(id)),
            (b"HMGET", self.keys.result(id), b"query", b"result"),
        )
        if result is not None:
            return b"", (self._out(query), self._out(result))
        if item is None:
            raise NotFound(f"no job and no result has the id {id!r}")
        return item, None
