"""The publishing half of a channel: one script call for a message and a queue."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from kombu.transport.virtual import base as virtual
from kombu.utils.objects import cached_property

from ..errors import PhononError, Ruled, Unbound
from ..store.scripts import Prepared, load
from . import codec, confirms, wishes
from .batch import Batch
from .fanout import Fanout
from .jobs import Jobs
from .routing import Router, binding_field

logger = logging.getLogger("phonon_kombu.transport")

#: A message with this header is put into its queue stalled, for the reason that it gives.
STALL = "x-stall"

#: How often a message is routed anew when bindings change under it.
REROUTES = 10

#: Deduplication id, lifetime and predecessor of most messages.
NOT_UNIQUE = (b"", b"", b"")


class Publishing(Fanout, Jobs):
    """Part of :class:`~.channel.Channel`."""

    delayed_delivery = True
    confirm_publish: Any = False
    confirm_replicas = 0
    confirm_timeout_ms = confirms.TIMEOUT_MS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._puts: dict[tuple[str, int], Prepared] = {}
        #: Queues that are known to have rules: a plain put does not do there.
        self._ruled: set[str] = set()
        super().__init__(*args, **kwargs)
        self._confirm = confirms.make(
            self.confirm_publish, self.confirm_replicas, self.confirm_timeout_ms
        )

    @cached_property
    def router(self) -> Router:
        """The bindings this channel knows."""
        return Router(self.link, self.global_keyprefix, self.hash_tags)

    @property
    def supports_batch_publish(self) -> bool:
        return True

    def basic_publish(
        self, message: dict[str, Any], exchange: str, routing_key: str, **kwargs: Any
    ) -> Any:
        """Publish a prepared message.

        Raises :exc:`~phonon_kombu.errors.ItemTooLarge`, :exc:`~phonon_kombu.errors.OutOfMemory`,
        :exc:`~phonon_kombu.errors.QueueFull`, :exc:`~phonon_kombu.errors.NotConfirmed` and
        connection errors. A publish whose reply was lost may be repeated with the same
        message: it is put once.
        """
        if isinstance(message, str | bytes):  # as `celery amqp basic.publish` does
            message = self.prepare_message(message, 0, "text/plain", "utf-8")
        batch = kwargs.get("_publish_batch")
        properties = message["properties"]
        if self.body_encoding:
            message["body"], properties["body_encoding"] = self.encode_body(
                message["body"], self.body_encoding
            )
        else:
            # `celery migrate` passes on the properties of another transport's message.
            properties.pop("body_encoding", None)
        if exchange:
            if self.typeof(exchange).type == "fanout":
                return self._put_fanout(exchange, message, routing_key, **kwargs)
            if batch is None:
                return self._publish_routed(message, exchange, routing_key, set())
            batch.route(message, exchange, routing_key)
            return None
        call = self._put_call(routing_key, message, "", routing_key)
        if batch is not None:
            batch.add(call)
        elif routing_key in self._expires:
            self._send_puts([call, *self.in_use(routing_key)])
        else:
            self._send_puts([call])
        # Now another publish of these properties is another message.
        del properties[codec.NONCE]
        return None

    def _send_puts(self, calls: list[Any], raise_first: bool = True) -> list[Any]:
        """Send puts and what goes along with them; returns when they are as safe as asked for."""
        confirm = self._confirm
        if confirm is None:
            replies: list[Any] = self.link.send(calls, repeat=True, raise_first=False)
        else:
            *replies, confirmed = self.link.send(
                [*calls, confirm.command], repeat=True, raise_first=False
            )
        again = self._obey(calls, replies)
        if confirm is not None:
            confirm.check(self.link.command(*confirm.command) if again else confirmed)
        if raise_first:
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies

    def _obey(self, calls: list[Any], replies: list[Any]) -> bool:
        """Put again, by the rules, where a queue has refused a plain put; whether there were any.

        `replies` are then those of the second put.
        """
        refused = [i for i, reply in enumerate(replies) if isinstance(reply, Ruled)]
        if refused:
            puts = []
            for i in refused:
                queue = calls[i][0].note
                self._ruled.add(queue)
                rest = (b"0", b"0", b"", b"", b"", *NOT_UNIQUE, self.order)
                puts.append((self._prepared_put(queue, 0), (*calls[i][1], *rest)))
            second = self.link.send(puts, repeat=True, raise_first=False)
            for i, reply in zip(refused, second, strict=True):
                replies[i] = reply
        for reply in replies:
            if type(reply) is list:
                logger.debug("Left out a duplicate of job %r", reply[0])
        return bool(refused)

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        info = message["properties"].get("delivery_info") or {}
        call = self._put_call(
            queue, message, info.get("exchange", ""), info.get("routing_key", queue)
        )
        self._send_puts([call])

    def _put_call(
        self,
        queue: str,
        message: dict[str, Any],
        exchange: str,
        routing_key: str,
        binding: bytes = b"",
    ) -> tuple[Prepared, tuple[bytes, ...]]:
        properties, headers = message["properties"], message["headers"]
        level = self._get_message_priority(message) if properties.get("priority") else 0
        # A task that has expired goes to a worker all the same: it marks the task as revoked, and
        # somebody may wait for that.
        ttl_ms = b"" if "task" in headers and headers.get("expires") else wishes.ttl_ms(properties)
        stall = headers.get(STALL)
        if stall is not None:
            # Not part of the item: once it may run it is a message like any other.
            headers = {name: value for name, value in headers.items() if name != STALL}
            message = {**message, "headers": headers}
        for name in wishes.OF_A_DELIVERY:
            headers.pop(name, None)
        delay_ms, delayed, only = 0, False, NOT_UNIQUE
        if stall is None and (headers.get("eta") or "x-delay" in headers):
            delay_ms, delayed = wishes.delay_ms(headers, self.delayed_delivery)
        if "x-deduplication-id" in headers or "x-deduplication-id" in properties:
            only = wishes.dedup(headers, properties)
        plain = not (level or ttl_ms or binding or delay_ms or only[0] or queue in self._ruled)
        prepared = self._prepared_put(queue, -1 if plain else level)
        task_id = headers.get("id") if "task" in headers else None
        tag = properties.get(codec.NONCE)
        if task_id and type(task_id) is str:
            # Told apart from another publish of the same task by the tag in the item; kept in
            # the properties, so that the same publish repeated is known by it.
            if tag is None:
                tag = properties[codec.NONCE] = codec.new_nonce()
            job_id = codec.job_id_of(task_id)
            other_id = job_id + b"~"
        else:
            if tag is None:
                tag = properties[codec.NONCE] = codec.new_id()
            job_id, other_id, tag = tag.encode(), b"", ""
        via = exchange if exchange or routing_key != queue else ""
        item = codec.encode(message, via, routing_key, tag, delayed)
        if stall is not None:
            return load("job/shelve").prepare(self.keys(queue)), (
                job_id, item, other_id, b"%d" % level, str(stall).encode("utf-8", "replace"),
                binding,
            )  # fmt: skip
        if plain:
            return prepared, (job_id, item, other_id)
        return prepared, (
            job_id, item, other_id, b"%d" % level, b"0", b"%d" % delay_ms if delay_ms else b"",
            ttl_ms, binding, *only, self.order,
        )  # fmt: skip

    def _prepared_put(self, queue: str, level: int) -> Prepared:
        """job/put for a level of `queue`, or for -1 job/append."""
        prepared = self._puts.get((queue, level))
        if prepared is None:
            keys = self.keys(queue)
            if level < 0:
                prepared = load("job/append").prepare(keys)
            else:
                prepared = load("job/put").prepare(keys, ids=keys.levels[level])
            prepared.note = queue
            if len(self._puts) > 1000:
                self._puts.clear()
            self._puts[queue, level] = prepared
        return prepared

    # Named exchanges -----------------------------------------------------------------------

    def _publish_routed(
        self, message: dict[str, Any], exchange: str, routing_key: str, done: set[str]
    ) -> None:
        """Put `message` into all queues that it is routed to, but for those in `done`."""
        for _ in range(REROUTES):
            routes = [
                route for route in self._routes(exchange, routing_key) if route[0] not in done
            ]
            calls: list[Any] = [
                self._put_call(queue, message, exchange, routing_key, binding)
                for queue, binding in routes
            ]
            *replies, version = self._send_puts(
                [*calls, self.router.version_question(exchange)], raise_first=False
            )
            gone = []
            for (queue, binding), reply in zip(routes, replies, strict=True):
                if isinstance(reply, Unbound):
                    gone.append((queue, binding))
                elif isinstance(reply, Exception):
                    raise reply
                else:
                    done.add(queue)
            if isinstance(version, Exception):
                raise version
            if not gone and self.router.is_current(exchange, version):
                message["properties"].pop(codec.NONCE, None)
                return
            before = self.router.table(exchange)
            after = self.router.table(exchange, fresh=True)
            if gone and before.version == after.version:
                # The queue has expired or was deleted by a raw client, its binding stands.
                self._drop_stale(exchange, gone)
        raise PhononError(
            f"the bindings of exchange {exchange!r} changed {REROUTES} times during a publish"
        )

    def _routes(self, exchange: str, routing_key: str) -> list[tuple[str, bytes]]:
        """Queues for a message, each with the binding that its put must find."""
        kind = self.typeof(exchange)
        found: dict[str, bytes] = {}
        for row in self.router.table(exchange).rows:
            if row[2] not in found and kind.lookup([row], exchange, routing_key, None):
                found[row[2]] = binding_field(exchange, row[0], row[1])
        if not found and self.deadletter_queue is not None:
            warnings.warn(
                virtual.UndeliverableWarning(
                    virtual.UNDELIVERABLE_FMT.format(exchange=exchange, routing_key=routing_key)
                ),
                stacklevel=4,
            )
            self._new_queue(self.deadletter_queue)
            found[self.deadletter_queue] = b""
        return list(found.items())

    def _drop_stale(self, exchange: str, gone: list[tuple[str, bytes]]) -> None:
        for queue, binding in gone:
            for routing_key, pattern, bound in self.router.table(exchange).rows:
                if bound == queue and binding_field(exchange, routing_key, pattern) == binding:
                    self.router.unbind(exchange, routing_key, pattern, queue)
        self.router.table(exchange, fresh=True)

    def create_publish_batch(self, max_size: int) -> Batch:
        """A batch for :meth:`kombu.Producer.batch`: many messages in one write."""
        return Batch(self, max_size)
