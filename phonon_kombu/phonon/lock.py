"""Locks: one holder at a time, among all processes, for a time.

The models of this package need none. They are for what cannot be expressed as a fold.
"""

from __future__ import annotations

import asyncio
import math
import random
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

from ..errors import AlreadyLocked, ConfigurationError, LockError, LockLost
from ..store.client import CONNECTION_ERRORS, fork_epoch
from ..store.phonon_keys import lock_key
from ..store.scripts import load
from .arguments import checked_name
from .connections import Connections, current

#: How long a holder may keep a lock without extending it, seconds, unless told otherwise.
DEFAULT_TTL_SECONDS = 30.0

#: The shortest and the longest sleep between two tries, seconds.
FIRST_SLEEP_SECONDS = 0.005
LONGEST_SLEEP_SECONDS = 0.25

#: The longest time that a lock is given for, seconds: a year.
LONGEST_TTL_SECONDS = 366 * 24 * 3600.0

#: Who holds a lock within this process: the epoch of the last fork, a thread, a task in it.
Holder = tuple[int, int, int]


@dataclass
class Held:
    """A lock in hand: its token, and how often it was acquired."""

    token: bytes
    depth: int = 1


class Lock:
    """A lock by name. A context manager, also for ``async with``; safe between threads.

    It is held by the thread (or asyncio task) that acquired it, under a random token, and only
    with that token can it be extended or released. It always has an end: a holder that dies
    delays the others by its TTL at the most, and one that takes longer must extend it in time.

    ::

        with Lock("invoices", ttl_seconds=10):
            ...

    Arguments:
        name: what is locked, any text.
        ttl_seconds: how long it is held without :meth:`extend`.
        timeout_seconds: how long ``with`` waits for it; None: for ever.
        reentrant: the holder may acquire it again, also through another Lock object of the same
            name; it is free when it was released as often.
        connections: where it lives; by default what :func:`.connections.connect` connected.

    Redis keys:
        <prefix>lock:{<name>}: STRING, the token of its holder; ends with its time.

    Raises :exc:`~phonon_kombu.errors.AlreadyLocked` of ``with``, if it was not free for
    `timeout_seconds`, and :exc:`~phonon_kombu.errors.LockLost` at its end if its time was over.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError` for times that make no sense; every
    method raises redis-py's ``ConnectionError`` and ``TimeoutError`` when the server is away.
    """

    def __init__(
        self,
        name: str,
        ttl_seconds: float = DEFAULT_TTL_SECONDS,
        timeout_seconds: float | None = None,
        *,
        reentrant: bool = False,
        connections: Connections | None = None,
    ) -> None:
        self.name = checked_name(name)
        self.ttl_seconds = checked("ttl_seconds", ttl_seconds)
        self.timeout_seconds = timeout_seconds
        self.reentrant = reentrant
        self._connections = current() if connections is None else connections
        self._host = self._connections.host_of(name)
        self._key = lock_key(name, self._connections.prefix)
        shared = _reentrant.setdefault(self._connections, {})
        self._held: dict[Any, Held] = shared.setdefault(self._key, {}) if reentrant else {}

    def __repr__(self) -> str:
        return f"<Lock {self.name!r}>"

    def acquire(self, blocking: bool = True, timeout_seconds: float | None = None) -> bool:
        """Take the lock; whether it is ours now.

        Arguments:
            blocking: False tries once.
            timeout_seconds: how long to try; None: for ever.
        """
        me = holder()
        if self._again(me):
            return True
        token = secrets.token_hex(16).encode()
        for sleep_seconds in tries(blocking, timeout_seconds):
            if sleep_seconds:
                time.sleep(sleep_seconds)
            if self._try(me, token):
                return True
        return False

    async def acquire_async(
        self, blocking: bool = True, timeout_seconds: float | None = None
    ) -> bool:
        """The same in a coroutine, which lets others run between two tries."""
        me = holder()
        if self._again(me):
            return True
        token = secrets.token_hex(16).encode()
        for sleep_seconds in tries(blocking, timeout_seconds):
            if sleep_seconds:
                await asyncio.sleep(sleep_seconds)
            if self._try(me, token):
                return True
        return False

    def release(self) -> None:
        """Give the lock back.

        Raises :exc:`~phonon_kombu.errors.LockLost` if its time was over,
        :exc:`~phonon_kombu.errors.LockError` if the caller does not hold it.
        """
        me = holder()
        held = self._mine(me)
        held.depth -= 1
        if held.depth:
            return
        del self._held[me]
        call = (load("lock/release").prepare(None, lock=self._key), (held.token,))
        try:
            released = self._host.link.send((call,))[0]
        except CONNECTION_ERRORS:
            # Whether the first try came through nobody can tell: afterwards it is not ours.
            self._host.link.send((call,), repeat=True)
            return
        if not released:
            raise LockLost(f"the lock {self.name!r} was released after its time was over")

    def extend(self, ttl_seconds: float | None = None) -> None:
        """Hold the lock for so much longer, from now on (default: its TTL).

        Raises :exc:`~phonon_kombu.errors.LockLost` if its time was over,
        :exc:`~phonon_kombu.errors.LockError` if the caller does not hold it.
        """
        held = self._mine(holder())
        seconds = self.ttl_seconds if ttl_seconds is None else checked("ttl_seconds", ttl_seconds)
        script = load("lock/extend").prepare(None, lock=self._key)
        if not self._host.link.run(script, (held.token, milliseconds(seconds))):
            raise LockLost(f"the lock {self.name!r} is not ours any more: its time was over")

    def locked(self) -> bool:
        """Whether anybody holds the lock."""
        return bool(self._host.link.command(b"EXISTS", self._key))

    def owned(self) -> bool:
        """Whether the caller holds it, and its time is not over."""
        held = self._held.get(holder())
        return held is not None and self._host.link.command(b"GET", self._key) == held.token

    def remaining_seconds(self) -> float:
        """How long its holder may still keep it; 0.0 if nobody holds it."""
        return max(0, int(self._host.link.command(b"PTTL", self._key))) / 1000

    def __enter__(self) -> Lock:
        if not self.acquire(timeout_seconds=self.timeout_seconds):
            raise self._refused()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave(error)

    async def __aenter__(self) -> Lock:
        if not await self.acquire_async(timeout_seconds=self.timeout_seconds):
            raise self._refused()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave(error)

    # ----------------------------------------------------------------------------------------

    def _leave(self, error: BaseException | None) -> None:
        try:
            self.release()
        except LockError:
            if error is None:  # else the block's own error says more
                raise

    def _refused(self) -> AlreadyLocked:
        return AlreadyLocked(
            f"the lock {self.name!r} was not free for {self.timeout_seconds:g} seconds"
        )

    def _again(self, me: Holder) -> bool:
        held = self._held.get(me) if self.reentrant else None
        if held is None:
            return False
        if not self._host.link.run(
            load("lock/extend").prepare(None, lock=self._key),
            (held.token, milliseconds(self.ttl_seconds)),
        ):
            del self._held[me]
            raise LockLost(f"the lock {self.name!r} was acquired again after its time was over")
        held.depth += 1
        return True

    def _try(self, me: Holder, token: bytes) -> bool:
        script = load("lock/acquire").prepare(None, lock=self._key)
        if self._host.link.run(script, (token, milliseconds(self.ttl_seconds))):
            self._held[me] = Held(token)
            return True
        return False

    def _mine(self, me: Holder) -> Held:
        held = self._held.get(me)
        if held is None:
            raise LockError(f"the lock {self.name!r} is not held by this thread or task")
        return held


