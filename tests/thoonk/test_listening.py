"""Listeners whose connection breaks, or who are closed, at an awkward moment; in both faces."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from queue import Empty
from typing import Any

import pytest
import redis

from phonon_kombu.thoonk import Thoonk, aio, subscription
from tests.servers import RedisServer, wait_for

from .lossy import LossyLine
from .test_events import Told

#: Of the fixture ``listeners``.
Listeners = Callable[[], list[Any]]


@pytest.mark.parametrize("times", [1, 2])
def test_handlers_are_registered_over_a_broken_connection(
    thoonk: Thoonk, other: Thoonk, times: int
) -> None:
    """Whatever becomes of what is said: the listener finds out, tells of a gap, and hears on."""
    told, done = Told(), threading.Event()

    def on_create(feed: str) -> None:
        thoonk._listener._subscription._connection._sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        for kind in ("publish", "retract")[:times]:
            thoonk.register_handler(kind, told(kind))
        done.set()

    thoonk.register_handler("gap", told("gap"))
    thoonk.register_handler("create", on_create)
    feed = other.feed("f")
    assert done.wait(10)
    wait_for(lambda: told)
    feed.publish("x", id="a")
    wait_for(lambda: len(told) == 2)
    assert [entry[0] for entry in told] == ["gap", "publish"]


def test_the_same_in_asyncio(url: str, other: Thoonk) -> None:
    async def body(times: int) -> None:
        told, done = Told(), asyncio.Event()
        async with aio.Thoonk(url) as mine:

            async def on_create(feed: str) -> None:
                mine._subscription._connection._writer.transport.abort()  # type: ignore[union-attr]
                await asyncio.sleep(0.01)
                for kind in ("publish", "retract")[:times]:
                    await mine.register_handler(kind, told(kind))
                done.set()

            await mine.register_handler("gap", told("gap"))
            await mine.register_handler("create", on_create)
            feed = await asyncio.to_thread(other.feed, f"f{times}")
            await done.wait()
            await until(lambda: told)
            await asyncio.to_thread(feed.publish, "x", "a")
            await until(lambda: len(told) == 2)
            assert [entry[0] for entry in told] == ["gap", "publish"]

    for times in (1, 2):
        asyncio.run(asyncio.wait_for(body(times), 20))


def test_topics_that_are_exchanged_bring_nothing_twice(
    thoonk: Thoonk, other: Thoonk, redis_server: RedisServer
) -> None:
    """One handler comes for all feeds and goes; that of this feed hears each item once."""
    heard: list[str] = []
    stop = threading.Event()
    published: list[str] = []

    def publish() -> None:
        feed = other.feed("f")
        while not stop.is_set():
            published.append(feed.publish("x"))

    thoonk.register_handler("publish", lambda feed, item, id: heard.append(id), feed="f")
    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        wait_for(lambda: heard)
        for _ in range(60):
            thoonk.register_handler("publish", print_nothing)
            thoonk.remove_handler("publish", print_nothing)
    finally:
        stop.set()
        publisher.join()
    wait_for(lambda: heard[-1:] == published[-1:])
    if redis_server.is_fake:  # it lets others come between the commands of one write
        heard = list(dict.fromkeys(heard))
    assert heard == published


def print_nothing(*given: Any) -> None:
    """A handler."""


def test_closing_while_it_connects_again(thoonk: Thoonk, listeners: Listeners) -> None:
    """It is over at once, and no connection is left."""
    notices = thoonk.listen("publish")
    notices._connection._sock.shutdown(socket.SHUT_RDWR)
    connect = thoonk.connect

    def close_first(pool: Any) -> Any:
        notices.close()
        return connect(pool)

    thoonk.connect = close_first  # type: ignore[method-assign]
    started = time.monotonic()
    with pytest.raises(Empty, match="closed"):
        notices.get()
    assert time.monotonic() - started < 5
    wait_for(lambda: not listeners())


def test_closing_while_it_connects_again_in_asyncio(url: str, listeners: Listeners) -> None:
    async def body() -> None:
        async with aio.Thoonk(url) as mine:
            notices = await mine.listen("publish").__aenter__()
            notices._connection._writer.transport.abort()
            connect = mine.connect

            async def close_first(pool: Any) -> Any:
                await notices.close()
                return await connect(pool)

            mine.connect = close_first  # type: ignore[method-assign]
            with pytest.raises(Empty, match="closed"):
                await notices.get()
            live = (await mine.feed("f")).live()
            await live.close()
            with pytest.raises(Empty, match="closed"):
                await live.get()
            await until(lambda: not listeners())

    asyncio.run(asyncio.wait_for(body(), 10))


def test_what_is_not_confirmed_is_said(
    thoonk: Thoonk, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a handler keeps the listener nobody knows whether the server will tell."""
    told, go = Told(), threading.Event()
    thoonk.register_handler("create", lambda feed: go.wait(10))
    thoonk.feed("f")
    monkeypatch.setattr(subscription, "PATIENCE_SECONDS", 0.1)
    try:
        with pytest.raises(redis.TimeoutError, match="confirmed"):
            thoonk.register_handler("publish", told("publish"))
    finally:
        go.set()
    monkeypatch.undo()

    async def body() -> None:
        going = asyncio.Event()

        async def keep(feed: str) -> None:
            await going.wait()

        async with aio.Thoonk(url) as mine:
            await mine.register_handler("create", keep)
            await mine.feed("g")
            monkeypatch.setattr(aio.subscription, "PATIENCE_SECONDS", 0.1)
            with pytest.raises(redis.TimeoutError, match="confirmed"):
                await mine.register_handler("publish", told("publish"))
            going.set()

    asyncio.run(asyncio.wait_for(body(), 10))
    monkeypatch.undo()
    thoonk.register_handler("retract", told("retract"))
    feed = thoonk.feed("f")
    feed.retract(feed.publish("x", id="a"))
    wait_for(lambda: told == [("retract", "f", "a")])


