"""The transports: what ``phonon://`` and its kin stand for."""

from __future__ import annotations

from queue import Empty
from time import monotonic
from typing import Any

from kombu.transport import redis as stock
from redis import exceptions as redis_errors

from ..store.patience import at_most
from ..store.refusals import Healable
from . import options, pools
from .channel import CLOSING_SECONDS, Channel, SentinelChannel
from .poller import Poller

#: Errors that a new connection heals: they must make a worker connect again, not end it.
HEALED_BY_RECONNECT: tuple[type[Exception], ...] = (
    Healable,
    redis_errors.ReadOnlyError,
    redis_errors.ClusterDownError,
    redis_errors.MasterDownError,
    redis_errors.TryAgainError,
)

#: Seconds between looks at the health of the long-lived connections, with an event loop.
HEALTH_INTERVAL_SECONDS = 10


#: How long an event loop with a consumer of ours sleeps at the most, seconds.
LONGEST_SLEEP_SECONDS = 0.5


def _nothing() -> None:
    pass


class Transport(stock.Transport):
    """``phonon://``, ``phonon+socket://`` and ``phonon+embedded://``.

    ``driver_type`` is ``redis``: Celery asks it to decide whether mingle, gossip, events by
    PUB/SUB and ``worker_disable_prefetch`` work, and they do.
    """

    Channel = Channel
    driver_type = "redis"
    driver_name = "phonon"

    #: TLS without being asked by a setting.
    tls = False

    polling_interval = None
    connection_errors = stock.Transport.connection_errors + HEALED_BY_RECONNECT

    def __init__(self, client: Any, **kwargs: Any) -> None:
        options.check_kind(client.transport_options)
        if "://" in (client.hostname or ""):
            options.check_url(f"phonon+{client.hostname}")
        for url in client.alt or ():
            options.check_url(url)
        pools.attend()
        super().__init__(client, **kwargs)
        # The option is ours (seconds of an idle wait), not a sleep between polls.
        self.polling_interval = None
        self.cycle = Poller()
        self.server_checked = False
        #: Whether the connection is being closed because it broke.
        self.lost = False
        #: When a channel was closed to whose last words the server did not answer.
        self.silent_at = float("-inf")
        #: Queues bound to fanout exchanges: queue -> (exchange, routing key).
        self.fanout_queues: dict[str, tuple[str, str]] = {}
        form, separator, _ = (client.hostname or "").partition("://")
        if separator and form == "sentinel":
            self.Channel = SentinelChannel

    @property
    def supports_batch_publish(self) -> bool:
        return True

    def close_connection(self, connection: Any) -> None:
        # The channels first: they still hear their outstanding replies.
        with at_most(CLOSING_SECONDS):
            for channels in (self._avail_channels, self.channels):
                while channels:
                    channels.pop().close()
        self.cycle.close()

    def _collect(self, connection: Any) -> None:
        # Called by kombu's Connection.collect(), with which Celery ends a lost connection: what it
        # is at work on goes on, and will be acknowledged when it is done.
        self.lost = True
        self.close_connection(connection)

    def drain_events(self, connection: Any, timeout: float | None = None, **kwargs: Any) -> None:
        """Hand over one message.

        Raises :exc:`socket.timeout` if none comes within `timeout` seconds.
        """
        until = None if timeout is None else monotonic() + timeout
        get, left = self.cycle.get, timeout
        while True:
            try:
                return get(self._deliver, left)
            except Empty:
                if until is not None:
                    left = until - monotonic()
                    if left <= 0:
                        raise TimeoutError("no message came in time") from None

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Consume by the event loop `loop` from now on."""
        cycle = self.cycle
        cycle.attach(loop, self.on_readable)
        loop.on_tick.add(cycle.on_poll_start)
        for timer in getattr(cycle, "timers", ()):
            timer.cancel()
        cycle.timers = [
            loop.call_repeatedly(HEALTH_INTERVAL_SECONDS, cycle.check_health),
            # A signal does not end the wait for events: Celery heeds it when the loop comes by.
            loop.call_repeatedly(LONGEST_SLEEP_SECONDS, _nothing),
        ]

    def unregister_from_event_loop(self, connection: Any, loop: Any) -> None:
        loop.on_tick.discard(self.cycle.on_poll_start)


class TLSTransport(Transport):
    """``phonons://``: TLS, the certificate verified unless ``broker_use_ssl`` says otherwise."""

    tls = True


class SentinelTransport(Transport):
    """``phonon+sentinel://h1;phonon+sentinel://h2`` with the option ``master_name``."""

    default_port = 26379
    Channel = SentinelChannel