#: Re-entrant locks in hand, by the connections that they live at.
_reentrant: WeakKeyDictionary[Connections, dict[bytes, dict[Any, Held]]] = WeakKeyDictionary()


def holder() -> Holder:
    """Who asks."""
    try:
        task = id(asyncio.current_task())
    except RuntimeError:  # no loop runs in this thread
        task = 0
    return fork_epoch(), threading.get_ident(), task


def tries(blocking: bool, timeout_seconds: float | None) -> Iterator[float]:
    """How long to sleep before each try, in seconds; the first is at once."""
    yield 0.0
    if not blocking:
        return
    until = math.inf if timeout_seconds is None else time.monotonic() + timeout_seconds
    longest = FIRST_SLEEP_SECONDS
    while (left := until - time.monotonic()) > 0:
        # Not in step with the others that wait.
        yield min(left, longest * random.uniform(0.5, 1.0))
        longest = min(longest * 1.5, LONGEST_SLEEP_SECONDS)


def checked(name: str, value: Any) -> float:
    """A time that a caller gave, checked."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 < value <= LONGEST_TTL_SECONDS
    ):
        raise ConfigurationError(
            f"{name}={value!r}: it must be a positive number of seconds, a year at the most"
        )
    return float(value)


def milliseconds(seconds: float) -> bytes:
    """The same in milliseconds, at least one."""
    return b"%d" % max(1, math.ceil(seconds * 1000))
