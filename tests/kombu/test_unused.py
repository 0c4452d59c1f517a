"""Without a prefetch limit: what a consumer has claimed and does not take goes to others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from kombu import Message

from tests.faults.proxy import Proxy
from tests.kombu.exam import Broker, DrainPump, Inbox, PumpFactory
from tests.servers import wait_for

TOTAL = 400

pytestmark = pytest.mark.phonon_only("stock claims one by one")


def ready(broker: Broker, queue: str = "q") -> int:
    return int(broker.client.llen(f"feed.ids:{{{queue}}}"))


def test_a_simple_queue_begins_with_one(broker: Broker) -> None:
    broker.send("q", *range(100))
    with broker.connection().SimpleQueue("q") as queue:
        assert queue.get(timeout=5).payload == 0
        assert ready(broker) == 99
        with broker.connection().SimpleQueue("q") as other:
            assert other.get(timeout=5).payload == 1


@pytest.mark.real_server("fakeredis is too slow for a consumer to be quick")
@pytest.mark.parametrize("cut", [False, True], ids=["", "and the connection breaks"])
def test_who_is_at_work_keeps_nothing_from_others(
    broker: Broker, pump: PumpFactory, cut: bool
) -> None:
    """It was quick, has many in its buffer, the reply to its next claim is not read, and now one
    message takes it long."""
    broker.send("q", *range(TOTAL))
    connection = broker.connection()
    channel = connection.default_channel
    seen: list[int] = []

    def at_work(message: Message) -> Any:
        if seen or inbox.count < TOTAL / 4 or not channel.waiter.claiming:
            return
        claimed = broker.client.zcard("feed.claimed:{q}")
        if claimed <= 10:  # on a busy machine it is not quick at every moment
            return
        seen.append(claimed)
        if cut:
            broker.client.client_kill_filter(_type="normal", skipme=True)
        wait_for(lambda: ready(broker) == TOTAL - inbox.count, 10)

    inbox = Inbox(ack=True, on_message=at_work)
    broker.consumer(channel, "q", inbox, prefetch_count=0)
    running = pump(connection)
    with contextlib.suppress(*connection.connection_errors if cut else ()):
        running.until(inbox.has(TOTAL))
    running.until(inbox.has(TOTAL))
    assert seen
    assert inbox.bodies == list(range(TOTAL))
    wait_for(lambda: not broker.client.exists("feed.items:{q}"), 10)


@pytest.mark.real_server("fakeredis is too slow for a consumer to be quick")
def test_who_does_not_come_again_keeps_nothing_from_others(broker: Broker) -> None:
    broker.send("q", *range(TOTAL))
    with broker.connection().SimpleQueue("q") as queue:
        bodies = []
        while broker.client.zcard("feed.claimed:{q}") < 20:
            bodies.append(queue.get(timeout=5).payload)
        wait_for(lambda: ready(broker) == TOTAL - len(bodies), 10)
        # It begins with one again, with the one that is next.
        assert queue.get(timeout=5).payload == len(bodies)
        assert ready(broker) == TOTAL - len(bodies) - 1


@pytest.mark.parametrize("then", ["get", "consume", "nothing"])
def test_a_reply_to_basic_get_is_lost(broker: Broker, then: str) -> None:
    """The server has run the claim: the message is this process's, which does not know of it."""
    with Proxy(broker.server.port) as proxy:
        connection = broker.connection(f"phonon://127.0.0.1:{proxy.port}/0")
        channel = connection.channel()
        assert channel.queue_declare("q") and channel.basic_get("q") is None
        broker.send("q", "x")
        # The next command; should it be one of the heart's, no reply is lost, and no message.
        proxy.cut_at(len(proxy.commands) + 1, "sent")
        found = []

        def again(get: Callable[[], Any]) -> Any:
            with contextlib.suppress(*connection.connection_errors):
                found.append(get())
            return found and found[-1] is not None

        again(lambda: channel.basic_get("q"))
        if not found:
            assert proxy.crashed.wait(10)
        if not found and then == "nothing":
            wait_for(lambda: ready(broker) == 1, 10)
        elif not found and then == "get":
            wait_for(lambda: again(lambda: channel.basic_get("q")), 10)
        elif not found:
            inbox = Inbox()
            broker.consumer(channel, "q", inbox)
            DrainPump(connection).until(inbox.has(1))
