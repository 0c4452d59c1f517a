"""The heart of a process: it comes back, it is joined and left by threads, it says goodbye."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from phonon_kombu.phonon.connections import server_of
from phonon_kombu.phonon.heart import Heart, Settings
from phonon_kombu.store.sentinels import Settings as BySentinel
from phonon_kombu.transport import orphans
from tests.kombu.exam import Broker
from tests.servers import wait_for

SETTINGS = Settings(presence_grace=0.5, heartbeat_interval=1000.0)


@pytest.fixture
def started(redis_db: str) -> Iterator[Callable[[str], Heart]]:
    server = server_of(f"phonon://{redis_db}", 6379, 0, {}, BySentinel(None, None, None))
    hearts: list[Heart] = []

    def start(node: str) -> Heart:
        heart = Heart(node, server.link(), "", SETTINGS)
        heart.start()
        hearts.append(heart)
        return heart

    yield start
    for heart in hearts:
        if not heart._ended.is_set():
            heart.stop(goodbye=False)
    server.disconnect()


def test_risen_and_not_alone(started: Callable[[str], Heart], redis_client: redis.Redis) -> None:
    """It does not think that it is alone, and so sleep until its next beat."""
    started("risen")
    other = started("other")
    # The first one was taken for dead, and its next beat is due: its connection is broken.
    presence = redis_client.hget("node.presence:{nodes}", "risen")
    redis_client.zrem("node.beats:{nodes}", "risen")
    redis_client.client_kill_filter(_id=presence.decode().partition(":")[2])
    wait_for(lambda: redis_client.zscore("node.beats:{nodes}", "risen") is not None)
    # Now the other one dies.
    other.stop(goodbye=False)
    wait_for(lambda: redis_client.zscore("node.beats:{nodes}", "other") is None)


@pytest.mark.phonon_only("stock's come back after the visibility timeout")
def test_what_was_not_to_be_given_back_at_the_end_is_in_the_end(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While this process uses the database it stays claimed; then it is a dead one's."""
    monkeypatch.setattr(orphans, "_left", set())  # it is this process's, and other tests' too
    options = {"presence_grace": 0.2}
    other = broker.peer(transport_options=options)
    broker.send("q", 1, 2)
    broker.send("other", 3)
    assert other("hold", queue="other", count=1) == [3]
    lasting = broker.connection(transport_options=options)
    assert lasting.default_channel.basic_get("q").payload == 1
    with broker.connection(transport_options=options) as connection:
        channel = connection.default_channel
        channel.do_restore = False
        assert channel.basic_get("q").payload == 2
    assert broker.client.hlen("feed.owners:{q}") == 2
    lasting.default_channel.qos.restore_at_shutdown = False
    lasting.release()
    wait_for(lambda: broker.client.llen("feed.ids:{q}") == 2, 20)


@pytest.mark.phonon_only("stock has no nodes")
def test_who_joins_is_not_taken_along_by_a_goodbye(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One channel of a process is the last to be closed, another begins to consume meanwhile."""
    broker.send("q", 1)
    old, new = broker.connection(), broker.connection()
    assert old.default_channel.basic_get("other") is None
    assert new.default_channel.basic_ack  # connected
    leaving, joined = threading.Event(), threading.Event()
    stop = Heart.stop

    def stop_late(heart: Heart, goodbye: bool) -> None:
        leaving.set()
        joined.wait(0.5)
        stop(heart, goodbye)

    monkeypatch.setattr(Heart, "stop", stop_late)
    thread = threading.Thread(target=old.release)
    thread.start()
    try:
        assert leaving.wait(10)
        message = new.default_channel.basic_get("q")
        assert message is not None
    finally:
        joined.set()
        thread.join()
    (owner,) = broker.client.hvals("feed.owners:{q}")
    assert broker.client.zscore("node.beats:{nodes}", owner.partition(b".")[0]) is not None
    message.ack()
    new.release()


@pytest.mark.real_server("fakeredis cannot be frozen")
@pytest.mark.phonon_only("stock has no nodes")
def test_a_silent_server_keeps_nobody_from_joining_another(
    broker: Broker, own_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting, errors = threading.Event(), []
    start = Heart.start

    def note_start(heart: Heart) -> None:
        starting.set()
        start(heart)

    connection = own_broker.connection(transport_options={"socket_timeout": 3})
    channel = connection.default_channel
    assert channel.queue_declare("q")

    def join_silent() -> Any:
        try:
            return channel.basic_get("q")
        except Exception as error:
            errors.append(error)

    monkeypatch.setattr(Heart, "start", note_start)
    thread = threading.Thread(target=join_silent)
    own_broker.server.pause()
    try:
        thread.start()
        assert starting.wait(10)
        assert broker.connection().default_channel.basic_get("q") is None
        assert thread.is_alive()
        thread.join()
    finally:
        own_broker.server.resume()
    assert isinstance(errors[0], connection.connection_errors)
