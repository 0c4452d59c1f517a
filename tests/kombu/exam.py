"""What one test of the exam works with: a broker, inboxes, and pumps that make messages arrive."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import redis
from kombu import Connection, Consumer, Exchange, Message, Queue
from kombu.exceptions import ChannelError

import phonon_kombu  # noqa: F401  (makes phonon:// known to kombu)
from tests.kombu.peer import Peer
from tests.kombu.pumps import PUMPS, DrainPump, Pump, PumpFactory
from tests.servers import RedisServer

__all__ = [
    "PUMPS", "Broker", "DrainPump", "Inbox", "Pump", "PumpFactory", "release", "round_trip",
    "tune_in",
]  # fmt: skip

ACCEPT = ["json", "pickle", "text/plain", "application/data"]


class Inbox:
    """A consumer's callback that keeps what it is given, and acknowledges it unless told not to.

    ``on_message(message)`` runs after the message was kept and before it is acknowledged.
    """

    def __init__(
        self, ack: bool = True, on_message: Callable[[Message], Any] | None = None
    ) -> None:
        self.ack = ack
        self.on_message = on_message
        self.messages: list[Message] = []

    def __call__(self, message: Message) -> None:
        self.messages.append(message)
        if self.on_message is not None:
            self.on_message(message)
        if self.ack and not message.acknowledged:
            message.ack()

    @property
    def count(self) -> int:
        """How many messages have arrived."""
        return len(self.messages)

    @property
    def bodies(self) -> list[Any]:
        """The decoded bodies, in the order of arrival."""
        return [message.payload for message in self.messages]

    def has(self, count: int) -> Callable[[], bool]:
        """Return a condition: at least ``count`` messages have arrived."""
        return lambda: len(self.messages) >= count


def release(scheme: str, connection: Connection) -> None:
    """Close a connection; stock may raise AttributeError after collect(), ours must not."""
    with contextlib.nullcontext() if scheme == "phonon" else contextlib.suppress(Exception):
        connection.release()


class Broker:
    """One scheme on one database of one server; closes every connection that it made."""

    def __init__(self, scheme: str, server: RedisServer, db: int = 0) -> None:
        self.scheme = scheme
        self.server = server
        self.db = db
        self._connections: list[Connection] = []
        self._peers: list[Peer] = []
        self._sender: Connection | None = None

    @property
    def is_phonon(self) -> bool:
        """Whether this is our transport."""
        return self.scheme == "phonon"

    @property
    def url(self) -> str:
        """The broker URL."""
        return self.server.url(self.scheme, self.db)

    @property
    def client(self) -> redis.Redis:
        """A plain Redis client of the database."""
        return self.server.client(self.db)

    def url_of(self, form: str) -> str:
        """Return the scheme for a form of URL (socket, tls, sentinel) of this transport."""
        stock = {"socket": "redis+socket", "tls": "rediss", "sentinel": "sentinel"}
        ours = {"socket": "phonon+socket", "tls": "phonons", "sentinel": "phonon+sentinel"}
        return (ours if self.is_phonon else stock)[form]

    def connection(self, url: str | None = None, **settings: Any) -> Connection:
        """Return a connection, not yet connected; ``settings`` are those of ``Connection``."""
        connection = Connection(url or self.url, **settings)
        self._connections.append(connection)
        return connection

    def send(self, queue: str | Queue, *bodies: Any, **properties: Any) -> None:
        """Publish each body to the queue, having declared it, over a connection of its own."""
        if self._sender is None:
            self._sender = self.connection()
        spec = Queue(queue) if isinstance(queue, str) else queue
        producer = self._sender.Producer()
        for body in bodies:
            producer.publish(
                body, exchange=spec.exchange or "", declare=[spec],
                routing_key=spec.routing_key or spec.name, **properties,
            )  # fmt: skip

    def consumer(
        self,
        connection: Any,
        queues: str | Queue | Iterable[str | Queue],
        inbox: Inbox | None = None,
        **settings: Any,
    ) -> Consumer:
        """Start to consume on a connection or channel; returns the ``Consumer``, with its inbox."""
        listed = [queues] if isinstance(queues, (str, Queue)) else queues
        consumer = Consumer(
            connection,
            [Queue(queue) if isinstance(queue, str) else queue for queue in listed],
            on_message=inbox if inbox is not None else Inbox(),
            accept=ACCEPT,
            **settings,
        )
        consumer.consume()
        return consumer

    def take(
        self, queue: str | Queue, count: int, timeout_seconds: float = 15.0, **settings: Any
    ) -> list[Message]:
        """Consume and acknowledge ``count`` messages over a new connection."""
        inbox = Inbox()
        with self.connection(**settings) as connection:
            # Prefetch 1: exactly ``count`` are taken, whatever the queue holds.
            self.consumer(connection, queue, inbox, prefetch_count=1)
            DrainPump(connection).until(inbox.has(count), timeout_seconds)
        return inbox.messages

    def get_all(self, queue: str | Queue) -> list[Any]:
        """Return the decoded bodies of all messages that are ready, and acknowledge them."""
        name = queue if isinstance(queue, str) else queue.name
        bodies = []
        with self.connection() as connection:
            while (message := connection.default_channel.basic_get(name)) is not None:
                message.accept = None
                bodies.append(message.payload)
                message.ack()
        return bodies

    def size(self, queue: str) -> int:
        """Return how many messages are ready in a queue (0 for one that does not exist)."""
        with self.connection() as connection:
            try:
                return int(connection.default_channel.queue_declare(queue, passive=True)[1])
            except ChannelError:
                return 0

    def exists(self, queue: str) -> bool:
        """Tell whether a passive declare finds the queue."""
        with self.connection() as connection:
            try:
                connection.default_channel.queue_declare(queue, passive=True)
            except ChannelError as error:
                assert error.reply_code == "404" or error.code == 404, error
                return False
            return True

    def key_names(self, containing: bytes = b"") -> list[bytes]:
        """Return the keys of the database whose name contains some bytes."""
        keys: list[bytes] = list(self.client.scan_iter(count=1000))
        return sorted(key for key in keys if containing in key)

    def peer(self, **settings: Any) -> Peer:
        """Start another process that uses the same broker."""
        peer = Peer(self.url, settings)
        self._peers.append(peer)
        return peer

    def close(self) -> None:
        """Close every connection, and end the other processes."""
        with contextlib.ExitStack() as stack:
            for connection in self._connections:
                stack.callback(release, self.scheme, connection)
            for peer in self._peers:
                stack.callback(peer.close)

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def tune_in(
    broker: Broker, exchange: Exchange, *listeners: tuple[Pump, Inbox], **settings: Any
) -> None:
    """Run until all listeners hear what is published to a fanout exchange; empties their inboxes.

    A subscription takes effect some time after ``consume()``, and nothing says when.
    """
    acks = [inbox.ack for _, inbox in listeners]
    with broker.connection(**settings) as sender:
        producer = sender.Producer(exchange=exchange)
        for pump, inbox in listeners:
            inbox.ack = True
            pump.until(lambda inbox=inbox: producer.publish("probe") or inbox.count)
        producer.publish("last probe")
    for (pump, inbox), ack in zip(listeners, acks, strict=True):
        pump.until(lambda inbox=inbox: "last probe" in inbox.bodies)
        inbox.messages.clear()
        inbox.ack = ack


def round_trip(broker: Broker, connection: Connection, body: object = "x") -> None:
    """Publish, consume and acknowledge one message over one connection."""
    inbox = Inbox()
    broker.consumer(connection, "q", inbox)
    connection.Producer().publish(body, routing_key="q")
    DrainPump(connection).until(inbox.has(1))
    assert inbox.bodies == [body]
