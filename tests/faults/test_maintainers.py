"""Recovery itself: by two at once, cut off in the middle, and of very many claims."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from phonon_kombu.phonon import upkeep
from phonon_kombu.phonon.heart import Heart, Settings
from phonon_kombu.phonon.recovery import finish_recovery
from phonon_kombu.store.client import Link
from phonon_kombu.store.keys import NodeKeys
from phonon_kombu.store.scripts import load
from tests.faults.proxy import Proxy
from tests.lua.machine import Machine, connect
from tests.servers import RedisServer, wait_for

NODE = "0123456789abcdef"
#: However many claims there are, other commands need never wait longer for one slice.
SLICE_SECONDS = 0.25
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


@pytest.fixture
def machine(redis_server: RedisServer, redis_db: str) -> Iterator[Machine]:
    """A queue."""
    machine = Machine(redis_server, "q")
    yield machine
    machine.close()


@pytest.fixture
def untagged(redis_server: RedisServer, redis_db: str) -> Iterator[Machine]:
    """A queue of those who use no hash tags."""
    machine = Machine(redis_server, "q", hash_tags=False)
    yield machine
    machine.close()


def claimed_by_the_dead(
    machine: Machine, count: int, wire: bytes = b"{q}"
) -> tuple[list[str], bytes]:
    """Put `count` jobs, let NODE claim them all and die; their ids, and when it died."""
    ids = [f"j{n:05}" for n in range(count)]
    put = load("job/append").prepare(machine.keys)
    for start in range(0, count, 500):
        machine.link.send([(put, (i.encode(), b"item", b"")) for i in ids[start : start + 500]])
    nodes = NodeKeys()
    machine.link.command(b"SADD", nodes.held(NODE), wire)
    machine.link.run(load("node/beat").prepare(nodes), (NODE.encode(), b"r:7", b"{}", b"1"))
    claimed: list[str] = []
    while len(claimed) < count:
        claimed += machine.claim(f"{NODE}.1", 500).ids
    dead_ms = machine.link.run(load("node/bury").prepare(nodes), (NODE.encode(), b"r:7", b"60000"))
    assert dead_ms
    return ids, b"%d" % dead_ms


def give_back(link: Link, dead_ms: bytes) -> int:
    """What the elected heart does about a dead node."""
    return finish_recovery(link, NODE, dead_ms, NodeKeys(), 20)


def check(machine: Machine, ids: list[str]) -> None:
    """Each job is ready, once, having failed once; nothing is left of the node."""
    picture = machine.picture()
    assert sorted(picture["ids"]) == ids
    assert set(picture["cancelled"].values()) == {1} and len(picture["cancelled"]) == len(ids)
    assert "claimed" not in picture and "ghosts" not in picture
    assert machine.client.keys("node.*") == []


def test_two_maintainers_at_once(machine: Machine, redis_server: RedisServer) -> None:
    ids, dead_ms = claimed_by_the_dead(machine, 3000)
    given: list[int] = []
    barrier = threading.Barrier(2)

    def maintain() -> None:
        link = connect(redis_server)
        barrier.wait()
        given.append(give_back(link, dead_ms))
        link.close()

    threads = [threading.Thread(target=maintain) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"given back by the two: {given}")
    assert sum(given) == len(ids)
    check(machine, ids)


def maintain_and_die(port: int, dead_ms: bytes) -> None:
    """The maintainer that is killed: its connection is watched."""
    server = RedisServer.__new__(RedisServer)
    server.port = port
    give_back(connect(server), dead_ms)
    time.sleep(60)


@pytest.mark.parametrize("when", ["sent", "answered"])
@pytest.mark.parametrize("at", [1, 2, 4, 7])
def test_a_maintainer_is_killed_in_mid_recovery(
    machine: Machine, redis_server: RedisServer, at: int, when: str
) -> None:
    ids, dead_ms = claimed_by_the_dead(machine, 1500)
    with Proxy(redis_server.port) as proxy:
        victim = CONTEXT.Process(target=maintain_and_die, args=(proxy.port, dead_ms), daemon=True)
        victim.start()
        proxy.crash_at(at, when, lambda: os.kill(victim.pid, signal.SIGKILL))  # type: ignore
        victim.join(30)
        assert proxy.crashed.is_set()
    left = len(machine.picture().get("claimed", {}))
    link = connect(redis_server)
    assert give_back(link, dead_ms) == left
    link.close()
    print(f"killed at command {at}, {when}: {left} of {len(ids)} were left to the next")
    assert left > 0
    check(machine, ids)


def test_ten_thousand_claims(machine: Machine, redis_server: RedisServer) -> None:
    """In slices; other clients go on meanwhile."""
    ids, dead_ms = claimed_by_the_dead(machine, 10_000)
    longest, over = [0.0], threading.Event()

    def ping() -> None:
        link = connect(redis_server)
        while not over.is_set():
            started = time.perf_counter()
            link.command(b"PING")
            longest[0] = max(longest[0], time.perf_counter() - started)
        link.close()

    thread = threading.Thread(target=ping)
    thread.start()
    started = time.perf_counter()
    try:
        assert give_back(machine.link, dead_ms) == len(ids)
    finally:
        took = time.perf_counter() - started
        over.set()
        thread.join()
    print(f"10,000 claims given back in {took:.2f} s; another client waited {longest[0]:.3f} s")
    assert longest[0] < SLICE_SECONDS
    check(machine, ids)


def test_what_is_claimed_after_the_death_is_left_alone(machine: Machine) -> None:
    """The process woke, and claims again before it knows that it was declared dead."""
    ids, dead_ms = claimed_by_the_dead(machine, 3)
    while machine.clock_ms() <= int(dead_ms):
        pass
    machine.put("new")
    assert machine.claim(f"{NODE}.1").ids == ["new"]
    assert give_back(machine.link, dead_ms) == 3
    picture = machine.picture()
    assert sorted(picture["ids"]) == ids
    assert picture["claimed"].keys() == {"new"}

    # It has not joined, so it stays among the dead, and is looked at again.
    again_ms = machine.client.zscore("node.dying:{nodes}", NODE)
    assert again_ms == pytest.approx(int(dead_ms) + 60_000, abs=30_000)
    assert give_back(machine.link, b"%d" % again_ms) == 1
    assert sorted(machine.picture()["ids"]) == [*ids, "new"]
    assert machine.client.keys("node.*") == []


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with others"])
def test_claims_of_a_node_that_nobody_knows(machine: Machine, alone: bool) -> None:
    """Taken for dead, forgotten, awake, killed just after it had claimed again."""
    machine.put("job")
    assert machine.claim(f"{NODE}.1").ids == ["job"]
    nodes, link = NodeKeys(), connect(machine.server)
    if not alone:
        link.run(load("node/beat").prepare(nodes), (b"another", b"", b"{}", b"1"))
    heart = Heart("fedcba9876543210", link, "", Settings(node_ttl=1.0, heartbeat_interval=0.3))
    heart.hold(b"{q}", machine.link)
    heart.start()
    try:
        wait_for(lambda: machine.picture().get("ids") == ["job"], message="it stays claimed")
        wait_for(lambda: not machine.client.exists(nodes.dying), message="it is not forgotten")
        assert not machine.client.exists(nodes.held(NODE))
    finally:
        heart.stop(goodbye=True)


def test_who_lives_and_is_unknown_joins_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it holds is its own: somebody has taken its beat away, and nobody its claims."""
    monkeypatch.setattr(upkeep, "ROUND_SECONDS", 0.2)
    machine.put("job")
    # The other one is elected, and looks at the owners several times before the next beat.
    elected = "fedcba9876543210"
    machine.link.run(load("node/elect").prepare(NodeKeys()), (elected.encode(), b"10000"))
    other = Heart(elected, connect(machine.server), "", Settings(node_ttl=10.0))
    heart = Heart(
        NODE, connect(machine.server), "", Settings(node_ttl=10.0, heartbeat_interval=3.5)
    )
    for beating in (other, heart):
        beating.hold(b"{q}", machine.link)
    other.start()
    try:
        heart.start()
        assert machine.claim(f"{NODE}.1").ids == ["job"]
        assert machine.client.zrem("node.beats:{nodes}", NODE) == 1
        wait_for(lambda: machine.client.zscore("node.dying:{nodes}", NODE), message="not found")
        wait_for(lambda: machine.client.zscore("node.beats:{nodes}", NODE), message="not joined")
        assert not machine.client.exists("node.dying:{nodes}")
        assert machine.picture()["claimed"].keys() == {"job"}
    finally:
        heart.stop(goodbye=True)
        other.stop(goodbye=True)


