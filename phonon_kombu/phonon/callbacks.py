"""Where a model's own functions run: in the event loop of their registration, else in a thread."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

logger = logging.getLogger("phonon_kombu.phonon")

#: What is called after a function: with None, or with the exception that it raised.
Done = Callable[[BaseException | None], None] | None

#: A function to be called, and what comes after it.
Call = tuple[Callable[[], Any], Done]


@dataclass
class Away:
    """A call that was given to an event loop, until it has ended."""

    loop: asyncio.AbstractEventLoop
    function: Callable[[], Any]
    done: Done
    begun: bool = False


class Callbacks:
    """Calls functions one after the other: those of a loop in it, all others in one thread.

    A slow function does not keep records from being folded; it keeps other functions waiting.
    Whatever a function raises, SystemExit too, it has failed, and those behind it are called.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._pending = 0
        self._idle = threading.Condition()
        self._away: dict[int, Away] = {}
        self._keys = itertools.count()

    def call(self, loop: asyncio.AbstractEventLoop | None, calls: Sequence[Call]) -> None:
        """Call all of these soon, in their order."""
        with self._idle:
            self._pending += len(calls)
        if loop is None:
            self._put(lambda: self._call_here(calls))
            return
        away = {next(self._keys): Away(loop, *one) for one in calls}
        self._away |= away
        try:
            loop.call_soon_threadsafe(self._call_in_loop, list(away))
        except RuntimeError:
            self.take_back()

    def take_back(self) -> None:
        """Call in a thread what event loops that have been closed will not call, or not end."""
        for key, one in list(self._away.items()):
            if one.loop.is_closed() and self._away.pop(key, None) is not None:
                logger.debug("the event loop is closed: calling in a thread")
                if one.begun:
                    self._put(partial(self._finish, one.done, asyncio.CancelledError()))
                else:
                    self._put(partial(self._call_here, [(one.function, one.done)]))

    def wait_idle(self, seconds: float) -> bool:
        """Wait until nothing is being called; whether that came true in time."""
        with self._idle:
            return self._idle.wait_for(lambda: self._pending == 0, seconds)

    def _put(self, job: Callable[[], None]) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._run, name="phonon-callbacks", daemon=True
                )
                self._thread.start()
        self._queue.put(job)

    def _run(self) -> None:
        while True:
            self._queue.get()()

    def _call_here(self, calls: Sequence[Call]) -> None:
        for function, done in calls:
            error: BaseException | None = None
            try:
                outcome = function()
                if inspect.iscoroutine(outcome):
                    asyncio.run(outcome)
            except BaseException as raised:  # this thread is nobody's to end
                error = raised
            self._finish(done, error)

    def _call_in_loop(self, keys: list[int]) -> None:
        passed_on: BaseException | None = None
        for key in keys:
            one = self._away[key]
            one.begun = True
            try:
                outcome = one.function()
            except BaseException as error:
                if not isinstance(error, Exception):
                    passed_on = error
                self._leave_loop(key, error)
                continue
            if inspect.isawaitable(outcome):
                task = asyncio.ensure_future(outcome)
                task.add_done_callback(partial(self._awaited, key))
            else:
                self._leave_loop(key, None)
        if passed_on is not None:  # the loop's, or meant for whoever runs it
            raise passed_on

    def _awaited(self, key: int, task: asyncio.Future[Any]) -> None:
        self._leave_loop(key, asyncio.CancelledError() if task.cancelled() else task.exception())

    def _leave_loop(self, key: int, error: BaseException | None) -> None:
        """What follows speaks with Redis, so it is not done in the loop."""
        one = self._away.pop(key, None)
        if one is None:  # taken back
            return
        done = one.done
        if done is None:
            self._finish(None, error)
        else:
            self._put(partial(self._finish, done, error))

    def _finish(self, done: Done, error: BaseException | None) -> None:
        try:
            if done is not None:
                done(error)
            elif error is not None:
                logger.error("a callback of a model failed", exc_info=error)
        except Exception as raised:
            logger.error("after a callback of a model", exc_info=raised)
        finally:
            with self._idle:
                self._pending -= 1
                self._idle.notify_all()
