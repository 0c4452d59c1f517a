"""Callbacks of models that raise what is no Exception, or whose event loop ends under way."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from phonon_kombu.phonon import field
from phonon_kombu.phonon.connections import Connections
from phonon_kombu.phonon.model import Model
from phonon_kombu.phonon.registry import Registry

ids = itertools.count()


class GreenletExit(BaseException):
    """What ends a greenlet."""


class Calling(Model):
    """Does in its callbacks what a test says, and notes them."""

    TTL = 3600.0
    FLUSH_SECONDS = 3600.0
    n = field.SumField()
    calls: list[Any] = []
    at_first: Callable[[], Any] = staticmethod(lambda: None)

    def on_complete(self, *args: Any) -> Any:
        self.calls.append(("complete", self.n, *args))
        return self.first()

    def on_flush(self, *args: Any) -> Any:
        self.calls.append(("flush", *args))
        return self.first()

    @classmethod
    def first(cls) -> Any:
        do, cls.at_first = cls.at_first, staticmethod(lambda: None)
        return do()


@pytest.fixture
def one(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setattr("phonon_kombu.phonon.completion.RETRY_SECONDS", 0.05)
    Calling.calls.clear()
    with Connections(url) as made:
        registry = Registry(connections=made)
        yield registry
        registry.close(5)


def raising(error: type[BaseException]) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GreenletExit])
@pytest.mark.parametrize("where", ["thread", "loop", "coroutine"])
def test_whatever_it_raises(one: Registry, where: str, error: type[BaseException]) -> None:
    """It is called again; and the loop that it was called in hears of it."""
    id, heard = next(ids), []

    async def fail() -> None:
        raise error

    Calling.at_first = staticmethod(fail if where == "coroutine" else raising(error))
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, about: heard.append(type(about["exception"])))

    async def work() -> None:
        one.register(Calling(id=id, n=1), "a")
        await one.close_async(10)

    if where == "thread":
        one.register(Calling(id=id, n=1), "a")
        one.close(10)
        loop.close()
    else:
        working = loop.create_task(work())
        while not working.done():
            try:
                loop.run_until_complete(working)
            except (SystemExit, KeyboardInterrupt) as raised:
                heard.append(type(raised))
        loop.close()
        # A task of the loop keeps what is not meant for the loop.
        assert heard == [error] or (where == "coroutine" and error is GreenletExit)
    assert Calling.calls == [("complete", 1, "a")] * 2


@pytest.mark.parametrize("in_loop", [False, True])
def test_what_is_to_be_called_after_it(one: Registry, in_loop: bool) -> None:
    Calling.at_first = staticmethod(raising(GreenletExit))

    async def work() -> None:
        for n in range(4):
            one.register(Calling(id=0, n=1), n)
        await one.close_async(10)

    if in_loop:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda loop, about: None)
        loop.run_until_complete(work())
        loop.close()
    else:
        for n in range(4):
            one.register(Calling(id=0, n=1), n)
        one.close(10)
    assert Calling.calls == [("flush", 0), ("flush", 1), ("flush", 2), ("complete", 4, 3)]


@pytest.mark.parametrize("begun", [False, True])
def test_an_event_loop_that_ends_under_way(one: Registry, begun: bool) -> None:
    """What it has not called, or not ended, is called in a thread."""
    loop, id = asyncio.new_event_loop(), next(ids)
    entered = asyncio.Event()

    async def never_ends() -> None:
        entered.set()
        await asyncio.Event().wait()

    async def work() -> None:
        if not begun:
            one.register(Calling(id=id, n=1), "a")
        one.register(Calling(id=id, n=1), "b")

    if begun:
        Calling.at_first = staticmethod(never_ends)
    loop.run_until_complete(work())
    with pytest.raises(TimeoutError):
        one.close(0.01)
    if begun:
        loop.run_until_complete(entered.wait())
    loop.close()
    one.close(10)
    expected = [("complete", 1, "b")] * 2 if begun else [("flush", "a"), ("complete", 2, "b")]
    assert Calling.calls == expected
