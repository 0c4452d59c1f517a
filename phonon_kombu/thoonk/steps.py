"""Operations as steps: written once, run by a blocking session or by an asyncio one.

An operation is a generator. It yields what it wants of the server, a :class:`Step`, and is sent
the reply; what the step raises is raised in it. :func:`perform` runs one over a connection that
blocks, :func:`aperform` over one of asyncio, and :func:`blocking` and :func:`awaiting` make methods
of them: the two faces of a feed are two lists of names.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from queue import Empty
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from ..store.client import CONNECTION_ERRORS
from ..store.patience import can_read

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="Performer")


class Performer(Protocol):
    """What has steps to perform: a session, or a feed of one."""

    @property
    def _session(self) -> Any: ...


class Step(Protocol):
    """Something that is wanted of the server."""

    def blocking(self, session: Any) -> Any:
        """Do it and return the reply."""

    async def awaiting(self, session: Any) -> Any:
        """The same in asyncio."""


Steps = Generator[Step, Any, R]


class Send:
    """All `calls` in one write: see :meth:`.Link.send`. The reply is the list of their replies.

    With `refusals` these are returned in their places and not raised.
    """

    __slots__ = ("calls", "repeat", "refusals")

    def __init__(self, *calls: Sequence[Any], repeat: bool = True, refusals: bool = False) -> None:
        self.calls = calls
        self.repeat = repeat
        self.refusals = refusals

    def blocking(self, session: Any) -> Any:
        return session.link.send(self.calls, repeat=self.repeat, raise_first=not self.refusals)

    async def awaiting(self, session: Any) -> Any:
        return await session.link.send(
            self.calls, repeat=self.repeat, raise_first=not self.refusals
        )


class Fresh:
    """The connection is alive, or made anew: what is sent next breaks only if it breaks now."""

    __slots__ = ()

    def blocking(self, session: Any) -> None:
        link = session.link
        with link.lock:
            try:
                stale = can_read(link.connection(), 0)
            except CONNECTION_ERRORS:
                stale = True
            if stale:
                link.close()

    async def awaiting(self, session: Any) -> None:
        await session.link.refresh()


class Wait:
    """Until the key `wake` is set, for so many seconds at the most; it is taken away."""

    __slots__ = ("wake", "seconds")

    def __init__(self, wake: bytes, seconds: float) -> None:
        self.wake = wake
        self.seconds = seconds

    def blocking(self, session: Any) -> None:
        session.wait(self.wake, self.seconds)

    async def awaiting(self, session: Any) -> None:
        await session.wait(self.wake, self.seconds)


class Listen:
    """To notices of some topics. The reply is a subscription, for :class:`Hear`."""

    __slots__ = ("topics",)

    def __init__(self, *topics: Any) -> None:
        self.topics = topics

    def blocking(self, session: Any) -> Any:
        return session.subscribe(self.topics)

    async def awaiting(self, session: Any) -> Any:
        return await session.subscribe(self.topics)


class Hear:
    """The next notice of a subscription; the reply is None if none comes in so many seconds.

    Without `seconds` the subscription is closed.
    """

    __slots__ = ("subscription", "seconds")

    def __init__(self, subscription: Any, seconds: float | None) -> None:
        self.subscription = subscription
        self.seconds = seconds

    def blocking(self, session: Any) -> Any:
        if self.seconds is None:
            return self.subscription.close()
        try:
            return self.subscription.get(self.seconds)
        except Empty:
            return None

    async def awaiting(self, session: Any) -> Any:
        if self.seconds is None:
            return await self.subscription.close()
        try:
            return await self.subscription.get(self.seconds)
        except Empty:
            return None


class Acquire:
    """A lock of :meth:`.Thoonk.make_lock`; whoever has it calls its ``release``."""

    __slots__ = ("lock",)

    def __init__(self, lock: Any) -> None:
        self.lock = lock

    def blocking(self, session: Any) -> None:
        self.lock.acquire()

    async def awaiting(self, session: Any) -> None:
        await self.lock.acquire()


class Join:
    """Those who are alive, before the first claim of jobs of `feed`. The reply is a heart."""

    __slots__ = ("feed",)

    def __init__(self, feed: str) -> None:
        self.feed = feed

    def blocking(self, session: Any) -> Any:
        return session.join(self.feed)

    async def awaiting(self, session: Any) -> Any:
        return await asyncio.to_thread(session.join, self.feed)


class Part:
    """Give back what :class:`Join` has given."""

    __slots__ = ("heart",)

    def __init__(self, heart: Any) -> None:
        self.heart = heart

    def blocking(self, session: Any) -> None:
        session.leave(self.heart)

    async def awaiting(self, session: Any) -> None:
        await asyncio.to_thread(session.leave, self.heart)


class Sleep:
    """For so many seconds."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def blocking(self, session: Any) -> None:
        time.sleep(self.seconds)

    async def awaiting(self, session: Any) -> None:
        await asyncio.sleep(self.seconds)


def send(*calls: Sequence[Any], repeat: bool = True) -> Steps[list[Any]]:
    """:class:`Send`, as steps."""
    replies: list[Any] = yield Send(*calls, repeat=repeat)
    return replies


def once(call: Sequence[Any], refusal: type[Exception]) -> Steps[Any]:
    """The reply to a call that changes something and that is refused when it was made before.

    If the first reply is lost and the repeat is refused with `refusal`, then because the first was
    carried out: that is no error, and the reply is None. (Over a connection that was closed while
    nobody used it nothing would have been carried out.)
    """
    yield Fresh()
    try:
        return (yield Send(call, repeat=False))[0]
    except CONNECTION_ERRORS:
        try:
            return (yield Send(call))[0]
        except refusal:
            return None


def perform(session: Any, steps: Steps[R]) -> R:
    """Run an operation on a blocking session."""
    try:
        step = next(steps)
        while True:
            try:
                reply = step.blocking(session)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(reply)
    except StopIteration as end:
        result: R = end.value
        return result


async def aperform(session: Any, steps: Steps[R]) -> R:
    """Run an operation on a session of asyncio."""
    try:
        step = next(steps)
        while True:
            try:
                reply = await step.awaiting(session)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(reply)
    except StopIteration as end:
        result: R = end.value
        return result


def blocking(operation: Callable[Concatenate[S, P], Steps[R]]) -> Callable[Concatenate[S, P], R]:
    """The operation as a method that blocks."""

    @functools.wraps(operation)
    def method(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return perform(self._session, operation(self, *args, **kwargs))

    method.__name__ = operation.__name__.lstrip("_")
    return method


def awaiting(
    operation: Callable[Concatenate[S, P], Steps[R]],
) -> Callable[Concatenate[S, P], Awaitable[R]]:
    """The operation as a method to be awaited."""

    @functools.wraps(operation)
    async def method(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await aperform(self._session, operation(self, *args, **kwargs))

    method.__name__ = operation.__name__.lstrip("_")
    return method
