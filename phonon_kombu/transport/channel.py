"""The channel: consumes and closes; it declares, publishes and claims by its other halves.

Overridden of kombu's Redis channel (all else, the connections, TLS, Sentinel, credentials and
PUB/SUB, stays its own):

======================================  =========================================================
basic_publish, _put, _put_fanout,       one script for a message and a queue, routes cached,
create_publish_batch                    batches in one write (publish.py)
basic_consume, basic_cancel             the waiter learns of the queue
basic_get, basic_ack, basic_reject,     claims, finishes and stalls
QoS, Message
queue_declare, queue_delete, _size,     states of the job machine; a declared queue exists
_new_queue, _has_queue, _purge          (declaring.py)
queue_bind, queue_unbind,               bindings with a version (routing.py)
exchange_delete, _queue_bind, get_table
_connparams, client                     our URL forms, TLS that verifies (connections.py)
close                                   needs no transport and no server
======================================  =========================================================
"""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from contextlib import suppress
from queue import Empty
from time import monotonic
from typing import Any

from kombu.transport import redis as stock
from kombu.transport import virtual
from redis.exceptions import TimeoutError

from ..errors import ConfigurationError
from ..store.client import CONNECTION_ERRORS, Link
from ..store.patience import alone, at_most, seconds_left
from ..store.scripts import load
from . import options, pools
from .connections import Connections, SentinelConnections
from .declaring import Declaring
from .message import Message
from .outbox import keeper
from .qos import QoS

logger = logging.getLogger("phonon_kombu.transport")

#: So long may the server be silent while channels are closed, all of a connection together.
CLOSING_SECONDS = 4.0

#: So long may a program that ends without closing its channels wait for the server.
LAST_SECONDS = 2.0

#: For so long after that the other channels of the connection do not try again.
SILENT_SECONDS = 10.0

#: All channels of this process, for the child of a fork.
_channels: weakref.WeakSet[Channel] = weakref.WeakSet()


def _after_fork() -> None:
    for channel in list(_channels):
        if channel.connection is not None:
            # First: epoll is shared with the parent, nothing may be taken out of it.
            channel.connection.cycle.after_fork()
        channel.after_fork()


def _at_exit() -> None:
    """A program may end without closing: what it acknowledged must not be delivered again, and what
    it holds need not wait until it is found dead."""
    with at_most(LAST_SECONDS):
        for channel in list(_channels):
            try:
                if channel.process != os.getpid():
                    channel.end_in_child()
                elif channel.outliving:
                    channel.end()
                else:
                    channel.close()
            except Exception as error:
                logger.debug("closing a channel at exit: %r", error)


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)


