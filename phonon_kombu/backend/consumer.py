"""How a client waits for results: one connection for all, subscribed to what is waited for.

Celery's Redis backend subscribes when a task is published. This one does so when somebody waits,
and looks again once the server has confirmed: what came before is found, and nothing is missed in
between. The same confirmation comes after a reconnect, and heals it in the same way.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

import redis

from .waking import SLICE, Waking, drained, readable

logger = logging.getLogger("phonon_kombu.backend")

#: Messages taken in before whoever waits looks whether his result is among them.
BATCH = 200

#: The longest wait before the connection is looked after, seconds.
LONGEST_WAIT_SECONDS = 1.0

#: Who has heard nothing for so long asks whether the server is there, and gives the connection up
#: when he has heard nothing for as long again, seconds.
SILENCE_SECONDS = 15.0

E_GIVEN_UP = "The result backend could not be reached again: the application must be restarted."


#: All consumers of this process, for the child of a fork.
_consumers: weakref.WeakSet[ResultConsumer] = weakref.WeakSet()


def _after_fork() -> None:
    for consumer in list(_consumers):
        consumer.on_after_fork()


os.register_at_fork(after_in_child=_after_fork)


class ResultConsumer(Waking):
    """Waits for results over one PUB/SUB connection. Safe between threads and greenlets.

    Whoever holds the token speaks on the connection, and he alone; others who wait meanwhile wait
    for the token. What is wanted is only noted, by anybody at any time.
    """

    _connection_errors: tuple[type[Exception], ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connection_errors = self.backend.connection_errors
        #: Channels that the server sends us, or is about to.
        self.subscribed_to: set[bytes] = set()
        self._mute = threading.local()
        self._renew()
        _consumers.add(self)

    def _renew(self) -> None:
        super()._renew()
        self._token = threading.Lock()
        self._pubsub: Any = None
        #: Channels that are wanted (True) or not any more, in the order in which that was said.
        self._wishes: deque[tuple[bytes, bool]] = deque()
        self._confirmed: list[bytes] = []
        #: Since when nothing has been heard, and whether we have asked.
        self._quiet = (0.0, False)
        self._wake_r: Any = None
        self._wake_w: Any = None

    # What is wanted ------------------------------------------------------------------------

    def start(self, initial_task_id: str, **kwargs: Any) -> None:
        """Celery's name for the first :meth:`consume_from`."""
        self.consume_from(initial_task_id)

    def consume_from(self, task_id: str) -> None:
        """Note that somebody may wait for this task. Nothing is sent before he does."""
        if getattr(self._mute, "on", False):
            return
        self._wishes.append((self.backend.get_key_for_task(task_id), True))
        self._wake()

    @contextmanager
    def muted(self) -> Iterator[None]:
        """Within, this thread's :meth:`consume_from` notes nothing."""
        self._mute.on = True
        try:
            yield
        finally:
            self._mute.on = False

    def want(self, result: Any) -> None:
        """Note that somebody waits for a result, or for all members of a group."""
        members = getattr(result, "results", None)
        if members is None:
            if result._cache is None:
                self._wishes.append((self.backend.get_key_for_task(result.id), True))
        else:
            for member in members:
                self.want(member)
        self._wake()

    def cancel_for(self, task_id: str) -> None:
        """Nobody waits for this task any more.

        Called from ``AsyncResult.__del__`` at any point of any thread's work: it never waits.
        """
        key = self.backend.get_key_for_task(task_id)
        if key not in self.subscribed_to and not self._wishes:
            return
        self._wishes.append((key, False))
        token = self._token
        if token.acquire(blocking=False):
            try:
                if self._pubsub is not None:
                    with suppress(*self._connection_errors), self._unbroken():
                        self._settle()
            finally:
                token.release()

    def _done(self, task_id: str) -> None:
        self._wishes.append((self.backend.get_key_for_task(task_id), False))

    # Waiting -------------------------------------------------------------------------------

    def on_wait_for_pending(self, result: Any, **kwargs: Any) -> None:
        """Look first: what is ready needs no subscription."""
        self._look_up(result)
        if not result.on_ready.ready:
            self.want(result)

    def drain_events_until(
        self, p: Any, timeout: float | None = None, on_interval: Any = None
    ) -> Iterator[Any]:
        """Take in what comes until `p` is ready."""
        # Celery 5.6 looks only after the first wait. On stock the answer to a subscription ends it;
        # here nobody subscribes for what was found ready, and it would last a second.
        if p.ready:
            return iter(())
        return iter(super().drain_events_until(p, timeout=timeout, on_interval=on_interval))

    def drain_events(self, timeout: float | None = None) -> None:
        """Take in what has come, or wait for it; for `timeout` seconds at the most."""
        wait = LONGEST_WAIT_SECONDS if timeout is None else min(timeout, LONGEST_WAIT_SECONDS)
        token = self._token
        if not token.acquire(blocking=False):
            if self._teller == threading.get_ident():
                # It is ours: one of those whom we tell waits himself.
                self._take_in(wait)
                return
            # Somebody else reads; his next message may be ours.
            if token.acquire(timeout=max(wait, 0.001)):
                token.release()
            return
        try:
            self._take_in(wait)
        finally:
            token.release()

    def _take_in(self, seconds: float) -> None:
        # What is left from before comes first: its reader was broken off.
        if not self._heard:
            try:
                with self._unbroken():
                    self._talk(seconds)
            except self._connection_errors as error:
                logger.debug("results: %r", error)
                self._reconnect()
        self._tell()

    def _talk(self, seconds: float) -> None:
        self._settle()
        pubsub = self._pubsub
        if pubsub is None or not pubsub.connection.can_read(timeout=0):
            self._await(pubsub, seconds)
            self._settle()
            pubsub = self._pubsub
        if pubsub is None:
            return
        taken = 0
        # The connection is asked each time: a message may have brought us to drop it.
        while taken < BATCH and pubsub.connection.can_read(timeout=0):
            taken += 1
            try:
                message = pubsub.get_message(timeout=0)
            except redis.exceptions.NoPermissionError as error:
                if "'ping'" not in str(error):
                    raise
                continue  # we may not ask: an answer, too
            if message is None:
                continue
            if message["type"] == "message":
                self._heard.append((message["data"], message))
            elif message["type"] == "subscribe":
                self._confirmed.append(message["channel"])
        if taken:
            self._quiet = (monotonic(), False)
        elif self.subscribed_to and monotonic() - self._quiet[0] > SILENCE_SECONDS:
            self._ask(pubsub)
        if self._confirmed:
            self._look()

    def _ask(self, pubsub: Any) -> None:
        """The connection may have been lost without a word: is anybody there?"""
        if self._quiet[1]:
            raise redis.ConnectionError("the server says nothing")
        self._quiet = (monotonic(), True)
        pubsub.ping()

    def _await(self, pubsub: Any, seconds: float) -> None:
        """Wait until something comes or is wanted."""
        wake = self._waker()
        sock = None if pubsub is None else getattr(pubsub.connection, "_sock", None)
        if pubsub is not None and sock is None:
            return
        found = readable([one for one in (sock, wake) if one is not None], seconds)
        if wake.fileno() in found:
            with suppress(BlockingIOError):
                while wake.recv(4096):
                    pass

    def _settle(self) -> None:
        """Tell the server what is wanted, and what not any more."""
        wishes = dict(drained(self._wishes))
        wanted = {key for key, wish in wishes.items() if wish} - self.subscribed_to
        unwanted = {key for key, wish in wishes.items() if not wish} & self.subscribed_to
        # Before anything is said: if that is broken off they are said anew.
        self.subscribed_to |= wanted
        if unwanted and self._pubsub is not None:
            self.subscribed_to -= unwanted
            self._pubsub.unsubscribe(*unwanted)
        if wanted:
            if self._pubsub is None:
                self._pubsub = self.backend.new_pubsub()
                self._quiet = (monotonic(), False)
            self._subscribe(wanted)

    def _subscribe(self, keys: set[bytes]) -> None:
        channels = list(keys)
        for start in range(0, len(channels), SLICE):
            self._pubsub.subscribe(*channels[start : start + SLICE])

    def _look(self) -> None:
        """The server sends us these from now on: what came before that we fetch."""
        keys = [key for key in self._confirmed if key in self.subscribed_to]
        for start in range(0, len(keys), SLICE):
            found = self.backend.mget(keys[start : start + SLICE])
            self._heard.extend((value, None) for value in found if value)
        self._confirmed.clear()

    # Losing and regaining the connection ---------------------------------------------------

    @contextmanager
    def _unbroken(self) -> Iterator[None]:
        """Within we speak on the connection. If that is broken off, by whatever it may be, nobody
        knows what was said: we subscribe and look anew."""
        try:
            yield
        except BaseException:
            self._lose()
            raise

    def _lose(self) -> None:
        pubsub, self._pubsub = self._pubsub, None
        self._confirmed.clear()
        # In front: a wish that was added since counts for more.
        self._wishes.extendleft((key, True) for key in self.subscribed_to)
        self.subscribed_to = set()
        if pubsub is not None:
            with suppress(Exception):
                pubsub.close()

    def _reconnect(self) -> None:
        """Subscribe anew to what is wanted; as often as the retry policy says.

        Raises :exc:`RuntimeError` when the server does not come back in that time.
        """
        try:
            self.backend.ensure(self._resume, ())
        except self._connection_errors as error:
            logger.critical(E_GIVEN_UP)
            raise RuntimeError(E_GIVEN_UP) from error

    def _resume(self) -> None:
        with self._unbroken():
            self._settle()

    def stop(self) -> None:
        """Close the connection."""
        self._lose()
        for end in (self._wake_r, self._wake_w):
            if end is not None:
                end.close()
        self._wake_r = self._wake_w = None
        self._wishes.clear()

    def on_after_fork(self) -> None:
        """In a forked child: its parent waits over the connection that we have inherited."""
        pubsub = self._pubsub
        wishes = [*((key, True) for key in self.subscribed_to), *drained(self._wishes)]
        ends = (self._wake_r, self._wake_w)
        self.subscribed_to = set()
        self._renew()
        self._wishes.extend(wishes)
        for end in ends:
            if end is not None:
                end.close()
        if pubsub is not None:
            with suppress(Exception):
                pubsub.connection.disconnect()
        super().on_after_fork()

    # Waking the reader ---------------------------------------------------------------------

    def _waker(self) -> Any:
        if self._wake_r is None:
            self._wake_r, self._wake_w = socket.socketpair()
            self._wake_r.setblocking(False)
            self._wake_w.setblocking(False)
        return self._wake_r

    def _wake(self) -> None:
        if self._wake_w is not None and self._token.locked():
            with suppress(OSError):
                self._wake_w.send(b"x")
