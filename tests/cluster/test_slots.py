"""All keys of each script in one slot, as redis-py computes it."""

from __future__ import annotations

import pytest
from redis.crc import key_slot

from phonon_kombu.phonon.fields import Layout, ListAppend, Sum
from phonon_kombu.store import scripts
from phonon_kombu.store.keys import ExchangeKeys, FeedKeys, NodeKeys, QueueKeys
from phonon_kombu.store.phonon_keys import AggregateKeys, ReferenceKeys
from tests.cluster.names import ODD_NAMES

PREFIXES = ("", "app:", "a{b}c:", "%s")
JOB_IDS = ("id", "", "{x}", "}", "a:b", "ü\n")


def slots(keys: list[bytes]) -> set[int]:
    """The slots in which these keys lie."""
    return {key_slot(key) for key in keys}


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", scripts.names())
def test_keys_of_a_script_share_a_slot(name: str, prefix: str) -> None:
    script = scripts.load(name)
    for odd in ODD_NAMES:
        if name.startswith("exchange/"):
            assert len(slots(script.key_list(ExchangeKeys(odd, prefix)))) == 1, repr(odd)
            continue
        if name.startswith(("feed/", "sorted_feed/")):
            assert len(slots(script.key_list(FeedKeys(odd, prefix)))) == 1, repr(odd)
            continue
        if name.startswith(("node/", "lock/")):
            nodes = NodeKeys(prefix)
            assert len(slots(script.key_list(nodes, held=nodes.held("n")))) == 1
            continue
        if name.startswith("chord/"):
            # On a cluster a result is kept by a script of its own, result/store.
            fields = Layout({"n": Sum(), "l": ListAppend()}).keys(odd, prefix, "chord", "chords")
            chord = AggregateKeys(odd, fields, prefix)
            assert len(slots(script.key_list(chord))) == 1, repr(odd)
            continue
        if name.startswith("reference/"):
            assert len(slots(script.key_list(ReferenceKeys(odd, prefix)))) == 1, repr(odd)
            continue
        if name.startswith("model/"):
            record = Layout({"n": Sum(), "l": ListAppend()}).keys(odd, prefix)
            assert len(slots(script.key_list(record))) == 1, repr(odd)
            continue
        if name.startswith("result/"):
            assert len(script.keys) == 1
            continue
        keys = QueueKeys(odd, prefix)
        for job_id in JOB_IDS if "result" in script.keys else ("",):
            given = {"result": keys.result(job_id)} if "result" in script.keys else {}
            found = script.key_list(keys, **given)
            assert len(slots(found)) == 1, (odd, job_id, found)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_all_keys_of_a_queue_share_a_slot(prefix: str) -> None:
    for odd in ODD_NAMES:
        keys = QueueKeys(odd, prefix)
        assert len(slots([*keys.all, keys.result("id")])) == 1, repr(odd)


def test_queues_lie_in_many_slots() -> None:
    """The tag is the queue's name, not something that all queues share."""
    found = {key_slot(QueueKeys(f"queue {n}").items) for n in range(200)}
    assert len(found) > 150