class Channel(Declaring):
    """A channel of ``phonon://``."""

    QoS = QoS
    Message = Message

    #: Bodies are sent as they are. ``transport_options['body_encoding'] = 'base64'`` codes them.
    body_encoding: str | None = None

    from_transport_options = stock.Channel.from_transport_options + options.OURS

    _closing: bool

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        options.check(connection.client.transport_options, type(self).from_transport_options)
        # Stock keeps these in one dict for all connections of the process, so that a queue whose
        # name was once bound to a fanout exchange anywhere is never polled again.
        self._fanout_queues = connection.fanout_queues
        self._job_queues: list[str] = []
        super().__init__(connection, **kwargs)
        if self.QoS is virtual.QoS:
            raise ConfigurationError(
                "ack_emulation=False would lose messages; use a consumer with no_ack instead"
            )
        self.check_server()
        #: The process whose channel this is: a forked child has it, too, and it is not the child's.
        self.process = os.getpid()
        keeper.watch(self)
        _channels.add(self)

    # Consuming -----------------------------------------------------------------------------

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Any, consumer_tag: str, **kwargs: Any
    ) -> Any:
        """Consume from `queue`. Messages of a `no_ack` consumer are finished as they are handed
        over; those that were claimed and not yet handed over are given back like all others."""
        result = super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)
        if queue not in self._fanout_queues:
            self._receivers[queue] = (callback, bool(no_ack))
            self.waiter.add_queue(queue)
            if queue in self._expires:
                keeper.poke()
        return result

    def _basic_cancel(self, consumer_tag: str) -> Any:
        queue = self._tag_to_queue.get(consumer_tag)
        result = super()._basic_cancel(consumer_tag)
        if queue is not None and queue not in self._active_queues:
            self._receivers.pop(queue, None)
            self.waiter.drop_queue(queue)
            if queue in self._expires:
                # From now on it is not used.
                with suppress(*CONNECTION_ERRORS):
                    self.link.send(self.in_use(queue), repeat=True)
        return result

    def basic_cancel(self, consumer_tag: str) -> Any:
        """Cancel a consumer; from within a callback too."""
        # A claim is not lost by cancelling in mid-delivery: there is nothing to put off.
        return self._basic_cancel(consumer_tag)

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        """Take one message, None if there is none."""
        with alone(self.waiter.lock):
            if not self.waiter.claiming:  # else the reply names what is not lost
                self.recover_lost()
            if queue not in self.waiter.claimed_queues:
                self.hold(queue)
            while True:
                reply = self._claim_one(queue)
                if len(reply) < 3:
                    return None
                message = self.to_message(queue, reply[2], reply[3], reply[4])
                if message is None:
                    continue
                if no_ack:
                    self.outbox.add((queue, reply[2]))
                else:
                    self.qos.append(message, message.delivery_tag)
                return message

    def _claim_one(self, queue: str) -> Any:
        claim = load("job/claim").prepare(self.keys(queue))
        calls = [(claim, (self.owner, b"1", self.order)), *self.in_use(queue)]
        try:
            return self.link.send(calls)[0]
        except BaseException as error:
            if isinstance(error, CONNECTION_ERRORS) or not isinstance(error, Exception):
                self.lose_claims()
            raise

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        message = self.basic_get(queue, no_ack=True)
        if message is None:
            raise Empty()
        return message._raw

    def basic_ack(self, delivery_tag: Any, multiple: bool = False) -> None:
        """Acknowledge a message, with `multiple` also all that were delivered before it."""
        self.qos.ack(delivery_tag, multiple)

    def basic_reject(self, delivery_tag: Any, requeue: bool | str = False) -> None:
        """Reject a message. With a text for `requeue` its job is stalled, and that is why."""
        if isinstance(requeue, str):
            self.qos.stall(delivery_tag, requeue)
        else:
            super().basic_reject(delivery_tag, requeue)

    def basic_recover(self, requeue: bool = False) -> Any:
        """Give all unacknowledged messages back."""
        if not requeue:
            raise NotImplementedError("recover(requeue=False) is not supported by Redis")
        return self.qos.restore_unacked()

    @property
    def _in_poll(self) -> Any:
        """The connection that waits for work, False while none does: kombu's name for it, which
        its own code and Celery's look at."""
        return self.waiter.connection if self.waiter.waiting else False

    @_in_poll.setter
    def _in_poll(self, connection: Any) -> None:
        pass  # kombu notes so that it is lost; the waiter knows

    @property
    def active_queues(self) -> list[str]:
        """Queues being consumed from, but for those of fanout exchanges."""
        return self._job_queues

    def _update_queue_cycle(self) -> None:
        # Asked at every tick of the event loop: kept, not made anew each time.
        self._job_queues = list(
            dict.fromkeys(q for q in self._active_queues if q not in self.active_fanout_queues)
        )
        super()._update_queue_cycle()

    # The end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Cancel consumers, give back what is unacknowledged, disconnect.

        Works when the server is away and when the transport has lost its client, as Celery
        closes the channels of a lost connection: the debts are noted for the next connection of
        this process (:mod:`.orphans`).
        """
        if self._closing:
            return
        self.closed = self._closing = True
        keeper.forget(self)
        transport = self.connection
        lasting = self._keep_what_is_begun()
        silent = transport is not None and monotonic() - transport.silent_at < SILENT_SECONDS
        with at_most(0.0 if silent else CLOSING_SECONDS):
            self._take_leave(lasting)
            try:
                seconds_left()
            except TimeoutError:
                if transport is not None:
                    transport.silent_at = monotonic()
        if transport is not None:
            transport.cycle.discard(self)
        self._disconnect()
        if transport is not None:
            transport.close_channel(self)
        self.exchange_types = None

    def end_in_child(self) -> None:
        """At the end of a forked child: what it has claimed by the channel that it inherited goes
        back. All else is the parent's."""
        if self.heart is not None:
            self.waiter.close()
            self.qos.restore_unacked()
            self.leave()

    def _keep_what_is_begun(self) -> Link | None:
        """If the connection is lost, and Celery is at work on messages of it: a link for them."""
        transport = self.connection
        if transport is None or not transport.lost or self._qos is None:
            return None
        kept = pools.begun().intersection(self._qos._delivered.values())
        if not kept or not self._qos.restore_at_shutdown:
            return None
        try:
            link = self.lasting_link()
        except Exception as error:
            logger.debug("closing a channel: %r", error)
            return None
        self._qos.kept = kept
        return link

    def _take_leave(self, lasting: Link | None) -> None:
        """Say what is still to be said, and note it where the server does not hear."""
        self.waiter.close()
        for queue in [q for q in list(self._fanout_queues) if q in self.auto_delete_queues]:
            try:
                self.queue_delete(queue)
            except Exception as error:
                logger.debug("closing a channel: deleting %r: %r", queue, error)
        for consumer_tag in list(self._consumers):
            self._forget_consumer(consumer_tag)
        self._receivers.clear()
        if self._qos is not None:
            self._qos.restore_unacked_once()
        if lasting is None:
            self.leave()
        else:
            self.outlive(lasting)

    def _forget_consumer(self, consumer_tag: str) -> None:
        self._consumers.discard(consumer_tag)
        queue = self._tag_to_queue.pop(consumer_tag, None)
        if queue in self._active_queues:
            self._active_queues.remove(queue)
        self._update_queue_cycle()
        if self.connection is not None:
            self.connection._callbacks.pop(queue, None)

    def _disconnect(self) -> None:
        link = self.__dict__.get("link")
        try:
            if link is not None and not self.outliving:
                link.close()
            self._close_clients()
            self._disconnect_pools()
        except Exception as error:
            logger.debug("closing a channel: %r", error)


class SentinelChannel(SentinelConnections, Channel):
    """A channel whose server is found by Redis Sentinel."""

    from_transport_options = stock.SentinelChannel.from_transport_options + options.OURS


__all__ = ["Channel", "Connections", "SentinelChannel"]
