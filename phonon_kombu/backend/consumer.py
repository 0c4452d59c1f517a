"""How a client waits for results: one connection for all, subscribed to what is waited for.

Celery's Redis backend subscribes when a task is published. This one does so when somebody waits,
and looks again once the server has confirmed: what came before is found, and nothing is missed in
between. The same confirmation comes after a reconnect, and heals it in the same way.
"""

from __future__ import annotations

import logging
import select
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from celery import states
from celery.backends.asynchronous import BaseResultConsumer

logger = logging.getLogger("phonon_kombu.backend")

T = TypeVar("T")

#: Channels of one SUBSCRIBE, and keys of one look.
SLICE = 200

#: Messages taken in before whoever waits looks whether his result is among them.
BATCH = 200

#: The longest wait before the connection is looked after, seconds.
LONGEST_WAIT_SECONDS = 1.0

E_GIVEN_UP = "The result backend could not be reached again: the application must be restarted."


class ResultConsumer(BaseResultConsumer):
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

    def _renew(self) -> None:
        self._token = threading.Lock()
        self._pubsub: Any = None
        #: Channels that are wanted (True) or not any more, in the order in which that was said.
        self._wishes: deque[tuple[bytes, bool]] = deque()
        self._confirmed: list[bytes] = []
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
                    self._settle()
            except self._connection_errors:
                self._lose()
            finally:
                token.release()

    def on_state_change(self, meta: dict[str, Any], message: Any) -> None:
        """A task has a new state: tell those who wait for it."""
        super().on_state_change(meta, message)
        if meta["status"] in states.READY_STATES:
            self._wishes.append((self.backend.get_key_for_task(meta["task_id"]), False))

    # Waiting -------------------------------------------------------------------------------

    def on_wait_for_pending(self, result: Any, **kwargs: Any) -> None:
        """Look first: what is ready needs no subscription."""
        for meta in self._known(result):
            self.on_state_change(meta, None)
            if meta["status"] in (states.SUCCESS, states.FAILURE):
                self._drop_message(meta["task_id"])
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

    def drain_events(self, timeout: float | None = None) -> None:
        """Take in what has come, or wait for it; for `timeout` seconds at the most."""
        wait = LONGEST_WAIT_SECONDS if timeout is None else min(timeout, LONGEST_WAIT_SECONDS)
        token = self._token
        if not token.acquire(blocking=False):
            # Somebody else reads; his next message may be ours.
            if token.acquire(timeout=max(wait, 0.001)):
                token.release()
            return
        try:
            try:
                self._talk(wait)
            except self._connection_errors as error:
                logger.debug("results: %r", error)
                self._lose()
                self._reconnect()
        finally:
            token.release()

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
            message = pubsub.get_message(timeout=0)
            taken += 1
            if message is None:
                continue
            if message["type"] == "message":
                self.on_state_change(self.backend.decode_result(message["data"]), message)
            elif message["type"] == "subscribe":
                self._confirmed.append(message["channel"])
        if self._confirmed:
            self._look()

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
        if unwanted and self._pubsub is not None:
            self.subscribed_to -= unwanted
            self._pubsub.unsubscribe(*unwanted)
        if wanted:
            self.subscribed_to |= wanted
            if self._pubsub is None:
                self._pubsub = self.backend.client.pubsub()
            self._subscribe(wanted)

    def _subscribe(self, keys: set[bytes]) -> None:
        channels = list(keys)
        for start in range(0, len(channels), SLICE):
            self._pubsub.subscribe(*channels[start : start + SLICE])

    def _look(self) -> None:
        """The server sends us these from now on: what came before that we fetch."""
        confirmed, self._confirmed = self._confirmed, []
        keys = [key for key in confirmed if key in self.subscribed_to]
        for start in range(0, len(keys), SLICE):
            for value in self.backend.mget(keys[start : start + SLICE]):
                if value:
                    self.on_state_change(self.backend.decode_result(value), None)

    # Losing and regaining the connection ---------------------------------------------------

    def _lose(self) -> None:
        pubsub, self._pubsub = self._pubsub, None
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
            self._lose()
            logger.critical(E_GIVEN_UP)
            raise RuntimeError(E_GIVEN_UP) from error

    def _resume(self) -> None:
        try:
            self._settle()
        except self._connection_errors:
            self._lose()
            raise

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
        pubsub, wanted = self._pubsub, self.subscribed_to
        ends = (self._wake_r, self._wake_w)
        self.subscribed_to = set()
        self._renew()
        self._wishes.extend((key, True) for key in wanted)
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
