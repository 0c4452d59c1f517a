"""``drain_events()``: it waits as long as it was told, and not longer."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from kombu import Connection
from kombu.asynchronous import Hub, set_event_loop

from tests.kombu.exam import Broker, Inbox


def seconds_until_timeout(connection: Connection, timeout_seconds: float) -> float:
    start = time.monotonic()
    with pytest.raises(socket.timeout):
        connection.drain_events(timeout=timeout_seconds)
    return time.monotonic() - start


@pytest.mark.parametrize("timeout_seconds", [0.05, 0.3, 1.2])
def test_the_timeout_is_kept(broker: Broker, timeout_seconds: float) -> None:
    connection = broker.connection()
    broker.consumer(connection, "q")

    # Stock waits once more in full if the reply to its BRPOP comes meanwhile.
    longest = timeout_seconds * (1 if broker.is_phonon else 2) + 0.5
    for _ in range(2):
        seconds = seconds_until_timeout(connection, timeout_seconds)
        assert timeout_seconds - 0.01 <= seconds < longest


def test_without_consumers_nothing_comes(broker: Broker) -> None:
    connection = broker.connection()
    connection.connect()

    assert seconds_until_timeout(connection, 0.2) < 0.7


@pytest.mark.phonon_only("what stock's loop costs is not of interest")
def test_without_consumers_it_sleeps(broker: Broker) -> None:
    connection = broker.connection()
    connection.connect()

    before = time.thread_time()
    seconds_until_timeout(connection, 1.0)
    assert time.thread_time() - before < 0.3


def test_with_all_places_taken_nothing_comes(broker: Broker) -> None:
    broker.send("q", 1, 2)
    connection = broker.connection()
    inbox = Inbox(ack=False)
    broker.consumer(connection, "q", inbox, prefetch_count=1)
    connection.drain_events(timeout=5)

    assert inbox.bodies == [1]
    assert seconds_until_timeout(connection, 0.2) < 0.7


def test_without_a_timeout_it_waits_for_a_message(broker: Broker) -> None:
    connection = broker.connection()
    inbox = Inbox()
    broker.consumer(connection, "q", inbox)
    timer = threading.Timer(0.5, broker.send, ("q", "late"))
    timer.start()
    try:
        connection.drain_events()
    finally:
        timer.join()

    assert inbox.bodies == ["late"]


def test_one_call_delivers_one_message(broker: Broker) -> None:
    broker.send("q", *range(5))
    connection = broker.connection()
    inbox = Inbox()
    broker.consumer(connection, "q", inbox)

    for number in range(5):
        connection.drain_events(timeout=5)
        assert inbox.count == number + 1


@pytest.mark.phonon_only("stock sleeps until its timeout, though there is a free place")
def test_an_acknowledgement_from_another_thread_ends_the_wait(broker: Broker) -> None:
    """With all places taken ``drain_events()`` waits for one to become free, wherever that is."""
    broker.send("q", 1, 2)
    connection = broker.connection()
    inbox = Inbox(ack=False)
    broker.consumer(connection, "q", inbox, prefetch_count=1)
    connection.drain_events(timeout=5)
    timer = threading.Timer(0.3, inbox.messages[0].ack)
    timer.start()
    start = time.monotonic()
    try:
        connection.drain_events(timeout=8)
    finally:
        timer.join()

    assert inbox.bodies == [1, 2]
    assert time.monotonic() - start < 4


@pytest.mark.parametrize("polling_interval", [0.1, 5])
def test_a_message_comes_at_once_whatever_the_polling_interval(
    broker: Broker, polling_interval: float
) -> None:
    connection = broker.connection(transport_options={"polling_interval": polling_interval})
    inbox = Inbox()
    broker.consumer(connection, "q", inbox)
    seconds_until_timeout(connection, 0.2)
    timer = threading.Timer(0.2, broker.send, ("q", "now"))
    timer.start()
    start = time.monotonic()
    try:
        connection.drain_events(timeout=10)
    finally:
        timer.join()

    assert inbox.bodies == ["now"]
    assert time.monotonic() - start < 2


@pytest.mark.phonon_only("stock wakes with the reply to each BRPOP, once a second")
def test_an_idle_event_loop_looks_up_twice_a_second(broker: Broker) -> None:
    """Celery heeds SIGTERM when its loop comes by; the signal itself does not end the wait."""
    connection = broker.connection()
    broker.consumer(connection, "q")
    hub = Hub()
    set_event_loop(hub)
    try:
        connection.register_with_event_loop(hub)
        assert hub.fire_timers() <= 0.5
    finally:
        connection.release()
        hub.close()
        hub.timer.stop()


@pytest.mark.phonon_only("stock sends a command that it waits for without a limit")
@pytest.mark.real_server("fakeredis cannot be frozen and thawed without losing its clients")
def test_the_timeout_is_kept_while_the_server_is_frozen(own_broker: Broker) -> None:
    connection = own_broker.connection()
    inbox = Inbox()
    own_broker.consumer(connection, "q", inbox)
    seconds_until_timeout(connection, 0.1)
    own_broker.send("other", "warm up the sender")
    own_broker.server.pause()
    try:
        assert seconds_until_timeout(connection, 0.3) < 1.3
    finally:
        own_broker.server.resume()

    own_broker.send("q", "thawed")
    connection.drain_events(timeout=10)
    assert inbox.bodies == ["thawed"]