def test_claims_without_hash_tags_are_found_by_who_has_them(untagged: Machine) -> None:
    """A process with both kinds of sessions has one heart, and so has who looks after it."""
    ids, dead_ms = claimed_by_the_dead(untagged, 3, b"q")
    assert give_back(untagged.link, dead_ms) == 3
    check(untagged, ids)


def test_who_joins_again_keeps_what_was_not_given_back(machine: Machine) -> None:
    """It lives: what nobody has taken from it yet is its own."""
    ids, dead_ms = claimed_by_the_dead(machine, 3)
    nodes = NodeKeys()
    machine.link.run(load("node/beat").prepare(nodes), (NODE.encode(), b"r:8", b"{}", b"1"))
    assert machine.client.zcard(nodes.dying) == 0
    assert sorted(machine.picture()["claimed"]) == ids
    assert machine.finish(f"{NODE}.1", *ids) == 3
    assert give_back(machine.link, dead_ms) == 0
    assert machine.client.zscore(nodes.beats, NODE) is not None


def test_keys_of_the_dead(machine: Machine) -> None:
    """A node that has joined again is not forgotten when the recovery of its former life ends."""
    _, dead_ms = claimed_by_the_dead(machine, 1)
    assert give_back(machine.link, dead_ms) == 1
    nodes = NodeKeys()
    machine.link.run(load("node/beat").prepare(nodes), (NODE.encode(), b"r:8", b"{}", b"1"))
    machine.link.command(b"SADD", nodes.held(NODE), b"{q}")
    assert give_back(machine.link, dead_ms) == 0
    assert machine.client.zscore(nodes.beats, NODE) is not None
    assert machine.client.smembers(nodes.held(NODE)) == {b"{q}"}
