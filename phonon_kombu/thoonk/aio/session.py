"""A session for asyncio."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Iterable
from time import monotonic
from typing import Any
from weakref import WeakSet

import redis
import redis.asyncio

from ...store import addresses
from ...store.aio import AsyncLink
from ...store.client import CONNECTION_ERRORS
from ...store.closing import AsyncClosing
from ...store.refusals import translate
from ..base import Base
from ..catalog import Catalog, Config
from ..events import Handler, Handlers
from ..membership import Membership
from ..notices import Topic
from ..session import REPLY_SECONDS
from ..steps import aperform, awaiting
from ..subscription import topics_of
from .feeds import KINDS, Feed, Job, PyQueue, Queue, SortedFeed
from .subscription import Subscription

logger = logging.getLogger("phonon_kombu.thoonk")


class Thoonk(Catalog, Membership, AsyncClosing):
    """A session with one Redis server, for one event loop. An async context manager.

    Arguments and errors as those of :class:`phonon_kombu.thoonk.Thoonk`; a `client` is a
    ``redis.asyncio.Redis``, and listening begins with the first handler.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        db: int | None = None,
        *,
        url: str | None = None,
        client: Any = None,
        prefix: str = "",
        hash_tags: bool = True,
        decode: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(prefix, hash_tags, decode, KINDS)
        self._pool = addresses.pool_of(host, port, db, url, client, options, redis.asyncio)
        self.link = AsyncLink(self.connect, self.release)
        self._handlers = Handlers()
        self._subscription: Subscription | None = None
        self._listener: asyncio.Task[None] | None = None
        #: Those that listen or have listened; not one whose handler has closed the session.
        self._listeners: WeakSet[asyncio.Task[None]] = WeakSet()
        self._starting = asyncio.Lock()

    def __getattr__(self, name: str) -> Any:
        """A registered feed type: ``await thoonk.wishlist("name")``."""
        kind = self.__dict__.get("_kinds", {}).get(name)
        if kind is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return lambda feed, config=None, **options: aperform(
            self, self._open(kind, feed, config, **options)
        )

    # Feeds -----------------------------------------------------------------------------------

    create_feed = awaiting(Catalog._create_feed)
    delete_feed = awaiting(Catalog._delete_feed)
    set_config = awaiting(Catalog._set_config)
    get_config = awaiting(Catalog._get_config)
    feed_exists = awaiting(Catalog._feed_exists)
    get_feeds = awaiting(Catalog._get_feeds)

    async def feed(
        self, name: str, config: Config | None = None, *, serializer: str | None = None
    ) -> Feed:
        """As :meth:`phonon_kombu.thoonk.Thoonk.feed`."""
        return await aperform(self, self._open(Feed, name, config, serializer=serializer))

    async def sorted_feed(
        self,
        name: str,
        config: Config | None = None,
        *,
        serializer: str | None = None,
        interop: bool | None = None,
    ) -> SortedFeed:
        """As :meth:`phonon_kombu.thoonk.Thoonk.sorted_feed`. Also called ``list``."""
        return await aperform(
            self, self._open(SortedFeed, name, config, serializer=serializer, interop=interop)
        )

    list = sorted_feed

    async def queue(
        self, name: str, config: Config | None = None, *, serializer: str | None = None
    ) -> Queue:
        """As :meth:`phonon_kombu.thoonk.Thoonk.queue`."""
        return await aperform(self, self._open(Queue, name, config, serializer=serializer))

    async def pyqueue(
        self, name: str, config: Config | None = None, *, serializer: str | None = None
    ) -> PyQueue:
        """As :meth:`phonon_kombu.thoonk.Thoonk.pyqueue`."""
        return await aperform(self, self._open(PyQueue, name, config, serializer=serializer))

    async def job(
        self, name: str, config: Config | None = None, *, serializer: str | None = None
    ) -> Job:
        """As :meth:`phonon_kombu.thoonk.Thoonk.job`."""
        return await aperform(self, self._open(Job, name, config, serializer=serializer))

    def register_feedtype(self, feedtype: str, kind: type[Base]) -> None:
        """As :meth:`phonon_kombu.thoonk.Thoonk.register_feedtype`; `kind` is a class of this room.

        From then on ``await thoonk.wishlist(name)`` gives an object of it.
        """
        self._register_feedtype(feedtype, kind, type(self))

    # Notices ---------------------------------------------------------------------------------

    async def register_handler(self, name: str, handler: Handler, feed: str | None = None) -> None:
        """As :meth:`phonon_kombu.thoonk.Thoonk.register_handler`.

        A handler is a function or a coroutine function; it is called in a task of this session.
        """
        self._handlers.add(name, handler, feed)
        try:
            async with self._starting:
                if self._listener is None and asyncio.current_task() in self._listeners:
                    return  # a handler, while the session closes: nobody would close a new one
                subscription = await self._listen()
            if asyncio.current_task() is not self._listener:
                await subscription.wait_confirmed()
        except BaseException:
            await self.remove_handler(name, handler, feed)
            raise

    async def _listen(self) -> Subscription:
        """The listener's subscription, with the topics of all handlers."""
        subscription = self._subscription
        if subscription is not None and self._listener is not None and not self._listener.done():
            await subscription.change(self._handlers.topics())
            return subscription
        subscription = await Subscription(self, self._handlers.topics()).__aenter__()
        self._subscription = subscription
        self._listener = asyncio.ensure_future(self._run(subscription))
        self._listeners.add(self._listener)
        return subscription

    async def remove_handler(self, name: str, handler: Handler, feed: str | None = None) -> None:
        """As :meth:`phonon_kombu.thoonk.Thoonk.remove_handler`."""
        self._handlers.remove(name, handler, feed)
        if self._subscription is not None:
            await self._subscription.change(self._handlers.topics())

    def listen(self, *kinds: str, feed: str | None = None) -> Subscription:
        """As :meth:`phonon_kombu.thoonk.Thoonk.listen`, for ``async with`` and ``async for``."""
        return Subscription(self, topics_of(kinds, feed))

    async def _run(self, subscription: Subscription) -> None:
        try:
            async for notice in subscription:
                for handler, arguments in self._handlers.calls(notice):
                    try:
                        outcome = handler(*arguments)
                        if inspect.isawaitable(outcome):
                            await outcome
                    except (Exception, asyncio.CancelledError) as error:
                        if isinstance(error, asyncio.CancelledError) and _cancelled():
                            raise
                        logger.exception("handler %r of %s failed", handler, notice)
        except Exception:
            logger.exception("the listener of %r ends", self)
        finally:
            await subscription.close()

    # Connections -----------------------------------------------------------------------------

    async def close(self) -> None:
        """Close all connections. Claims stay claimed; using the session again connects anew."""
        listener, self._listener = self._listener, None
        subscription, self._subscription = self._subscription, None
        self._listeners.discard(asyncio.current_task())  # type: ignore[arg-type]
        if subscription is not None:
            await subscription.close()  # a listener that is not cancelled, or not yet, ends with it
        if listener is not None and listener is not asyncio.current_task():
            listener.cancel()
            await asyncio.wait([listener])
        for feed in list(self._feeds.values()):
            try:
                await aperform(self, feed._leave())
            except CONNECTION_ERRORS as error:
                logger.debug("closing %r: %r", feed, error)
        await self.link.close()
        await self._pool.disconnect()

    aclose = close

    async def __aenter__(self) -> Thoonk:
        return self

    async def connect(self, pool: Any = None) -> Any:
        """A connection for a conversation of its own, to be given to :meth:`release` after it."""
        try:
            return await (pool or self._pool).get_connection()
        except TypeError:  # redis-py before 5.3 wants to know for what
            return await (pool or self._pool).get_connection("_")

    async def release(self, connection: Any) -> None:
        """Take a connection back."""
        await self._pool.release(connection)

    def make_lock(self) -> asyncio.Lock:
        """A lock for what several tasks use."""
        return asyncio.Lock()

    async def subscribe(self, topics: Iterable[Topic]) -> Subscription:
        """Listen to these topics."""
        return await Subscription(self, topics).__aenter__()

    async def wait(self, wake: bytes, seconds: float) -> None:
        """Wait until the key `wake` is set, for so many seconds at the most, and take it away."""
        connection = await self.connect()
        try:
            # Redis takes a timeout below a millisecond for "for ever".
            await connection.send_command("BZPOPMIN", wake, max(seconds, 0.01))
            patience = monotonic() + seconds + REPLY_SECONDS
            reply = await connection.read_response(timeout=seconds + REPLY_SECONDS)
            # None is what an empty hand looks like, and also a server that says nothing.
            if reply is None and monotonic() >= patience:
                raise redis.TimeoutError(f"no reply from {self.address}")
        except redis.ResponseError as error:
            raise translate(error) from None
        except BaseException:
            # The reply may come later: nobody may take it for the reply to another command.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await self.release(connection)


def _cancelled() -> bool:
    """Whether this task is being cancelled; not only what it has awaited, and has raised so."""
    task = asyncio.current_task()
    if task is None or not hasattr(task, "cancelling"):
        return True  # Python 3.10 does not say
    return bool(task.cancelling())