def test_gaps_alone(far: Thoonk, thoonk: Thoonk, line: LossyLine) -> None:
    """Whoever asks for nothing else is told of nothing else."""
    with far.listen("gap") as notices:
        thoonk.feed("f")
        with pytest.raises(Empty):
            notices.get(timeout=0.05)
        line.cut()
        assert notices.get(5).kind == "gap"


def test_handlers_registered_together_have_one_listener(
    url: str, other: Thoonk, listeners: Listeners, redis_server: RedisServer
) -> None:
    told = Told()

    async def body() -> None:
        async with aio.Thoonk(url) as mine:
            kinds = ("publish", "retract", "edit")
            await asyncio.gather(*(mine.register_handler(kind, told(kind)) for kind in kinds))
            if not redis_server.is_fake:  # it does not tell who listens
                assert len(listeners()) == 1
            feed = await asyncio.to_thread(other.feed, "f")
            await asyncio.to_thread(lambda: feed.retract(feed.publish("x", id="a")))
            await until(lambda: len(told) >= 2)
            assert [entry[0] for entry in told] == ["publish", "retract"]
        await until(lambda: not listeners())

    asyncio.run(asyncio.wait_for(body(), 20))


@pytest.mark.parametrize("when", ["in a handler", "reconnecting"])
def test_an_asyncio_session_is_closed(url: str, listeners: Listeners, when: str) -> None:
    """Its listener ends, whatever it is doing, and its connection is closed."""

    async def body() -> None:
        mine, done = aio.Thoonk(url), asyncio.Event()

        async def close(*given: Any) -> None:
            await mine.close()
            done.set()

        await mine.register_handler("create", close)
        listener = mine._listener
        assert listener is not None
        if when == "in a handler":
            await mine.feed("f")
        else:
            connect, connecting = mine.connect, asyncio.Event()

            async def swallow(pool: Any = None) -> Any:
                if pool is not None:
                    connecting.set()
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.sleep(5)
                return await connect(pool)

            mine.connect = swallow  # type: ignore[method-assign]
            mine._subscription._connection._writer.transport.abort()  # type: ignore[union-attr]
            await connecting.wait()
            await asyncio.wait_for(close(), 5)
        await asyncio.wait_for(done.wait(), 5)
        await asyncio.wait_for(asyncio.wait([listener]), 5)
        await until(lambda: not listeners())
        await mine.close()

    asyncio.run(asyncio.wait_for(body(), 20))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="who is cancelled cannot be told")
def test_a_handler_that_is_cancelled_is_one_that_fails(
    url: str, other: Thoonk, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        told = Told()
        async with aio.Thoonk(url) as mine:

            async def cancelled(feed: str) -> None:
                raise asyncio.CancelledError

            await mine.register_handler("create", cancelled)
            await mine.register_handler("create", told("create"))
            await asyncio.to_thread(other.feed, "f")
            await until(lambda: told)

    asyncio.run(asyncio.wait_for(body(), 10))
    assert "CancelledError" in caplog.text


async def until(condition: Any) -> None:
    """Give way until it comes true."""
    while not condition():
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("closer", ["another thread", "the handler"])
def test_a_handler_registers_another_while_the_session_closes(
    thoonk: Thoonk, other: Thoonk, listeners: Listeners, closer: str
) -> None:
    """It stays registered, and no thread listens on for a session that is closed.

    A handler that has closed the session itself and goes on with it is heard again, as is anybody.
    """
    called, go, done, told = threading.Event(), threading.Event(), threading.Event(), Told()

    def on_publish(feed: str, item: str, id: str) -> None:
        if closer == "the handler":
            thoonk.close()
        called.set()
        assert go.wait(10)
        thoonk.register_handler("retract", told("retract"))
        done.set()

    thoonk.register_handler("publish", on_publish)
    feed = other.feed("f")
    feed.publish("x", id="a")
    assert called.wait(10)
    if closer == "the handler":
        go.set()
        assert done.wait(10)
    else:
        closing = threading.Thread(target=thoonk.close)
        closing.start()
        wait_for(lambda: thoonk._listener._thread is None)
        go.set()
        closing.join(10)
        assert done.is_set() and not listeners()
        thoonk.remove_handler("publish", on_publish)
        thoonk.register_handler("create", told("create"))
    feed.retract("a")
    wait_for(lambda: told == [("retract", "f", "a")])


def test_the_same_while_an_asyncio_session_closes(
    url: str, other: Thoonk, listeners: Listeners
) -> None:
    """Its handler is cancelled; this one goes on nevertheless."""

    async def main() -> None:
        told = Told()
        called = asyncio.Event()
        mine = aio.Thoonk(url)

        async def on_publish(feed: str, item: str, id: str) -> None:
            called.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(10)
            await mine.register_handler("retract", told("retract"))

        await mine.register_handler("publish", on_publish)
        await asyncio.to_thread(lambda: other.feed("f").publish("x", id="a"))
        await called.wait()
        await asyncio.wait_for(mine.close(), 10)
        assert not await asyncio.to_thread(listeners)
        await mine.register_handler("create", told("create"))
        await asyncio.to_thread(lambda: other.feed("f").retract("a"))
        await until(lambda: told)
        assert told == [("retract", "f", "a")]
        await mine.close()

    asyncio.run(asyncio.wait_for(main(), 60))
