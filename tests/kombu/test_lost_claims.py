"""What was claimed without anybody's knowing is given back once, and nothing that is known."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from kombu import Message

from tests.kombu.exam import Broker, DrainPump, Inbox
from tests.servers import wait_for

TOTAL = 400

pytestmark = pytest.mark.phonon_only("stock's come back after the visibility timeout")


def ready(broker: Broker) -> int:
    return int(broker.client.llen("feed.ids:{q}"))


def claimed(broker: Broker) -> int:
    return int(broker.client.zcard("feed.claimed:{q}"))


@contextlib.contextmanager
def writes_refused(broker: Broker) -> Iterator[None]:
    """The server answers, and lets nobody write, as when its replicas are gone."""
    broker.client.config_set("min-replicas-to-write", 1)
    before = broker.client.info("stats")["total_error_replies"]
    try:
        yield
        assert broker.client.info("stats")["total_error_replies"] > before
    finally:
        broker.client.config_set("min-replicas-to-write", 0)


@pytest.mark.real_server("fakeredis refuses no writes")
def test_the_server_refuses_what_a_consumer_gives_back(own_broker: Broker) -> None:
    """A consumer without a limit is at work, and what it does not use is to go to others."""
    own_broker.send("q", *range(TOTAL))
    connection = own_broker.connection()
    channel = connection.default_channel
    seen: list[int] = []

    def at_work(message: Message) -> Any:
        if seen or len(channel.waiter.buffer) < 10:
            return
        seen.append(inbox.count)
        with writes_refused(own_broker):
            wait_for(lambda: not channel.waiter.buffer, 10)
            with channel.waiter.lock:
                pass  # the keeper has tried

    inbox = Inbox(on_message=at_work)
    own_broker.consumer(channel, "q", inbox, prefetch_count=0)
    DrainPump(connection).until(inbox.has(TOTAL))
    assert seen
    assert sorted(inbox.bodies) == list(range(TOTAL))
    wait_for(lambda: not claimed(own_broker), 10)


@pytest.mark.real_server("fakeredis refuses no writes")
@pytest.mark.parametrize("prefetch_count", [0, 20])
def test_the_server_refuses_what_a_closed_channel_gives_back(
    own_broker: Broker, prefetch_count: int
) -> None:
    """It comes back with the next connection, and what was acknowledged does not come again."""
    own_broker.send("q", *range(TOTAL))
    connection, inbox = own_broker.connection(), Inbox()
    own_broker.consumer(connection, "q", inbox, prefetch_count=prefetch_count)
    DrainPump(connection).until(inbox.has(50))
    with writes_refused(own_broker):
        connection.release()
    seen = inbox.count
    again = own_broker.connection()
    own_broker.consumer(again, "q", inbox)
    DrainPump(again).until(inbox.has(TOTAL))
    assert sorted(inbox.bodies[seen:]) == list(range(seen, TOTAL))
    wait_for(lambda: not claimed(own_broker), 10)


@pytest.mark.real_server("fakeredis is too slow for a consumer to claim ahead")
def test_what_an_unread_reply_names_is_not_lost(broker: Broker) -> None:
    """The claim of a consumer has been carried out, its reply is not read yet, and a basic_get of
    the same channel must recover from a broken connection of its own."""
    broker.send("q", *range(TOTAL))
    connection = broker.connection()
    channel, inbox = connection.default_channel, Inbox()
    waiter = channel.waiter
    broker.consumer(channel, "q", inbox, prefetch_count=64)

    def claimed_unread() -> bool:
        known = len(waiter.buffer)
        return ready(broker) + claimed(broker) == TOTAL - inbox.count and claimed(broker) > known

    def outstanding() -> bool:
        if not 20 < inbox.count < TOTAL / 2 or not waiter.claiming:
            return False
        wait_for(claimed_unread, 10)
        return True

    DrainPump(connection).until(outstanding)
    assert channel.basic_get("other") is None
    channel.link._connection._sock.shutdown(socket.SHUT_RDWR)
    with pytest.raises(connection.connection_errors):
        channel.basic_get("other")
    assert channel.basic_get("other") is None
    DrainPump(connection).until(inbox.has(TOTAL))
    assert sorted(inbox.bodies) == list(range(TOTAL))
    wait_for(lambda: not claimed(broker), 10)


def test_closed_while_the_keeper_gives_back(own_broker: Broker) -> None:
    """On a silent server the keeper cannot end what it has begun; it is noted for later."""
    own_broker.send("q", *range(3))
    connection, inbox = own_broker.connection(), Inbox()
    channel = connection.default_channel
    own_broker.consumer(channel, "q", inbox, prefetch_count=1)
    DrainPump(connection).until(inbox.has(1))
    wait_for(lambda: not claimed(own_broker))
    with channel.connection.cycle.midst:
        channel.waiter.step()
    wait_for(lambda: claimed(own_broker) == 1)
    assert channel.waiter.claiming
    own_broker.server.pause()
    try:
        # The reply will never come.
        channel.waiter.connection.disconnect()
        channel.waiter.disconnected()
        assert channel.claims_lost
        wait_for(lambda: not channel.claims_lost, 10)  # the keeper is at it
        channel.connection.silent_at = monotonic()  # as another channel has found out
        connection.collect()
    finally:
        own_broker.server.resume()
    again = own_broker.connection()
    own_broker.consumer(again, "q", inbox)
    DrainPump(again).until(inbox.has(3))
    assert inbox.bodies == [0, 1, 2]
    wait_for(lambda: not claimed(own_broker), 10)


@pytest.mark.parametrize("requeue", [False, True])
def test_rejected_while_the_keeper_gives_back(broker: Broker, requeue: bool) -> None:
    """A message of which the server is being told is known, and not given back as well."""
    broker.send("q", "x")
    connection = broker.connection()
    channel = connection.default_channel
    name = "give_back" if requeue else "reject"
    say = getattr(channel, name)

    def say_late(*args: Any, **kwargs: Any) -> None:
        channel.lose_claims()
        wait_for(lambda: not channel.claims_lost, 10)
        with channel.waiter.lock:
            pass  # the keeper is through
        say(*args, **kwargs)

    def reject(message: Message) -> None:
        if inbox.count == 1:
            setattr(channel, name, say_late)
            message.reject(requeue)
            setattr(channel, name, say)

    inbox = Inbox(on_message=reject)
    broker.consumer(channel, "q", inbox, prefetch_count=10)
    running = DrainPump(connection)
    running.until(inbox.has(1 + requeue))
    wait_for(lambda: not claimed(broker))
    assert not ready(broker) and not broker.client.exists("feed.items:{q}")
    running.run(0.3)
    assert inbox.count == 1 + requeue
    if requeue:
        assert inbox.messages[1].headers["x-delivery-count"] == 1
