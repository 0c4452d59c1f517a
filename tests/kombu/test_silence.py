"""A server that falls silent, its connections open: noticed while waiting, no bar to an end."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator

import pytest
from kombu import Connection

from phonon_kombu.transport import transport
from tests.kombu.exam import Broker, DrainPump, Inbox, PumpFactory
from tests.servers import wait_for
from tests.silent import SilentLine

#: What closing may take: the promise is 5 s, the rest is for a busy machine.
CLOSING_SECONDS = 8.0


@pytest.fixture(name="line")
def line_fixture(broker: Broker) -> Iterator[SilentLine]:
    with SilentLine(broker.server) as line:
        yield line


def connection_through(line: SilentLine, broker: Broker, **options: object) -> Connection:
    return broker.connection(url=line.url(broker.scheme), transport_options=options)


def idle(connection: Connection) -> None:
    """Let the consumers begin to wait."""
    with pytest.raises(socket.timeout):
        connection.drain_events(timeout=0.3)


ENDINGS: dict[str, Callable[[Connection], None]] = {
    "close": lambda connection: connection.close(),
    "release": lambda connection: connection.release(),
    "collect": lambda connection: connection.collect(5),
    "channel.close": lambda connection: connection.default_channel.close(),
}


@pytest.mark.phonon_only("stock waits for ever unless somebody bounds its sockets")
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("channels", [1, 3])
def test_closing_takes_no_longer_than_five_seconds(
    broker: Broker, line: SilentLine, ending: str, channels: int
) -> None:
    """With messages in hand, acknowledgements to send and a claim that is not answered."""
    connection = connection_through(line, broker)
    inboxes = []
    for number in range(channels):
        broker.send(f"q{number}", 1, 2, 3)
        channel = connection.channel() if number else connection.default_channel
        inboxes.append(Inbox(ack=False))
        broker.consumer(channel, f"q{number}", inboxes[-1])
    DrainPump(connection).until(lambda: all(inbox.count == 3 for inbox in inboxes))
    idle(connection)
    line.silence()
    for inbox in inboxes:
        inbox.messages[0].ack()

    start = time.monotonic()
    ENDINGS[ending](connection)
    seconds = time.monotonic() - start

    assert seconds < CLOSING_SECONDS
    if ending == "channel.close":
        return  # the connection and its other channels live
    line.speak()
    # What could not be said is said by the next connection of this process: nothing is lost.
    again = connection_through(line, broker)
    again.default_channel.queue_declare("other")
    for number in range(channels):
        wait_for(lambda n=number: broker.size(f"q{n}") == 2, message="not given back")
        assert broker.get_all(f"q{number}") == [2, 3]


@pytest.mark.phonon_only("stock waits for ever for the reply to its greeting")
def test_connecting_to_a_silent_server_takes_no_longer_than_five_seconds(
    broker: Broker, line: SilentLine
) -> None:
    line.silence()
    connection = connection_through(line, broker)

    start = time.monotonic()
    with pytest.raises(connection.recoverable_connection_errors):
        connection.transport.establish_connection()
    seconds = time.monotonic() - start

    assert seconds < CLOSING_SECONDS


@pytest.mark.phonon_only("stock sends a PING and waits for its reply without a limit")
@pytest.mark.parametrize("claiming", [False, True], ids=["waiting", "claiming"])
def test_a_consumer_notices_the_silence_and_connects_again(
    broker: Broker,
    line: SilentLine,
    pump: PumpFactory,
    claiming: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both while it waits for messages and while it waits for the reply to a claim."""
    monkeypatch.setattr(transport, "HEALTH_INTERVAL_SECONDS", 0.3)
    connection = connection_through(line, broker, health_check_interval=1, polling_interval=0.5)
    inbox = Inbox()
    broker.consumer(connection, "q", inbox, prefetch_count=1)
    running = pump(connection)
    if claiming:
        broker.send("q", *range(3))
        running.until(inbox.has(1))
    else:
        running.run(0.3)
    line.silence()
    line.speak()
    if not claiming:
        broker.send("q", *range(3))

    start = time.monotonic()
    running.until(inbox.has(3), timeout_seconds=25)

    assert inbox.bodies == [0, 1, 2]
    # 1.5 s until it is noticed, 4 until a command in between is given up.
    assert time.monotonic() - start < 20
    connection.release()
    assert broker.get_all("q") == []
