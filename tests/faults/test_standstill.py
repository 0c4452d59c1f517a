"""The server stands still, or its clock jumps: nobody could beat, and nobody is dead for that."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from phonon_kombu.phonon import recovery
from phonon_kombu.phonon.node import node_id
from phonon_kombu.phonon.recovery import Judge, clock_ms
from phonon_kombu.store.client import Link
from phonon_kombu.store.keys import NodeKeys
from phonon_kombu.store.scripts import load
from tests.kombu.exam import Broker
from tests.lua.machine import connect
from tests.servers import RedisServer, freeze, wait_for

NODES = NodeKeys()
HOUR_MS = 3_600_000
PATIENCE_SECONDS = 0.3


@pytest.fixture
def link(redis_server: RedisServer, redis_db: str) -> Iterator[Link]:
    """To a server where two nodes have beaten; CLIENT LIST shows neither."""
    link = connect(redis_server)
    for node in (b"judge", b"other"):
        link.run(load("node/beat").prepare(NODES), (node, b"", b"{}", b"1"))
    yield link
    link.close()


@pytest.fixture
def judge(link: Link, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """One who has been there for long enough to tell who is dead."""
    monkeypatch.setattr(recovery, "STANDSTILL_SECONDS", 0.2)
    monkeypatch.setattr(recovery, "LOOK_SECONDS", 0.1)
    judge = Judge(NODES, 60.0, PATIENCE_SECONDS, PATIENCE_SECONDS)
    ended = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() <= ended:
        assert judge.verdicts(link, b"") == {}
        time.sleep(0.02)
    return judge


def overdue(link: Link) -> None:
    """The beat of the other one is an hour old."""
    link.command(b"ZADD", NODES.beats, b"%d" % (int(clock_ms(link)) - HOUR_MS), b"other")


def test_an_old_beat_is_death(link: Link, judge: Judge) -> None:
    overdue(link)
    assert judge.verdicts(link, b"").keys() == {"other"}


def test_after_a_standstill_everybody_may_beat_again(link: Link, judge: Judge) -> None:
    time.sleep(0.3)  # nobody has heard of the server for so long
    overdue(link)
    began = time.monotonic()
    assert judge.verdicts(link, b"") == {}
    dead: dict[str, bytes] = {}
    while not dead:
        dead = judge.verdicts(link, b"")
        time.sleep(0.02)
    assert dead.keys() == {"other"}
    assert time.monotonic() - began >= PATIENCE_SECONDS


@pytest.mark.parametrize("by", ["beat", "presence"])
def test_the_dead_are_found_where_all_stands_still_again_and_again(
    link: Link, judge: Judge, by: str
) -> None:
    """Or where the one who looks has hardly a moment for it."""
    info, mine = link.send(((b"INFO", b"server"), (b"CLIENT", b"ID")))
    run_id = next(line[7:] for line in info.split() if line.startswith(b"run_id:"))
    if by == "beat":
        overdue(link)
    else:
        link.command(b"HSET", NODES.presence, b"other", run_id + b":999999999")
    dead: dict[str, bytes] = {}
    until = time.monotonic() + 20
    while not dead and time.monotonic() < until:
        time.sleep(0.25)
        dead = judge.verdicts(link, run_id + b":%d" % mine)
    assert dead.keys() == {"other"}


@pytest.mark.parametrize("hours", [1, -1], ids=["ahead", "behind"])
def test_after_a_jump_of_the_clock_everybody_may_beat_again(
    link: Link, judge: Judge, hours: int
) -> None:
    judge.heard(int(clock_ms(link)) - hours * HOUR_MS)
    overdue(link)
    assert judge.verdicts(link, b"") == {}


def test_who_is_new_lets_others_beat_first(link: Link) -> None:
    """All may have waited for the server: who is connected first must not bury the rest."""
    overdue(link)
    assert Judge(NODES, 60.0, 60.0, PATIENCE_SECONDS).verdicts(link, b"") == {}


def test_the_server_stands_still_for_longer_than_a_node_may_be_silent() -> None:
    """Two consumers; the one that looks after the other is the first to be answered again."""
    options: Any = {"node_ttl": 4, "heartbeat_interval": 1}
    server = RedisServer().start()
    try:
        with Broker("phonon", server) as broker:
            broker.send("q", 1, 2)
            connection = broker.connection(transport_options=options)
            connection.default_channel.hold("other")
            peer = broker.peer(transport_options=options)
            assert peer("hold", queue="q", count=2) == [1, 2]
            mine = node_id(connection.default_channel.server_identity).encode()

            freeze(peer.process.pid)
            wait_for(lambda: broker.client.get("node.lock:{nodes}") == mine, message="not elected")
            freeze(server.process.pid)
            time.sleep(5)
            os.kill(server.process.pid, signal.SIGCONT)

            began = looks(broker)
            wait_for(lambda: looks(broker) >= began + 2, message="nobody has looked")
            assert broker.client.zcard("node.dying:{nodes}") == 0
            assert broker.client.zcard("node.beats:{nodes}") == 2
            peer.process.send_signal(signal.SIGCONT)
            peer("ack_all")
            wait_for(lambda: not broker.client.hlen("feed.items:{q}"), message="not finished")
            connection.release()
    finally:
        server.stop()


def looks(broker: Broker) -> int:
    """How often the elected one has asked who is connected."""
    stats: Any = broker.client.info("commandstats")
    return int(stats.get("cmdstat_client|list", {}).get("calls", 0))
