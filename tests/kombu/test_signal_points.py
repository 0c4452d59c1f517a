"""A signal comes at any line of the transport, and its handler does what programs do in one.

Celery's cold shutdown cancels its consumers there, whatever the main thread is in the midst of;
other programs requeue, close the connection, or raise SystemExit. Here the "signal" comes at the
Nth line that is run, for every N.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest
from kombu import Consumer, Queue

import phonon_kombu
from phonon_kombu.store.keys import queue_keys
from tests.kombu.exam import Broker, Inbox, PumpFactory

SOURCES = str(Path(phonon_kombu.__file__).parent)
MESSAGES, PREFETCH = 5, 3

pytestmark = [
    pytest.mark.phonon_only("the promise is this project's"),
    pytest.mark.timeout(300),
]

Handler = Callable[[Any, Consumer, Inbox], None]


class Interrupted(BaseException):
    """As SystemExit and KeyboardInterrupt: nobody handles it."""


def cancel(connection: Any, consumer: Consumer, inbox: Inbox) -> None:
    consumer.cancel()


def requeue(connection: Any, consumer: Consumer, inbox: Inbox) -> None:
    consumer.cancel()
    for message in inbox.messages:
        if not message.acknowledged:
            message.requeue()


def close(connection: Any, consumer: Consumer, inbox: Inbox) -> None:
    connection.close()
    raise Interrupted


def close_and_go_on(connection: Any, consumer: Consumer, inbox: Inbox) -> None:
    connection.close()


def interrupt(connection: Any, consumer: Consumer, inbox: Inbox) -> None:
    raise Interrupted


#: What a handler may do.
HANDLERS = (cancel, requeue, close, close_and_go_on, interrupt)

#: Whether to try every handler at every line, which takes minutes.
EVERY = bool(os.environ.get("PHONON_TEST_EVERY"))


@contextmanager
def signal_at(at: int, handler: Callable[[], None]) -> Iterator[list[str]]:
    """Call `handler` before the line number `at` of this package that is run from now on by this
    thread; gives the lines that were run until then."""
    lines: list[str] = []

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(SOURCES):
            return None
        if event == "line":
            lines.append(f"{frame.f_code.co_filename[len(SOURCES) + 1 :]}:{frame.f_lineno}")
            if len(lines) == at:
                sys.settrace(None)
                handler()
        return trace

    sys.settrace(trace)
    try:
        yield lines
    finally:
        sys.settrace(None)


class Outcome(NamedTuple):
    """What a run with a signal came to."""

    #: The lines that were run until the signal.
    lines: list[str]
    #: Messages that are nowhere, that are there though acknowledged, and jobs that stay claimed.
    wrong: tuple[set[str], set[str], list[bytes]]

    @property
    def good(self) -> bool:
        return not any(self.wrong)


class Runs:
    """Runs of one consumer, each with a queue of its own, and a signal at another line."""

    def __init__(self, broker: Broker, pump: PumpFactory) -> None:
        self.broker = broker
        self.pump = pump
        #: Where what is left is looked for.
        self.channel = broker.connection().channel()
        self.count = 0

    def run(self, handler: Handler, at: int) -> Outcome:
        """Consume some messages and acknowledge each, until `handler` has been called."""
        self.count += 1
        name, inbox = f"q{self.count}", Inbox(ack=False)
        messages = [f"{name}.{number}" for number in range(MESSAGES)]
        self.broker.send(name, *messages)
        acknowledged: list[str] = []
        # What somebody else has read is not waited for for ever.
        connection = self.broker.connection(transport_options={"socket_timeout": 3})
        consumer = self.broker.consumer(connection, [], inbox, prefetch_count=PREFETCH)
        pumping = self.pump(connection)
        called = False

        def on_signal() -> None:
            nonlocal called
            called = True
            handler(connection, consumer, inbox)

        # Who goes on with a connection that was closed sees errors of many kinds.
        errors = Exception if handler is close_and_go_on else Interrupted
        with suppress(errors), signal_at(at, on_signal) as lines:
            consumer.add_queue(Queue(name))
            consumer.consume()
            while len(acknowledged) < MESSAGES and not called:
                pumping.step(0.01)
                for message in inbox.messages[len(acknowledged) :]:
                    if not called:
                        acknowledged.append(message.payload)
                        message.ack()
        pumping.forget_connection()
        connection.close()
        claimed = self.broker.client.zrange(queue_keys(name).claimed, 0, -1)
        left = set(self.take_all(name))
        unacknowledged = {*messages} - {*acknowledged}
        # The last acknowledgement may have been interrupted.
        return Outcome(
            lines, (unacknowledged - left, left - unacknowledged - {*acknowledged[-1:]}, claimed)
        )

    def take_all(self, queue: str) -> Iterator[str]:
        while (message := self.channel.basic_get(queue, no_ack=True)) is not None:
            yield message.decode()


def points(lines: list[str]) -> list[int]:
    """Each line the first and the last time that it is run."""
    numbered = list(enumerate(lines, 1))
    first = {line: at for at, line in reversed(numbered)}
    last = {line: at for at, line in numbered}
    return sorted({*first.values(), *last.values()})


def test_a_signal_at_any_line(broker: Broker, pump: PumpFactory) -> None:
    """With one of the handlers at each line; with all of them where the environment says so."""
    runs = Runs(broker, pump)
    whole = runs.run(cancel, 0)
    assert whole.good and len(whole.lines) > 1000
    chosen = [
        (handler, at)
        for number, at in enumerate(points(whole.lines))
        for turn, handler in enumerate(HANDLERS)
        if EVERY or (number - turn) % len(HANDLERS) == 0
    ]
    wrong = {}
    for handler, at in chosen:
        outcome = runs.run(handler, at)
        if not outcome.good:
            wrong[handler.__name__, outcome.lines[-1]] = outcome.wrong
    assert not wrong
