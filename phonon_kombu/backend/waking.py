"""Who waits for results, and how each of them is told: whatever becomes of the others."""

from __future__ import annotations

import logging
import select
import selectors
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from celery import states
from celery.backends.asynchronous import BaseResultConsumer, greenletDrainer

T = TypeVar("T")

logger = logging.getLogger("phonon_kombu.backend")

#: Keys of one look.
SLICE = 200


class Waking(BaseResultConsumer):
    """What a :class:`~.consumer.ResultConsumer` does with what it has heard."""

    def _renew(self) -> None:
        #: What has been heard and not been told yet: a result as it is stored, and its message.
        self._heard: deque[tuple[bytes, Any]] = deque()
        #: The thread that tells, while it does. A callback may make it wait for another result.
        self._teller: int | None = None

    def _done(self, task_id: str) -> None:
        """Nothing more is to come of this task."""
        raise NotImplementedError

    # Looking -------------------------------------------------------------------------------

    def _look_up(self, result: Any) -> None:
        """Tell what is known of a task, or of a group's tasks, before anybody waits for it."""
        for meta in self._known(result):
            self.on_state_change(meta, None)
            if meta["status"] in (states.SUCCESS, states.FAILURE):
                self._drop_message(meta["task_id"])

    def _known(self, result: Any) -> Iterator[dict[str, Any]]:
        """What is known of a task, or of those members of a group that are not ready yet."""
        if getattr(result, "results", None) is None:
            yield result._get_task_meta()
            return
        ids = list(pending_ids(result))
        keys = [self.backend.get_key_for_task(id) for id in ids]
        for start in range(0, len(keys), SLICE):
            for value in self.backend.mget(keys[start : start + SLICE]):
                if value:
                    yield self.backend.decode_result(value)

    def _drop_message(self, task_id: str) -> None:
        """Nobody will come for what :meth:`on_state_change` has put aside for a later waiter."""
        messages = self.backend._pending_messages
        try:
            buffered = messages.pop(task_id)
        except KeyError:
            return
        messages.total -= len(buffered)

    # Telling -------------------------------------------------------------------------------

    def on_state_change(self, meta: dict[str, Any], message: Any) -> None:
        """A task has a new state: tell all who wait for it.

        Raises what the first of their callbacks has raised, when all have been told.
        """
        errors: list[Exception] = []
        if self.on_message:
            with noted(errors):
                self.on_message(meta)
        if meta["status"] in states.READY_STATES:
            task_id = meta["task_id"]
            waiting = waiting_on(self._pending_results, task_id)
            if not waiting:
                # For who is about to say that he waits.
                self._pending_messages.put(task_id, meta)
            for result in waiting:
                with noted(errors):
                    result._maybe_set_cache(meta)
                bucket = self.buckets.pop(result, None)
                if bucket is not None:
                    bucket.append(result)
            self._done(task_id)
        time.sleep(0)
        if errors:
            raise errors[0]

    def _tell(self) -> None:
        """Tell what has been heard. What is left when somebody raises, the next call tells."""
        before, self._teller = self._teller, threading.get_ident()
        try:
            while True:
                try:
                    value, message = self._heard.popleft()
                except IndexError:
                    return
                try:
                    self.on_state_change(self.backend.decode_result(value), message)
                except Exception:
                    if not isinstance(self.drainer, greenletDrainer):
                        raise
                    # There is one reader for all, who would never read again.
                    logger.exception("A callback of who waits for a result has raised")
                except BaseException:
                    # An interrupt, perhaps before anybody was told.
                    self._heard.appendleft((value, message))
                    raise
        finally:
            self._teller = before


@contextmanager
def noted(errors: list[Exception]) -> Iterator[None]:
    """What is raised within is put into `errors`; who is not the first there is logged."""
    try:
        yield
    except Exception as error:
        if errors:
            logger.exception("One more callback of who waits for a result has raised")
        errors.append(error)


def waiting_on(pending: Any, task_id: str) -> list[Any]:
    """The results in Celery's two mappings that wait for this task."""
    found: list[Any] = []
    for mapping in pending:
        one = mapping.get(task_id)
        if hasattr(one, "values"):
            found += list(one.values())
        elif one is not None:  # Celery 5.6 knows one for each task
            found.append(one)
    return found


def pending_ids(group: Any) -> Iterator[str]:
    """The ids of a group's tasks, and of those of groups in it, that are not known to be ready."""
    for member in group.results:
        if getattr(member, "results", None) is not None:
            yield from pending_ids(member)
        elif member._cache is None:
            yield member.id


def drained(queue: deque[T]) -> list[T]:
    """All that is in `queue`, taken out of it while others may add to it."""
    found = []
    with suppress(IndexError):
        while True:
            found.append(queue.popleft())
    return found


def readable(socks: list[Any], seconds: float) -> set[int]:
    """The descriptors among `socks` that can be read within `seconds`."""
    # Looked up at each call: gevent and eventlet put their own in its place.
    poll = getattr(select, "poll", None)
    try:
        if poll is not None:
            poller = poll()
            for sock in socks:
                poller.register(sock, select.POLLIN)
            return {fd for fd, _ in poller.poll(seconds * 1000)}
        with selectors.DefaultSelector() as selector:
            for sock in socks:
                selector.register(sock, selectors.EVENT_READ)
            return {key.fd for key, _ in selector.select(seconds)}
    except (OSError, ValueError):
        time.sleep(min(seconds, 0.05))
        return {sock.fileno() for sock in socks[:1]}
