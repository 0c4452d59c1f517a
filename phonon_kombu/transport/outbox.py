"""Acknowledgements on their way to the server.

One acknowledgement is half a round trip of work for nothing but itself. They are gathered and
leave with the next claim in the same write; when no claim is due, the :class:`Keeper`, one thread
for the process, sends them within 50 ms.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

#: The queue, the job id.
Job = tuple[str, bytes]

#: Ids in one call of a script.
SLICE = 500

logger = logging.getLogger("phonon_kombu.transport")

#: Seconds between two looks of the keeper. An acknowledgement waits for two looks at the most.
KEEPER_INTERVAL_SECONDS = 0.025

#: The keeper stops looking after so many looks at nothing, until it is poked.
KEEPER_PATIENCE = 40


class Outbox:
    """Finished jobs of one channel that the server does not know of yet. Thread-safe."""

    __slots__ = ("_jobs", "_keeper", "looked_at", "__weakref__")

    def __init__(self, keeper: Keeper) -> None:
        self._jobs: deque[Job] = deque()
        self._keeper = keeper
        #: The job that was first in line when the keeper looked last.
        self.looked_at: Job | None = None

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> None:
        """Note that `job` is done."""
        self._jobs.append(job)
        if self._keeper.asleep:
            self._keeper.poke()

    def take(self, leaving: list[Job]) -> list[tuple[str, list[bytes]]]:
        """Empty the outbox into `leaving`. Returns that as ids by queue, in slices that a script
        can take."""
        # In one go, so that a job is always in one of the two: here or there.
        with contextlib.suppress(IndexError):
            leaving.extend(iter(self._jobs.popleft, None))
        taken: list[tuple[str, list[bytes]]] = []
        open_slices: dict[str, list[bytes]] = {}
        for queue, job_id in leaving:
            ids = open_slices.get(queue)
            if ids is None or len(ids) >= SLICE:
                ids = open_slices[queue] = []
                taken.append((queue, ids))
            ids.append(job_id)
        return taken

    def put_back(self, jobs: Sequence[Job]) -> None:
        """These could not be sent."""
        self._jobs.extendleft(reversed(jobs))
        if self._keeper.asleep:
            self._keeper.poke()

    def overdue(self) -> bool:
        """Whether something has been waiting since the keeper's last look."""
        try:
            first = self._jobs[0]
        except IndexError:
            self.looked_at = None
            return False
        if first is self.looked_at:
            return True
        self.looked_at = first
        return False


class Keeper:
    """A daemon thread that sends what waits too long in the outboxes of this process.

    It also does what a channel asks to have done at intervals (:meth:`every`), so that a task
    which keeps the main thread for minutes does not stop it. It sleeps while nothing waits, and a
    forked child starts its own.
    """

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self.asleep = True
        self._channels: weakref.WeakSet[Any] = weakref.WeakSet()
        self._wakeup = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()  # the handler of a signal may come while it is held

    def watch(self, channel: Any) -> None:
        """Look after `channel` for as long as it lives."""
        with self._lock:
            self._channels.add(channel)

    def forget(self, channel: Any) -> None:
        """Stop looking after `channel`."""
        with self._lock:
            self._channels.discard(channel)

    def poke(self) -> None:
        """Something waits: begin to look."""
        self.asleep = False
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="phonon-keeper", daemon=True)
                # At the end of the interpreter no thread can be started: channels are closed then.
                with contextlib.suppress(RuntimeError):
                    self._thread.start()
        self._wakeup.set()

    def _run(self) -> None:
        idle = 0
        while True:
            busy, chores = self._look()
            idle = 0 if busy else idle + 1
            if idle > KEEPER_PATIENCE:
                self.asleep = True
                # An acknowledgement may have come in between, and its poke been spared.
                poked = self._waiting() or self._wakeup.wait(chores)
                self._wakeup.clear()
                self.asleep = False
                # After a chore it may sleep again at once.
                idle = 0 if poked else KEEPER_PATIENCE
                continue
            time.sleep(min(KEEPER_INTERVAL_SECONDS, max(chores or 1.0, 0.001)))

    def _all(self) -> list[Any]:
        with self._lock:
            return list(self._channels)

    def _waiting(self) -> bool:
        return any(len(channel.outbox) or channel.waits() for channel in self._all())

    def _look(self) -> tuple[bool, float | None]:
        busy, soonest = False, None
        for channel in self._all():
            wait = None
            # The server is away, or refuses, or the channel is being closed: the channel's own
            # thread will notice and say so.
            try:
                if channel.outbox.overdue() and not channel.outliving:
                    channel.flush()
                busy = busy or len(channel.outbox) > 0
            except Exception as error:
                logger.debug("keeper: %r", error)
                busy = True
            try:
                wait = channel.chores()
            except Exception as error:
                logger.debug("keeper: %r", error)
                busy = True
            if wait is not None:
                soonest = wait if soonest is None else min(soonest, wait)
        return busy, soonest


#: The keeper of this process.
keeper = Keeper()
