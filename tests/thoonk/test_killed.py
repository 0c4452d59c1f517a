"""Processes that are killed with SIGKILL in the middle of it: nothing is half done."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from phonon_kombu.thoonk import Empty, Thoonk
from tests.servers import RedisServer, wait_for

from .test_sorted_feed import links

#: What a child does, after ``thoonk`` and its own ``name`` are there.
PROGRAMS = {
    "publish": """
feed = thoonk.feed("f")
for n in range(10**6):
    feed.publish(f"{name} {n % 7}", id=f"{name} {n % 40}")
    if n % 3 == 0:
        feed.retract(f"{name} {n % 40}")
""",
    "move": """
import random
feed = thoonk.sorted_feed("s")
while True:
    id = feed.publish_after("middle", "x", id=f"{name} {random.randrange(50)}")
    feed.move_before("middle", id)
    feed.move(random.choice(["begin:", ":end"]), id)
    feed.retract(id)
""",
    "take": """
queue, done = thoonk.queue("q"), thoonk.queue("done")
while True:
    done.put(queue.get())
""",
    "work": """
job = thoonk.job("j")
while True:
    claimed = job.get()
    thoonk.queue("done").put(claimed.item)
    job.finish(claimed.id)
""",
}


@contextmanager
def children(url: str, program: str, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """So many processes that run a program until they are killed."""
    start = (
        "import sys\nfrom phonon_kombu.thoonk import Thoonk\n"
        "thoonk, name = Thoonk(sys.argv[1]), sys.argv[2]\n"
    )
    found = [
        subprocess.Popen([sys.executable, "-c", start + PROGRAMS[program], url, str(number)])
        for number in range(count)
    ]
    try:
        yield found
    finally:
        for child in found:
            child.kill()
            child.wait()


def some_time() -> None:
    """So that a kill hits now this command, now that one."""
    time.sleep(random.uniform(0.05, 0.3))


def test_publishers(thoonk: Thoonk, url: str, redis_client: redis.Redis) -> None:
    """Ids, items and notices agree: whatever was told is there, and nothing else."""
    feed = thoonk.feed("f", {"max_length": 50})
    told: dict[str, str] = {}
    told_ids: list[str] = []
    with thoonk.listen(feed="f") as notices, children(url, "publish", 3) as publishers:
        wait_for(lambda: feed.size() >= 50, 30)
        for publisher in publishers:
            some_time()
            publisher.kill()
            publisher.wait()
        while True:
            try:
                notice = notices.get(timeout=2)
            except Empty:
                break
            assert notice.kind != "gap" and notice.id is not None
            if notice.kind == "retract":
                del told[notice.id]
                continue
            assert (notice.kind == "edit") == (notice.id in told)
            told.pop(notice.id, None)
            told[notice.id] = notice.item
        told_ids = list(told)
    assert feed.get_ids() == told_ids and feed.get_all() == told
    assert redis_client.hlen("feed.items:{f}") == feed.size() <= 50


def test_movers(thoonk: Thoonk, url: str, redis_client: redis.Redis) -> None:
    """The ring of a sorted feed is whole."""
    feed = thoonk.sorted_feed("s")
    feed.append("x", id="middle")
    with children(url, "move", 3) as movers:
        wait_for(lambda: int(redis_client.get("feed.moves:{s}") or 0) > 100, 30)  # type: ignore[arg-type]
        for mover in movers:
            some_time()
            mover.kill()
            mover.wait()
            links(redis_client)
    # What the last one had sent may be done a moment after it is dead.
    wait_for(lambda: feed.get_ids() == links(redis_client), 10)
    assert "middle" in feed.get_ids() and feed.size() <= 4


def test_takers_of_a_queue(thoonk: Thoonk, url: str) -> None:
    """An item has one taker at the most; what is lost is what a killed one had in its hands."""
    queue, done = thoonk.queue("q"), thoonk.queue("done")
    count = 400
    for n in range(count):
        queue.put(str(n))
    killed = 0
    with children(url, "take", 4) as takers:
        wait_for(lambda: done.size() > 20, 30)
        for taker in takers[:3]:
            taker.kill()
            taker.wait()
            killed += 1
        wait_for(lambda: queue.size() == 0, 60)
        wait_for(lambda: done.size() >= count - killed, 60)
    noted = Counter(done.get(timeout=0) for _ in range(done.size()))
    assert max(noted.values()) == 1
    assert count - killed <= len(noted) <= count


def test_workers(thoonk: Thoonk, url: str, redis_server: RedisServer) -> None:
    """Every job is done; a second time only what a killed worker had in its hands."""
    job, done = thoonk.job("j"), thoonk.queue("done")
    count = 300
    for n in range(count):
        job.put(str(n))
    with children(url, "work", 3) as workers:
        wait_for(lambda: done.size() > 20, 30)
        for worker in workers[:2]:
            some_time()
            worker.kill()
            worker.wait()
        # fakeredis tells nothing about connections: there only the beat counts, a minute.
        wait_for(lambda: job.get_ids() == [], 100 if redis_server.is_fake else 80)
    noted = Counter(done.get(timeout=0) for _ in range(done.size()))
    assert set(noted) == {str(n) for n in range(count)}
    assert sum(noted.values()) <= count + 2
