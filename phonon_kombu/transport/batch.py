"""Many messages in one write, for :meth:`kombu.Producer.batch`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from kombu import exceptions as kombu_errors

from ..errors import PhononError, Unbound
from ..store.client import CONNECTION_ERRORS

#: What may end a batch.
FLUSH_ERRORS: tuple[type[Exception], ...] = (*CONNECTION_ERRORS, PhononError)

BatchPublishError: type[Exception] = getattr(
    kombu_errors, "BatchPublishError", kombu_errors.OperationalError
)


class Routed(NamedTuple):
    """A message of a batch for a named exchange, and where its puts stand in the batch."""

    message: dict[str, Any]
    exchange: str
    routing_key: str
    puts: dict[int, str]  # place in the batch -> queue


class Batch:
    """Messages that leave together. Made by :meth:`.Publishing.create_publish_batch`."""

    def __init__(self, channel: Any, max_size: int) -> None:
        self.channel = channel
        self.max_size = max_size
        self._calls: list[Any] = []
        self._routed: list[Routed] = []
        self._ended: str | None = None
        #: What became of a part that was sent, until this batch is asked.
        self._failure: Exception | None = None

    def publish(self, message: dict[str, Any], **kwargs: Any) -> Any:
        """Route one prepared message and keep it for the next write.

        A full batch is sent at once; what became of it is heard while the next one is made.
        """
        self._check()
        result = self.channel.basic_publish(message, _publish_batch=self, **kwargs)
        if len(self._calls) >= self.max_size:
            self._guarded(self._send)
        return result

    def add(self, call: Any) -> None:
        """Keep one command."""
        self._calls.append(call)

    def route(self, message: dict[str, Any], exchange: str, routing_key: str) -> None:
        """Keep the puts of a message for a named exchange."""
        message = {**message, "properties": dict(message["properties"])}
        puts = {}
        for queue, binding in self.channel._routes(exchange, routing_key):
            puts[len(self._calls)] = queue
            self._calls.append(
                self.channel._put_call(queue, message, exchange, routing_key, binding)
            )
        self._routed.append(Routed(message, exchange, routing_key, puts))

    def flush(self) -> None:
        """Send what is kept and see that all was taken.

        Raises ``kombu.exceptions.BatchPublishError``; the batch cannot be used after that.
        """
        self._check()
        self._guarded(self._send, self.channel.link.hear)

    def _guarded(self, *steps: Callable[[], None]) -> None:
        try:
            for step in steps:
                step()
            if self._failure is not None:
                raise self._failure
        except FLUSH_ERRORS as error:
            self._ended = "has failed"
            raise BatchPublishError(
                f"a batch of messages may have been published in part: {error}"
            ) from error

    def _send(self) -> None:
        calls, routed = self._calls, self._routed
        self._calls, self._routed = [], []
        if calls or routed:
            exchanges = list(dict.fromkeys(entry.exchange for entry in routed))
            questions = [self.channel.router.version_question(e) for e in exchanges]
            confirm = self.channel._confirm
            waits = [confirm.command] if confirm is not None else []
            self.channel.link.post(
                [*calls, *questions, *waits], partial(self._on_replies, calls, routed, exchanges)
            )

    def _on_replies(
        self, calls: list[Any], routed: list[Routed], exchanges: list[str], replies: list[Any]
    ) -> None:
        try:
            self._complete(calls, routed, exchanges, replies)
        except FLUSH_ERRORS as error:
            # It may be another caller who hears this: it is for flush() to raise.
            self._failure = self._failure or error

    def _complete(
        self, calls: list[Any], routed: list[Routed], exchanges: list[str], replies: list[Any]
    ) -> None:
        channel, router, count = self.channel, self.channel.router, len(calls)
        confirm = channel._confirm
        confirmed = replies.pop() if confirm is not None else None
        again = channel._obey(calls, replies)
        for reply in replies:
            if isinstance(reply, Exception) and not isinstance(reply, Unbound):
                raise reply
        if confirm is not None:
            confirm.check(channel.link.command(*confirm.command) if again else confirmed)
        versions = dict(zip(exchanges, replies[count:], strict=True))
        changed = {e for e, version in versions.items() if not router.is_current(e, version)}
        for entry in routed:
            done = {q for i, q in entry.puts.items() if not isinstance(replies[i], Unbound)}
            if entry.exchange in changed or len(done) < len(entry.puts):
                channel._publish_routed(*entry[:3], done)

    def discard(self) -> None:
        """Forget what has not been sent."""
        self._ended = self._ended or "was aborted"
        self._calls, self._routed = [], []

    def close(self) -> None:
        """End the batch."""
        self.discard()

    def _check(self) -> None:
        if self._ended is not None:
            raise BatchPublishError(f"this batch {self._ended}")
