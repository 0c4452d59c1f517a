"""A process that was taken for dead while it worked on records, and is back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from phonon_kombu.phonon.connections import Connections
from phonon_kombu.phonon.orphans import abandon
from phonon_kombu.phonon.records import Records
from phonon_kombu.store.phonon_keys import RecordKeys

NODE = "0" * 16
OWNER = f"{NODE}.1".encode()


@pytest.fixture
def made(url: str) -> Iterator[Connections]:
    with Connections(url) as found:
        yield found


@pytest.fixture
def closer(made: Connections, redis_client: redis.Redis) -> tuple[Records, RecordKeys]:
    """It was the last one out of a record, and is completing it since the time 1000 ms."""
    records, keys = Records(made.hosts[0], OWNER), RecordKeys("Visit.1")
    records.hold(keys)
    redis_client.hset(keys.row, mapping={"~id": b"1", "~closer": OWNER, "~since": 1000})
    redis_client.srem(keys.holders, OWNER)
    return records, keys


def test_what_it_completes_too_late_is_completed_by_another(
    made: Connections, closer: tuple[Records, RecordKeys]
) -> None:
    """It does not take the orphan away from those who look for orphans."""
    records, keys = closer
    assert abandon(made.hosts[0].link, NODE, b"1001") == 0
    assert not records.close(keys)
    other = Records(made.hosts[0], b"1" * 16 + b".1")
    assert other.orphans() == ["Visit.1"]
    assert other.adopt(keys) == b"1"
    assert other.close(keys)
    assert other.orphans() == []


def test_what_it_began_to_complete_since_then_is_its_own(
    made: Connections, closer: tuple[Records, RecordKeys], redis_client: redis.Redis
) -> None:
    """Whoever gives back what it held is late; if it dies after all, that is found later."""
    records, keys = closer
    link = made.hosts[0].link
    assert abandon(link, NODE, b"1000") == 1
    assert records.orphans() == []
    assert redis_client.hget(keys.row, "~closer") == OWNER
    assert abandon(link, NODE, b"61000") == 0
    assert records.orphans() == ["Visit.1"]
    assert not records.close(keys)
