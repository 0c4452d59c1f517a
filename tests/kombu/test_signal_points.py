"""A signal comes at any line of the transport, and its handler does what programs do in one.

Celery's cold shutdown cancels its consumers there, whatever the main thread is in the midst of;
other programs requeue, close the connection, or raise SystemExit. Here the "signal" comes at the
Nth line that is run, for every N.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from kombu import Consumer, Queue

import phonon_kombu
from phonon_kombu.store.keys import queue_keys
from tests.kombu.exam import Broker, DrainPump, Inbox, PumpFactory

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


def interrupt(connection: Any, consumer: Consumer, inbox: Inbox) -> None:
    raise Interrupted


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


def act(broker: Broker, pump: PumpFactory, handler: Handler, at: int) -> tuple[list[str], Any]:
    """Consume with a signal at the line `at`: the lines that were run, and what was wrong."""
    inbox, acknowledged = Inbox(ack=False), list[str]()
    name = f"{handler.__name__}{at}"
    broker.send(name, *(f"{name}.{n}" for n in range(MESSAGES)))
    # A reply that somebody else has read is not waited for for ever.
    connection = broker.connection(transport_options={"socket_timeout": 3})
    consumer = broker.consumer(connection, [], inbox, prefetch_count=PREFETCH)
    pumping = pump(connection)
    done = False

    def on_signal() -> None:
        nonlocal done
        done = True
        handler(connection, consumer, inbox)

    def work() -> None:
        consumer.add_queue(Queue(name))
        consumer.consume()
        for count in range(1, MESSAGES + 1):
            while not done and inbox.count < count:
                pumping.step(0.05)
            if done:
                return
            message = inbox.messages[count - 1]
            acknowledged.append(message.payload)
            message.ack()

    try:
        with signal_at(at, on_signal) as lines:
            work()
    except Interrupted:
        pass
    pumping.forget_connection()
    connection.close()
    keys = queue_keys(name)
    claimed = broker.client.zrange(keys.claimed, 0, -1)
    left = set(broker.get_all(name))
    expected = {f"{name}.{n}" for n in range(MESSAGES)} - {*acknowledged}
    # An acknowledgement that was interrupted may have been noted, or not.
    lost, again = expected - left, left - expected - set(acknowledged[-1:])
    return lines, (lost, again, claimed) if lost or again or claimed else None


@pytest.mark.parametrize("handler", [cancel, requeue, close, interrupt])
def test_a_signal_at_any_line(broker: Broker, pump: PumpFactory, handler: Handler) -> None:
    lines, wrong = act(broker, pump, handler, 0)
    assert len(lines) > 100 and not wrong
    print(len(lines), len(set(lines)))
    outcomes = {}
    # Each line the first and the last time that it is run.
    first = {line: at for at, line in reversed(list(enumerate(lines, 1)))}
    last = {line: at for at, line in enumerate(lines, 1)}
    import time
    for at in sorted({*first.values(), *last.values()}):
        try:
            lines, wrong = act(broker, pump, handler, at)
        except Exception as error:
            wrong = error
        if wrong:
            outcomes[at, lines[-1]] = wrong
    for key, value in outcomes.items():
        print(key, repr(value)[:200])
    assert not outcomes
