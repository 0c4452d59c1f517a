"""Every worker looks after chords whose closer has died, whatever its pool."""

from __future__ import annotations

import logging
import os
import threading
from time import monotonic
from typing import Any

from billiard import current_process
from celery import signals

from .storing import Storing

logger = logging.getLogger("phonon_kombu.backend")

#: Seconds between two looks of an idle worker: one command each.
LOOK_SECONDS = 5.0

#: Chords looked at in one round.
SLICE = 20

#: How long a process goes on watching after it has counted a part, if Celery does not say that it
#: is a worker: one that a test runs within its own process, and that ends without a word.
LINGER_SECONDS = 30.0

_watches: dict[int, Watch] = {}

# The threads of its parent do not run in a child.
os.register_at_fork(after_in_child=_watches.clear)


class Watch:
    """A thread of the worker's main process that closes what dead closers have left.

    An abandoned chord is closed within the longer one of the lease and the interval.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        #: When to end (of the monotonic clock); None: with the worker.
        self.until: float | None = None
        self._ended = threading.Event()
        self._link = backend._new_link()
        self._thread = threading.Thread(target=self._run, name="phonon-chords", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=2)
        self._link.close()

    def _run(self) -> None:
        wait = 0.0
        while not self._ended.wait(wait):
            if self.until is not None and monotonic() > self.until:
                unwatch(self._backend.app)
                return
            try:
                wait = self._round()
            except Exception as error:
                # Whatever it was, other chords and later rounds must not suffer from it.
                logger.warning("Looking after chords: %r", error)
                wait = LOOK_SECONDS

    def _round(self) -> float:
        """Look once; returns the seconds until there may be something to do again."""
        closing = self._backend.chord_keys("").closing
        wait = LOOK_SECONDS
        for group in self._link.command(b"ZRANGE", closing, b"0", b"%d" % (SLICE - 1)):
            if self._ended.is_set():
                break
            try:
                left = self._backend.take_over(group.decode("utf-8", "surrogateescape"))
            except self._backend.connection_errors:
                raise
            except Exception:
                # Others must not suffer from it; its lease is ours now, and ends.
                logger.exception("Chord %r could not be taken over", group)
                continue
            if left >= 0:
                wait = min(wait, max(left, 10) / 1000)
        return wait


def watch(backend: Any, worker: bool = False) -> None:
    """Have this process watch over the chords of `backend`: for as long as the worker runs, or
    for a while after the last call where nobody has said that this is a worker.

    A child of a prefork pool does not: its parent does.
    """
    if current_process().name != "MainProcess":
        return
    key = id(backend.app)
    found = _watches.get(key)
    if found is None:
        found = _watches[key] = Watch(backend)
        found.until = monotonic() + LINGER_SECONDS
        found.start()
    if worker:
        found.until = None
    elif found.until is not None:
        found.until = monotonic() + LINGER_SECONDS


def unwatch(app: Any) -> None:
    """Watch no more over the chords of `app`."""
    found = _watches.pop(id(app), None)
    if found is not None:
        found.stop()


def _begin(sender: Any = None, **_: Any) -> None:
    """When a worker is ready: watch, if its results are kept by our backend."""
    backend = getattr(getattr(sender, "app", None), "backend", None)
    if isinstance(backend, Storing):
        watch(backend, worker=True)


def _end(sender: Any = None, **_: Any) -> None:
    """When a worker ends."""
    unwatch(getattr(sender, "app", None))


def install() -> None:
    """Have every worker of this process watch over the chords of its backend."""
    signals.worker_ready.connect(_begin, dispatch_uid="phonon_kombu.backend.takeover.begin")
    signals.worker_shutdown.connect(_end, dispatch_uid="phonon_kombu.backend.takeover.end")
