"""Several processes fill records from a bus that delivers again; some of them are killed.

Whatever dies, every record is completed and all completions of a record together hold each message
of the bus once: what had been folded counts, what was in memory only comes again, and a message
whose consumer died between its fold and its acknowledgement is known when it comes again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.servers import freeze, wait_for

RECORDS = 3
MESSAGES = 600


class Consumers:
    """Processes that consume, and what the bus does when one of them dies."""

    def __init__(self, url: str, client: Any) -> None:
        self.url = url
        self.client = client
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, die: str = "") -> None:
        words = ["-m", "tests.models.peers", self.url, name, str(RECORDS), *([die] if die else [])]
        self.running[name] = subprocess.Popen([sys.executable, *words])

    def go(self) -> None:
        """Let those begin that have been started, all at once."""
        wait_for(lambda: int(self.client.get("ready") or 0) == len(self.running), 60)
        self.client.set("go", 1)

    def kill(self, name: str) -> None:
        process = self.running[name]
        os.kill(process.pid, signal.SIGKILL)
        self.died(name)

    def died(self, name: str) -> None:
        """Wait for its end, and deliver again what it had not finished."""
        self.running.pop(name).wait(60)
        while self.client.lmove(f"{{bus}}.{name}", "{bus}", "RIGHT", "LEFT"):
            pass

    def stop(self) -> None:
        """Let all come to an end in good order."""
        self.client.set("stop", 1)
        for name, process in self.running.items():
            assert process.wait(60) == 0, name
        self.running.clear()

    def end(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()

    def database(self) -> list[dict[str, Any]]:
        """What was completed, in order."""
        return [json.loads(line) for line in self.client.lrange("database", 0, -1)]

    def finished(self) -> bool:
        """Whether no message is left and no record open."""
        left = self.client.llen("{bus}") + sum(
            self.client.llen(key) for key in self.client.scan_iter("{bus}.*")
        )
        return not left and not list(self.client.scan_iter("model.row*"))


@pytest.fixture
def consumers(url: str, redis_client: redis.Redis) -> Iterator[Consumers]:
    """None yet, and a bus with messages."""
    found = Consumers(url, redis_client)
    redis_client.rpush("{bus}", *range(MESSAGES))
    yield found
    found.end()


def check(consumers: Consumers) -> Counter[int]:
    """Each message once in all completions of its record; returns how often each was completed."""
    found = consumers.database()
    log = Counter(n for record in found for n in record["log"])
    assert log == Counter(range(MESSAGES))
    assert all(sum(record["log"]) == record["n"] for record in found)
    assert all(n % RECORDS == record["id"] for record in found for n in record["log"])
    return Counter(record["id"] for record in found)


def test_all_live(consumers: Consumers) -> None:
    for name in "abc":
        consumers.start(name)
    consumers.go()
    wait_for(consumers.finished, 60)
    assert check(consumers) == Counter(range(RECORDS)), "each record was completed once"
    assert set().union(*(record["who"] for record in consumers.database())) == set("abc")
    consumers.stop()


def in_the_middle(consumers: Consumers) -> bool:
    """Whether all hold records, some messages have been folded, and some have not been taken."""
    living = consumers.client.zcard("node.beats:{nodes}") >= len(consumers.running)
    return living and 0 < int(consumers.client.llen("{bus}")) < MESSAGES - 100


@pytest.mark.parametrize("victims", ["a", "ab"])
def test_some_are_killed_in_between(consumers: Consumers, victims: str) -> None:
    for name in "abc":
        consumers.start(name)
    consumers.go()
    wait_for(lambda: in_the_middle(consumers), 60, 0.001)
    for name in victims:
        consumers.kill(name)
    wait_for(consumers.finished, 60)
    check(consumers)
    consumers.stop()


def test_all_are_killed(consumers: Consumers) -> None:
    """What they had folded is found by the next one that comes."""
    for name in "ab":
        consumers.start(name)
    consumers.go()
    wait_for(lambda: in_the_middle(consumers), 60, 0.001)
    for name in "ab":
        consumers.kill(name)
    assert list(consumers.client.scan_iter("model.row*"))
    consumers.start("c")
    wait_for(consumers.finished, 60)
    check(consumers)
    consumers.stop()


def test_killed_within_on_complete(consumers: Consumers) -> None:
    """Others complete the record; the message that was not finished counts once."""
    consumers.start("a", "completion")
    consumers.go()
    consumers.died("a")
    assert consumers.database() == []
    for name in "bc":
        consumers.start(name)
    wait_for(consumers.finished, 60)
    check(consumers)
    consumers.stop()


def test_killed_with_nothing_left_on_the_bus(consumers: Consumers) -> None:
    """The dead one's records are completed though no message brings them up again."""
    consumers.client.delete("{bus}")
    consumers.start("idle")
    consumers.go()
    consumers.client.rpush("{bus}", 3, 6)
    wait_for(lambda: not consumers.client.llen("{bus}"), 60)
    consumers.stop()
    consumers.client.delete("stop")
    assert [record["n"] for record in consumers.database()] == [9]

    # A live process that has a registry, and one that dies with a record half told.
    consumers.client.rpush("{bus}", 1)
    consumers.start("living")
    wait_for(lambda: len(consumers.database()) == 2, 60)
    consumers.start("b")
    wait_for(lambda: int(consumers.client.zcard("node.beats:{nodes}")) > 0, 60)
    consumers.client.sadd("model.held.0123456789abcdef:{models}", "0123456789abcdef.1 Tally.2")
    consumers.client.hset("model.row:{Tally.2}", mapping={"~id": "2", "n": "5"})
    consumers.client.sadd("model.holders:{Tally.2}", "0123456789abcdef.1")
    consumers.client.zadd("node.dying:{nodes}", {"0123456789abcdef": time.time() * 1000})
    wait_for(lambda: len(consumers.database()) == 3, 60)
    assert consumers.database()[-1] == {"id": 2, "n": 5, "who": [], "log": []}
    consumers.stop()


def test_a_registry_is_closed_at_the_end_of_its_program(url: str, redis_client: Any) -> None:
    program = f"""
from phonon_kombu.phonon import connections, field, model, registry
connections.connect({url!r}, prefix="ended.")
class Session(model.Model):
    n = field.SumField()
    def on_complete(self):
        print("completed with", self.n)
registry.register(Session(id=1, n=2))
registry.register(Session(id=1, n=3))
"""
    outcome = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert outcome.stdout == "completed with 5\n"
    assert redis_client.zcard("ended.node.beats:{nodes}") == 0
    assert not list(redis_client.scan_iter("ended.model.row*"))


def test_frozen_and_taken_for_dead(consumers: Consumers) -> None:
    """It goes on with what it has in memory when it wakes."""
    for name in "ab":
        consumers.start(name)
    consumers.go()
    wait_for(lambda: in_the_middle(consumers), 60, 0.001)
    frozen = consumers.running["a"]
    freeze(frozen.pid)
    # The server drops the connection that shows that it lives, as if its machine were cut off.
    about = consumers.client.hgetall("node.about:{nodes}")
    node = next(node for node, text in about.items() if json.loads(text)["pid"] == frozen.pid)
    presence = consumers.client.hget("node.presence:{nodes}", node)
    consumers.client.client_kill_filter(_id=presence.decode().partition(":")[2])
    wait_for(lambda: consumers.client.zscore("node.beats:{nodes}", node) is None, 60)
    os.kill(frozen.pid, signal.SIGCONT)
    wait_for(consumers.finished, 60)
    check(consumers)
    consumers.stop()
