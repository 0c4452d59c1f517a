"""A session: the connection to one Redis, and the way to its feeds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import Any

import redis

from ..store import addresses
from ..store.client import CONNECTION_ERRORS, Link
from ..store.closing import Closing
from ..store.patience import can_read
from ..store.refusals import translate
from .base import Base
from .catalog import Catalog, Config
from .events import Handler, Listener
from .feed import Feed
from .job import Job
from .membership import Membership
from .notices import Topic
from .queue import PyQueue, Queue
from .sorted_feed import SortedFeed
from .steps import blocking, perform
from .subscription import Subscription, topics_of

logger = logging.getLogger("phonon_kombu.thoonk")

#: Seconds in which the reply to a command must come when its own wait is over.
REPLY_SECONDS = 10.0

#: Type of a feed -> its class.
KINDS = {kind.TYPE: kind for kind in (Feed, SortedFeed, Queue, PyQueue, Job)}


class Thoonk(Catalog, Membership, Closing):
    """A session with one Redis server. A context manager; safe between threads and after a fork.

    Name the server in one of three ways::

        Thoonk("phonon://user:password@host:6379/0")    # or redis://, phonons://, ...
        Thoonk("host", 6379, 0, password="...")         # what redis.Redis takes
        Thoonk(client=redis.Redis(...))                 # TLS, credential providers, ...

    It connects when it is first used; nothing is asked of the server before. A `client` gives
    its address and credentials only: the session opens connections of its own.

    Arguments:
        host: a host name (default ``localhost``), or a URL.
        port: default 6379.
        db: number of the database, default 0.
        url: the same as a URL in `host`: ``phonon://``, ``phonons://`` (TLS, the certificate
            verified), ``phonon+socket:///path``, ``phonon+embedded://[directory]``,
            ``phonon+sentinel://host1;phonon+sentinel://host2?master_name=...``; also
            ``redis://``, ``rediss://``, ``unix://``.
        client: a ``redis.Redis``.
        prefix: what all keys begin with: Celery's ``global_keyprefix``.
        hash_tags: False writes key names without braces, exactly as Thoonk's contract has them.
            Must be the same for all who share the queues.
        decode: items and results are ``str`` (UTF-8; other bytes as surrogate escapes, so that
            nothing is lost); False leaves them ``bytes``. Put takes both.
        listen: connect at once, and listen for notices. Without it the first handler does so.
        options: further arguments of ``redis.Redis``, with `host`.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError` for an address that makes no sense,
    :exc:`~phonon_kombu.errors.EmbeddedServerError`.

    All methods of a session and of what it gives raise, beside what they name: redis-py's
    ``ConnectionError`` and ``TimeoutError`` when the server cannot be reached or goes away, and
    the subclasses of :exc:`~phonon_kombu.errors.ServerError`.
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
        listen: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(prefix, hash_tags, decode, KINDS)
        self._pool = addresses.pool_of(host, port, db, url, client, options, redis)
        self.link = Link(self.connect, self.release)
        self._listener = Listener(self)
        if listen:
            self._listener.start()

    def __getattr__(self, name: str) -> Any:
        """A registered feed type: ``thoonk.wishlist("name")``."""
        kind = self.__dict__.get("_kinds", {}).get(name)
        if kind is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return lambda feed, config=None, **options: perform(
            self, self._open(kind, feed, config, **options)
        )

    # Feeds -----------------------------------------------------------------------------------

    create_feed = blocking(Catalog._create_feed)
    delete_feed = blocking(Catalog._delete_feed)
    set_config = blocking(Catalog._set_config)
    get_config = blocking(Catalog._get_config)
    feed_exists = blocking(Catalog._feed_exists)
    get_feeds = blocking(Catalog._get_feeds)

    def feed(
        self, name: str, config: Config | None = None, *, serializer: str | None = None
    ) -> Feed:
        """The feed `name`, made if it does not exist.

        The same object every time: what one part of a program claims, another may finish.

        Arguments:
            config: as in :meth:`create_feed`; a feed that exists is configured anew by it.
            serializer: of kombu's registry, such as ``json`` or ``msgpack``: items are Python
                data. It is noted in the feed's configuration, and whoever opens the feed uses it;
                but for ``pickle``, which everybody has to name. Default: what the feed has, else
                none: items are text or bytes.

        Raises :exc:`~phonon_kombu.errors.ConfigurationError` if `name` is a feed of another type
        or serializer, :exc:`~phonon_kombu.errors.ServerTooOld`,
        :exc:`~phonon_kombu.errors.LayoutMismatch`.
        """
        return perform(self, self._open(Feed, name, config, serializer=serializer))

    def sorted_feed(
        self,
        name: str,
        config: Config | None = None,
        *,
        serializer: str | None = None,
        interop: bool | None = None,
    ) -> SortedFeed:
        """The sorted feed `name`, made if it does not exist. Also called ``list``.

        As :meth:`feed`.

        Arguments:
            interop: True keeps the order in a LIST, as Thoonk's contract has it, for peers of
                another kind; moves then take time with the feed's length. Decided when the feed is
                made; default: what the feed has, else False.
        """
        return perform(
            self, self._open(SortedFeed, name, config, serializer=serializer, interop=interop)
        )

    list = sorted_feed

    def queue(
        self, name: str, config: Config | None = None, *, serializer: str | None = None
    ) -> Queue:
        """The simple queue `name`, made if it does not exist. As :meth:`feed`."""
        return perform(self, self._open(Queue, name, config, serializer=serializer))

    def pyqueue(
        self, name: str, config: Config | None = None, *, serializer: str | None = None
    ) -> PyQueue:
        """The queue of Python data `name`, made if it does not exist. As :meth:`feed`.

        Its serializer is JSON unless it is made with another one.
        """
        return perform(self, self._open(PyQueue, name, config, serializer=serializer))

    def job(self, name: str, config: Config | None = None, *, serializer: str | None = None) -> Job:
        """The job feed `name`, made if it does not exist. As :meth:`feed`.

        A Celery queue is one, without a serializer of ours. With one, results go through it too.
        """
        return perform(self, self._open(Job, name, config, serializer=serializer))

    def register_feedtype(self, feedtype: str, kind: type[Base]) -> None:
        """A feed type of your own: ``thoonk.register_feedtype("wishlist", Wishlist)``.

        From then on ``thoonk.wishlist(name)`` gives an object of it, and ``create_feed`` knows it.

        Arguments:
            feedtype: what it is called, here and in a feed's configuration.
            kind: a class derived from :class:`.Feed`, :class:`.SortedFeed`, :class:`.Queue`,
                :class:`.PyQueue` or :class:`.Job`.

        Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
        """
        self._register_feedtype(feedtype, kind, type(self))

    # Notices ---------------------------------------------------------------------------------

    def register_handler(self, name: str, handler: Handler, feed: str | None = None) -> None:
        """Have a function called whenever something happens, in whichever process it does.

        It is called in a thread of this session, and handlers wait for each other: what takes long
        belongs elsewhere. What a handler raises is logged. When this returns, the server has
        confirmed that it will tell; ``TimeoutError`` if that takes more than ten seconds, because
        of a handler that is at work, say: then nothing is registered.

        Arguments:
            name: one of these, or the same with ``_notice`` behind it; the handler is given

                ``create``, ``delete``, ``config``: feed name; ``publish``, ``edit``: feed name,
                item, id; ``retract``: feed name, id; ``position``: feed name, id, position;
                ``finish``: feed name, id, result; ``stall``: feed name, id, reason; ``retry``,
                ``cancel``: feed name, id; ``gap``: seconds for which the connection was lost, and
                nothing heard. A job is cancelled by a session, by an operator, or by a worker that
                requeues its message; one that comes back from a dead process is not announced.
            feed: only of this feed; default: of all.

        Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
        """
        self._listener.register(name, handler, feed)

    def remove_handler(self, name: str, handler: Handler, feed: str | None = None) -> None:
        """Call a function no more; arguments as it was registered.

        Raises :exc:`~phonon_kombu.errors.ConfigurationError` if it was not.
        """
        self._listener.remove(name, handler, feed)

    def listen(self, *kinds: str, feed: str | None = None) -> Subscription:
        """Notices as they come, to be iterated over: of these kinds, or of all.

        ::

            with thoonk.listen("publish", "retract", feed="news") as notices:
                for notice in notices:
                    print(notice.kind, notice.id, notice.item)

        Arguments:
            kinds: as in :meth:`register_handler`; ``gap`` comes unasked, and alone if only that
                is named.
            feed: only of this feed; default: of all.

        Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
        """
        return self.subscribe(topics_of(kinds, feed))

    def close(self) -> None:
        """Close all connections. Claims stay claimed; using the session again connects anew."""
        self._listener.close()
        for feed in list(self._feeds.values()):
            try:
                perform(self, feed._leave())
            except CONNECTION_ERRORS as error:
                logger.debug("closing %r: %r", feed, error)
        self.link.close()
        self._pool.disconnect()

    # For the feeds of this session ---------------------------------------------------------

    def connect(self, pool: Any = None) -> Any:
        """A connection for a conversation of its own, to be given to :meth:`release` after it."""
        return addresses.connection_of(pool or self._pool)

    def release(self, connection: Any) -> None:
        """Take a connection back."""
        self._pool.release(connection)

    def wait(self, wake: bytes, seconds: float) -> None:
        """Wait until the key `wake` is set, for so many seconds at the most, and take it away.

        The wait has a connection of its own, so that other threads' commands do not wait too.
        """
        connection = self.connect()
        try:
            # Redis takes a timeout below a millisecond for "for ever".
            connection.send_command("BZPOPMIN", wake, max(seconds, 0.01))
            if not can_read(connection, seconds + REPLY_SECONDS):
                raise redis.TimeoutError(f"no reply from {self.address}")
            connection.read_response()
        except redis.ResponseError as error:
            raise translate(error) from None
        except BaseException:
            # The reply may come later: nobody may take it for the reply to another command.
            connection.disconnect()
            raise
        finally:
            self.release(connection)

    def make_lock(self) -> threading.Lock:
        """A lock for what several threads use."""
        return threading.Lock()

    def subscribe(self, topics: Iterable[Topic]) -> Subscription:
        """Listen to these topics."""
        return Subscription(self, topics)
