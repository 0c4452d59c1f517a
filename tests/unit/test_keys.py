"""The names of keys, exactly as Thoonk's contract spells them."""

from __future__ import annotations

import itertools

import pytest

from phonon_kombu.store import keys as keys_module
from phonon_kombu.store.keys import (
    ADDED_PARTS,
    CONTRACT_PARTS,
    LEVELS,
    ExchangeKeys,
    QueueKeys,
    exchange_keys,
    feeds_key,
    finish_channel,
    layout_key,
    queue_keys,
)

#: The contract's keys of a queue of jobs called F.
CONTRACT = {
    "ids": b"feed.ids:F",
    "items": b"feed.items:F",
    "publishes": b"feed.publishes:F",
    "finishes": b"feed.finishes:F",
    "published": b"feed.published:F",
    "claimed": b"feed.claimed:F",
    "cancelled": b"feed.cancelled:F",
    "stalled": b"feed.stalled:F",
    "config": b"feed.config:F",
}


def test_the_contracts_names_without_hash_tags() -> None:
    keys = QueueKeys("F", hash_tags=False)
    assert {part: getattr(keys, part) for part in CONTRACT_PARTS} == CONTRACT


def test_the_contracts_names_with_hash_tags() -> None:
    """A peer that names its feed {F} speaks of the same keys."""
    keys = QueueKeys("F")
    bare = QueueKeys("{F}", hash_tags=False)
    assert keys.all == bare.all
    assert keys.items == b"feed.items:{F}"
    assert keys.result("id") == bare.result("id")


def test_names_beside_a_queue() -> None:
    assert feeds_key() == b"feeds"
    assert finish_channel("F") == b"job.finish:F"


def test_added_parts_have_names_of_their_own() -> None:
    keys = QueueKeys("F", hash_tags=False)
    for part in ADDED_PARTS:
        assert getattr(keys, part) == f"feed.{part}:F".encode()
    assert not set(ADDED_PARTS) & set(CONTRACT_PARTS)


def test_levels_begin_with_the_contracts_list() -> None:
    keys = QueueKeys("F", hash_tags=False)
    assert len(keys.levels) == LEVELS
    assert keys.levels[0] == keys.ids
    assert keys.levels[9] == b"feed.ids.9:F"


def test_all_are_all() -> None:
    keys = QueueKeys("F")
    parts = {getattr(keys, part) for part in (*CONTRACT_PARTS, *ADDED_PARTS)}
    assert set(keys.all) == parts | set(keys.levels)
    assert len(set(keys.all)) == len(keys.all)


@pytest.mark.parametrize("prefix", ["app:", "%s", "a%sb", "{x}", "ü"])
def test_a_prefix_stands_before_every_key(prefix: str) -> None:
    coded = prefix.encode()
    keys, plain = QueueKeys("F", prefix), QueueKeys("F")
    assert keys.all == tuple(coded + key for key in plain.all)
    assert keys.result("id") == coded + plain.result("id")
    exchange = ExchangeKeys("x", prefix)
    assert exchange.bindings == coded + ExchangeKeys("x").bindings
    assert exchange.version == coded + ExchangeKeys("x").version
    assert layout_key(prefix) == coded + layout_key()
    assert feeds_key(prefix) == coded + feeds_key()
    assert finish_channel("F", prefix) == coded + finish_channel("F")


#: Names of queues that are easily taken for each other.
LOOKALIKES = (
    "", "%", "%%", "%}", "}", "{", "{}", "}{", "a", "{a}", "}a", "%7Da", "%}a", "%7D", "a}", "{a",
    "a{b}", "ids", "ids.1", ".1:a", "result", "A", "a ", " a", "a\n", "\udcff", "ÿ", "a:b", "b",
)  # fmt: skip


@pytest.mark.parametrize("hash_tags", [True, False])
def test_no_two_queues_share_a_key(hash_tags: bool) -> None:
    sets = {name: set(QueueKeys(name, hash_tags=hash_tags).all) for name in LOOKALIKES}
    for one, other in itertools.combinations(LOOKALIKES, 2):
        assert not sets[one] & sets[other], (one, other)


def test_no_two_exchanges_share_a_key() -> None:
    found = [ExchangeKeys(name) for name in LOOKALIKES]
    assert len({keys.bindings for keys in found} | {keys.version for keys in found}) == 2 * len(
        LOOKALIKES
    )


def test_no_result_has_the_name_of_a_part() -> None:
    keys = QueueKeys("F")
    ids = ("", "id", "a:b", "{x}", "}", "ids", "F}:x")
    results = {keys.result(job_id) for job_id in ids}
    assert len(results) == len(ids)
    assert not results & set(keys.all)


def test_names_are_any_text() -> None:
    """A name that came as bytes which are no UTF-8 is written as those bytes."""
    raw = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert QueueKeys(raw).items == b"feed.items:{\xff\xfe}"
    assert QueueKeys("ü\n").items == "feed.items:{ü\n}".encode()


def test_keys_of_a_queue_are_made_once() -> None:
    assert queue_keys("F", "p") is queue_keys("F", "p")
    assert queue_keys("F", "p") is not queue_keys("F")
    assert queue_keys("F", "", False).all != queue_keys("F").all
    assert exchange_keys("x") is exchange_keys("x")


def test_every_part_says_what_it_holds() -> None:
    for text in (*CONTRACT_PARTS.values(), *ADDED_PARTS.values()):
        assert text.split()[0] in {"LIST", "HASH", "ZSET", "SET", "counter"}
    assert keys_module.__doc__
