"""What surrounds the closing of a chord: its lease, and ids by which nothing is published twice."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from celery import signals

logger = logging.getLogger("phonon_kombu.backend")

#: How long a closer has before others take his chord for abandoned. He renews it while he lives.
LEASE_MS = 4000

#: For how long a broker that knows deduplication ids remembers those of a chord's body: longer
#: than any closer's death can remain unnoticed. Milliseconds.
DEDUPLICATION_MS = 3_600_000

#: Which chord's body this code publishes.
_closing: ContextVar[str] = ContextVar("phonon_closing", default="")


def resuming() -> str:
    """Which chord's body this code publishes, perhaps not as the first to do so; '' if none's."""
    return _closing.get()


def _add_id(headers: dict[str, Any] | None = None, **_: Any) -> None:
    """Give each message of a body an id by which its second coming is recognised.

    The task's id alone does not do: a body that is replaced by a chord passes its id on to the body
    of that.
    """
    if headers and _closing.get() and headers.get("id"):
        headers.setdefault("x-deduplication-id", f"chord-body:{_closing.get()}:{headers['id']}")
        headers.setdefault("x-deduplication-ttl", DEDUPLICATION_MS)


@contextmanager
def publishing(chord: str) -> Iterator[None]:
    """Within, what is published is the body of `chord`, which a takeover may publish again."""
    # Connected again and again, but only once in effect: it costs nothing before the first chord.
    signals.before_task_publish.connect(_add_id, dispatch_uid="phonon_kombu.backend.closing")
    token = _closing.set(chord)
    try:
        yield
    finally:
        _closing.reset(token)


class Lease:
    """Keeps a closer's lease while he works, on a thread that starts only if that takes long.

    Arguments:
        renew: extends the lease; returns whether it is still ours.
    """

    def __init__(self, renew: Callable[[], bool]) -> None:
        self._renew = renew
        self._ended = False
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Lease:
        self._schedule()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self) -> None:
        if not self._ended:
            self._timer = threading.Timer(LEASE_MS / 3000, self._extend)
            self._timer.daemon = True
            self._timer.start()

    def _extend(self) -> None:
        if self._ended:
            return
        try:
            if not self._renew():
                logger.warning("A chord that this process closes was taken over by another")
                return
        except Exception as error:
            logger.debug("lease: %r", error)
        self._schedule()
