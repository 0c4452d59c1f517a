"""A foreign client that speaks raw Redis by Thoonk's contract, beside our scripts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from phonon_kombu.errors import NotClaimed
from phonon_kombu.store.keys import finish_channel
from tests.lua.machine import HOUR_MS, Machine
from tests.lua.peer import Peer
from tests.lua.pictures import check
from tests.lua.test_order import claim_all
from tests.servers import wait_for

#: The same key, written in two ways: with hash tags a peer names its feed with the braces.
FORMS = {"braces": ("{work}", True), "bare": ("work", False)}


@pytest.fixture(params=FORMS)
def pair(
    request: pytest.FixtureRequest, make_machine: Callable[..., Machine]
) -> tuple[Machine, Peer]:
    """Ours and a peer, on one queue."""
    feed, hash_tags = FORMS[request.param]
    machine = make_machine("work", hash_tags=hash_tags)
    return machine, Peer(machine, feed)


def nothing_left(m: Machine, done: int) -> None:
    """All jobs are done and no key but the counters remains."""
    picture = m.picture()
    picture.pop("wake", None)
    assert picture == {"publishes": done, "finishes": done}


def test_jobs_of_a_peer_are_ours_to_claim(pair: tuple[Machine, Peer]) -> None:
    ours, peer = pair
    first, second = peer.put("one"), peer.put("two")
    third = peer.put("three", high=True)
    check(ours.picture(), ours.stats())

    reply = ours.claim("A", 9)

    assert reply.jobs == [(third, "three", None), (first, "one", None), (second, "two", None)]
    check(ours.picture(), ours.stats())
    assert not peer.finish("nobody")
    assert ours.finish("A", first, second, third) == 3
    nothing_left(ours, 3)


def test_jobs_of_ours_are_a_peers_to_claim(pair: tuple[Machine, Peer]) -> None:
    ours, peer = pair
    for id in "ab":
        ours.put(id)

    assert peer.get() == ("a", "item of a")
    assert ours.stats()[:4] == [1, 0, 1, 0]
    assert peer.get() == ("b", "item of b")
    assert peer.finish("a")
    assert peer.finish("b", result="42")
    nothing_left(ours, 2)


def test_results_are_announced_to_a_peer(pair: tuple[Machine, Peer]) -> None:
    ours, peer = pair
    channel = finish_channel(peer.feed).decode()
    assert channel == f"job.finish:{peer.feed}"
    subscriber = ours.client.pubsub(ignore_subscribe_messages=True)
    subscriber.subscribe(channel)
    wait_for(lambda: ours.client.pubsub_numsub(channel)[0][1] == 1)
    id = peer.put("question")
    ours.claim()
    result = ours.keys.result(id)
    args = (id, "A", "answer", HOUR_MS, channel)
    ours.run("job/resolve", *args, result=result)

    message = wait_for(subscriber.get_message, message="no result was announced")

    assert message["data"] == f"{id}\0answer".encode()
    assert ours.client.hgetall(result) == {b"query": b"question", b"result": b"answer"}
    subscriber.close()
    ours.client.delete(result)
    nothing_left(ours, 1)


def test_both_take_from_one_queue_each_job_once(pair: tuple[Machine, Peer]) -> None:
    ours, peer = pair
    ids = [ours.put(f"o{n}") if n % 2 else peer.put(f"p{n}") for n in range(20)]

    taken = []
    for n in range(10):
        taken += ours.claim("A", 1).ids if n % 2 else [peer.get()[0]]
    taken += claim_all(ours)

    assert taken == ids


def test_what_a_peer_claimed_is_not_our_owners_to_end(pair: tuple[Machine, Peer]) -> None:
    ours, peer = pair
    ours.put("x")
    peer.get()
    before = ours.picture()

    assert ours.finish("A", "x") == 0
    assert ours.cancel("A", "x") == 0
    assert ours.recover("A") == 0
    with pytest.raises(NotClaimed):
        ours.resolve("x", "A")
    assert ours.picture() == before
    assert ours.finish("", "x") == 1
    nothing_left(ours, 1)


def test_a_dead_peers_claim_comes_back_after_claim_timeout(pair: tuple[Machine, Peer]) -> None:
    ours, peer = pair
    id = peer.put("work")
    peer.get()
    ours.pass_time(2 * HOUR_MS)
    assert ours.maintain() == [0, 0, 0]
    ours.configure(claim_timeout=HOUR_MS)

    assert ours.maintain() == [0, 0, 1]

    assert ours.claim().jobs == [(id, "work", 1)]


def test_a_peer_cancels_what_we_claimed(pair: tuple[Machine, Peer]) -> None:
    ours, peer = pair
    ours.put("x")
    ours.claim("A")

    assert peer.cancel("x")

    assert ours.stats()[:4] == [1, 0, 0, 0]
    assert ours.claim("B").jobs == [("x", "item of x", 1)]
    assert ours.finish("A", "x") == 0
    assert ours.finish("B", "x") == 1
    nothing_left(ours, 1)


def test_a_peer_finishes_what_we_claimed(pair: tuple[Machine, Peer]) -> None:
    """What we finish again then counts for nothing, and clears our part of it up."""
    ours, peer = pair
    ours.put("x")
    ours.claim("A")

    assert peer.finish("x")
    assert ours.finish("A", "x") == 0

    nothing_left(ours, 1)


def test_stall_and_retry_across_the_two(pair: tuple[Machine, Peer]) -> None:
    ours, peer = pair
    ours.put("x")
    ours.claim("A")
    assert peer.stall("x")
    assert ours.stats()[:4] == [0, 0, 0, 1]
    assert not peer.stall("x")
    assert ours.retry("x") == "x"
    assert peer.get() == ("x", "item of x")
    assert ours.stall("x") == "x"
    assert not peer.finish("x")
    assert peer.retry("x")
    assert not peer.retry("x")
    assert ours.claim("A").jobs == [("x", "item of x", None)]


def test_a_peer_retries_what_we_stalled_while_it_was_ready(pair: tuple[Machine, Peer]) -> None:
    """Its old entry still stands in the list; it is claimed once."""
    ours, peer = pair
    ours.put("x")
    ours.put("y")
    ours.stall("x")

    assert peer.retry("x")

    assert claim_all(ours) == ["y", "x"]
    assert ours.finish("A", "x", "y") == 2
    assert "ids" not in ours.picture() and "ghosts" not in ours.picture()


@pytest.mark.parametrize("state", ["ready", "claimed", "stalled"])
def test_a_peer_retracts_a_job_of_ours(pair: tuple[Machine, Peer], state: str) -> None:
    ours, peer = pair
    ours.put("x")
    if state != "ready":
        ours.claim("A")
    if state == "stalled":
        ours.stall("x")

    assert peer.retract("x")

    assert ours.stats()[:4] == [0, 0, 0, 0]
    assert ours.finish("A", "x") == 0
    assert ours.claim("A").jobs == []
    assert ours.put("x") == "x"
    assert ours.claim("A").ids == ["x"]


@pytest.mark.parametrize("state", ["ready", "claimed"])
def test_we_retract_a_job_of_a_peer(pair: tuple[Machine, Peer], state: str) -> None:
    ours, peer = pair
    id = peer.put("work")
    if state == "claimed":
        peer.get()

    assert ours.retract(id) == id

    assert not peer.finish(id)
    assert ours.claim("A").jobs == []
    assert ours.stats()[:4] == [0, 0, 0, 0]


def test_a_peer_that_dies_between_pop_and_claim_loses_no_job(pair: tuple[Machine, Peer]) -> None:
    ours, peer = pair
    for id in "abc":
        ours.put(id)
    assert peer.pop() == "a"
    assert ours.run("job/census") == [3, 2]

    assert ours.relist("a", "nobody") == 1

    assert ours.run("job/census") == [3, 3]
    check(ours.picture(), ours.stats())
    assert claim_all(ours) == ["a", "b", "c"]


def test_a_peers_maintenance_relists_what_it_lost(pair: tuple[Machine, Peer]) -> None:
    ours, peer = pair
    ours.put("x")
    peer.pop()

    assert peer.maintain() == ["x"]
    assert claim_all(ours) == ["x"]
    assert peer.maintain() == []


def test_a_peers_maintenance_does_not_make_a_job_run_twice(pair: tuple[Machine, Peer]) -> None:
    """It does not know our levels and schedule and lists those ids in its own list too."""
    ours, peer = pair
    ours.put("level", level=3)
    ours.put("later", delay_ms=HOUR_MS)
    assert peer.maintain() == ["later", "level"]

    assert sorted(claim_all(ours)) == ["later", "level"]
    ours.pass_time(2 * HOUR_MS)
    assert ours.claim("B", 9).jobs == []
    assert ours.finish("A", "later", "level") == 2
    assert ours.claim("B", 9).jobs == []


@pytest.mark.parametrize("count", [1, 9])
def test_an_id_that_a_peer_lists_twice_is_claimed_once(
    pair: tuple[Machine, Peer], count: int
) -> None:
    ours, peer = pair
    for id in "ab":
        ours.put(id)
    ours.client.lpush(peer.key("ids"), "a", "b", "a")

    assert claim_all(ours, count) == ["a", "b"]
    assert "ids" not in ours.picture()


@pytest.mark.parametrize("count", [1, 9])
def test_an_id_listed_twice_of_which_a_peer_claimed_one_is_not_ours(
    pair: tuple[Machine, Peer], count: int
) -> None:
    ours, peer = pair
    for id in "ab":
        ours.put(id)
    ours.client.lpush(peer.key("ids"), "a")
    assert peer.get() == ("a", "item of a")
    ours.pass_time(5)

    assert claim_all(ours, count) == ["b"]
    assert peer.finish("a")


def test_a_foreign_entry_without_an_item_is_left_out(pair: tuple[Machine, Peer]) -> None:
    ours, peer = pair
    ours.client.lpush(peer.key("ids"), "nothing")
    ours.put("x")

    assert claim_all(ours) == ["x"]
    check(ours.picture(), ours.stats())
