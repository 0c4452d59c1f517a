"""Records whose holders have all died: many of them, and what happens in between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from phonon_kombu.phonon import field, sending
from phonon_kombu.phonon.connections import Connections
from phonon_kombu.phonon.model import Model
from phonon_kombu.phonon.orphans import SLICE, abandon
from phonon_kombu.phonon.records import Records
from phonon_kombu.phonon.registry import Registry
from phonon_kombu.store.client import Link, load_scripts
from phonon_kombu.store.phonon_keys import ModelsKeys, RecordKeys
from phonon_kombu.store.scripts import load
from tests.servers import RedisServer, wait_for
from tests.thoonk.lossy import LossyLine

NODE = "0" * 16
OWNER = f"{NODE}.1".encode()


class Orphaned(Model):
    """Notes what was completed."""

    TTL = 3600.0
    n = field.SumField()
    completed: list[int] = []

    def on_complete(self, *messages: Any) -> None:
        self.completed.append(self.n)


@pytest.fixture
def made(url: str) -> Iterator[Connections]:
    Orphaned.completed.clear()
    with Connections(url) as found:
        yield found


@pytest.fixture
def one(made: Connections) -> Iterator[Registry]:
    registry = Registry(connections=made)
    yield registry
    registry.close()


def test_those_that_nobody_knows_do_not_starve_the_others(
    monkeypatch: pytest.MonkeyPatch, one: Registry, redis_client: redis.Redis
) -> None:
    """No look reads all of them; the next one goes on where it has ended, and begins anew."""
    monkeypatch.setattr(sending, "ORPHAN_SECONDS", 0.01)
    pipe = redis_client.pipeline()
    names = [f"Unknown.{n}" for n in range(2 * SLICE)] + [f"Orphaned.{n}" for n in range(SLICE)]
    for n, name in enumerate(names):
        pipe.hset(f"model.row:{{{name}}}", mapping={"~id": name.partition(".")[2], "n": n})
        pipe.zadd("model.orphans:{models}", {name: n})
    pipe.execute()
    one.register(Orphaned(id="mine", n=1))
    wait_for(lambda: len(Orphaned.completed) == SLICE)
    pipe = redis_client.pipeline()
    pipe.hset("model.row:{Orphaned.late}", mapping={"~id": '"late"', "n": -1})
    pipe.zadd("model.orphans:{models}", {"Orphaned.late": -1})
    pipe.execute()
    wait_for(lambda: len(Orphaned.completed) == SLICE + 1)
    assert sorted(Orphaned.completed) == [-1, *range(2 * SLICE, 3 * SLICE)]
    assert redis_client.zcard("model.orphans:{models}") == 2 * SLICE


def test_what_we_hold_is_no_orphan(one: Registry, redis_client: redis.Redis) -> None:
    """It was one when we came to hold it; if we are its closer then, that is for us to hear."""
    one.register(Orphaned(id=1, n=1))
    records = next(iter(one._records.values()))
    redis_client.zadd("model.orphans:{models}", {"Orphaned.1": 0})
    # We have left it last, and the reply is on its way.
    redis_client.srem("model.holders:{Orphaned.1}", records.owner)
    redis_client.hset(
        "model.row:{Orphaned.1}", mapping={"~id": "1", "~closer": records.owner, "~since": 1}
    )
    one._adopt()
    assert one._completions.none and not Orphaned.completed
    redis_client.hdel("model.row:{Orphaned.1}", "~closer")
    one.close()
    assert Orphaned.completed == [1]


def test_the_last_one_out_hears_of_it_too_late(
    made: Connections, one: Registry, redis_server: RedisServer
) -> None:
    """The reply was lost, and others complete the record: what they have not seen is not lost."""
    line = LossyLine(redis_server.port)
    load_scripts(made.hosts[0].link, [load("model/leave")])  # else NOSCRIPT would be lost
    one.register(Orphaned(id="other", n=5))
    with Connections(f"127.0.0.1:{line.port}") as cut_off:
        late = Registry(connections=cut_off)
        for n in (1, 10):
            late.register(Orphaned(id=1, n=n), f"message {n}")
        with late._sending:
            line.lose(load("model/leave").sha.encode(), 2)
            entry = late._entries["Orphaned.1"]
            entry.leaving = True
            assert late._send([entry])
            node = entry.records.owner.partition(b".")[0].decode()
            abandon(made.hosts[0].link, node, b"%d" % 2**50)
            one._adopt()
            wait_for(lambda: Orphaned.completed == [1])
            wait_for(lambda: one._completions.none)
        late.close()
    line.close()
    assert line.lost == 2
    assert Orphaned.completed == [1, 10]


def test_held_without_hearing_of_it(
    monkeypatch: pytest.MonkeyPatch, made: Connections, one: Registry, redis_server: RedisServer
) -> None:
    """Whose registration has failed does not keep others from being the last one out."""
    monkeypatch.setattr(sending, "ORPHAN_SECONDS", 0.05)
    line = LossyLine(redis_server.port)
    load_scripts(made.hosts[0].link, [load("model/hold")])
    with Connections(f"127.0.0.1:{line.port}") as cut_off:
        failing = Registry(connections=cut_off)
        failing.register(Orphaned(id="other", n=5))
        line.lose(load("model/hold").sha.encode(), 2)
        with pytest.raises(redis.ConnectionError):
            failing.register(Orphaned(id=1, n=100))
        one.register(Orphaned(id=1, n=1))
        one.close()
        wait_for(lambda: Orphaned.completed == [1])
        failing.close()
    line.close()
    assert line.lost == 2


class Between:
    """A link whose user is interrupted before its next SREM."""

    def __init__(self, link: Link, what: Any) -> None:
        self._link = link
        self._what = what
        self.send = link.send

    def command(self, *args: bytes) -> Any:
        if args[0] == b"SREM":
            self._what()
        return self._link.command(*args)


@pytest.mark.parametrize("closing", [False, True])
def test_it_comes_back_while_it_is_given_away(
    made: Connections, redis_client: redis.Redis, closing: bool
) -> None:
    """What it holds again, taken for dead as it was, is found when it dies after all."""
    records, keys = Records(made.hosts[0], OWNER), RecordKeys("Visit.1")
    records.hold(keys)

    def comes_back() -> None:
        records.hold(keys)
        if closing:
            redis_client.hset(keys.row, mapping={"~id": b"1", "~closer": OWNER, "~since": 2000})
            redis_client.srem(keys.holders, OWNER)

    link: Any = Between(made.hosts[0].link, comes_back)
    abandon(link, NODE, b"1000")
    assert redis_client.smembers(ModelsKeys().held(NODE)) == {OWNER + b" Visit.1"}
    redis_client.hset(keys.row, "~id", b"1")
    assert abandon(made.hosts[0].link, NODE, b"61000") == 0
    assert records.orphans() == ["Visit.1"]
