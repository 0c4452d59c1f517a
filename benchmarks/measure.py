"""The measurements: each starts fresh processes on an empty server and returns plain figures."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.processes import Client, RunFailed
from benchmarks.profiles import Profiler
from benchmarks.server import Server

Figures = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How much of everything a run does."""

    consume_messages: int = 8_000
    publish_messages: int = 10_000
    memory_messages: int = 20_000
    tasks: int = 5_000
    latency_messages: int = 1_050
    latency_dropped: int = 50
    latency_gap_seconds: tuple[float, float] = (0.003, 0.008)
    idle_window_seconds: float = 10.0
    idle_settle_seconds: float = 2.0
    warm_messages: int = 200
    steady_seconds: float = 1.0
    steady_runs: int = 3


@dataclass
class Context:
    """What a measurement needs to know."""

    server: Server
    scheme: str
    sizes: Sizes
    profiler: Profiler | None = None

    @property
    def url(self) -> str:
        return self.server.url(self.scheme)

    def watched(self, client: Client, count: int) -> Figures:
        """Run a client's measured part; its figures and Redis's, a message of `count`."""
        client.wait_ready()
        before = self.server.snapshot()
        if self.profiler:
            self.profiler.attach(client.pid)
        client.go()
        figures = client.result()
        after = self.server.snapshot()
        if self.profiler:
            self.profiler.detach()
        return {**figures, **per_message(after.since(before), count)}


def per_message(delta: Figures, count: int) -> Figures:
    """Redis's counters a message."""
    return {
        "commands": delta["commands"] / count,
        "reads": delta["reads"] / count,
        "redis_cpu_us": delta["redis_cpu_seconds"] / count * 1e6,
        "calls": {name: round(calls / count, 4) for name, calls in delta["calls"].items()},
    }


def fill(context: Context, count: int, warm: int = 0, mixed: bool = False) -> None:
    """Empty the server and queue `count` messages by the scheme that is being measured."""
    context.server.reset()
    with Client("fill", url=context.url, count=count, warm=warm, mixed=mixed) as client:
        client.wait_ready()
        client.go()
        client.result()
        queued = client.finish()["queued"]
    if queued != count:
        raise RunFailed(f"{queued} messages are queued after publishing {count}")


def steady(context: Context, run: Callable[[], Figures], count: int) -> Figures:
    """Repeat a short run, each time with fresh processes, and return the figures' means.

    What one scheme does in eight seconds the other may do in a fifth of one, and such a moment
    says little: runs are repeated until they lasted for `steady_seconds` together, `steady_runs` at
    most.
    """
    runs = [run()]
    while not context.profiler and len(runs) < context.sizes.steady_runs:
        if sum(figures["seconds"] for figures in runs) >= context.sizes.steady_seconds:
            break
        runs.append(run())
    means = {
        name: sum(figures[name] for figures in runs) / len(runs)
        for name, value in runs[0].items()
        if isinstance(value, (int, float))
    }
    return {
        **runs[0],
        **means,
        "runs": len(runs),
        "rate": count / means["seconds"],
        "client_cpu_us": means["cpu_seconds"] / count * 1e6,
    }


def consume(context: Context, loop: str, prefetch: int) -> Figures:
    """Consume and acknowledge a full queue."""
    return steady(
        context, lambda: _consume(context, loop, prefetch), context.sizes.consume_messages
    )


def _consume(context: Context, loop: str, prefetch: int) -> Figures:
    sizes = context.sizes
    count = sizes.consume_messages
    fill(context, count, sizes.warm_messages)
    spec = {"loop": loop, "prefetch": prefetch, "count": count, "warm": sizes.warm_messages}
    with Client("consume", url=context.url, **spec, **cprofile_spec(context)) as client:
        figures = context.watched(client, count)
        left = client.finish()["left"]
    if left:
        raise RunFailed(f"{left} messages came back after all were acknowledged")
    return figures


def publish(context: Context, load: str) -> Figures:
    """Publish by one of the loads ``publish``, ``batch`` and ``apply_async``."""
    return steady(context, lambda: _publish(context, load), context.sizes.publish_messages)


def _publish(context: Context, load: str) -> Figures:
    count = context.sizes.publish_messages
    context.server.reset()
    with Client(load, url=context.url, count=count, **cprofile_spec(context)) as client:
        figures = context.watched(client, count)
        queued = client.finish()["queued"]
    if queued != count:
        raise RunFailed(f"{queued} messages are queued after publishing {count}")
    return figures


def memory(context: Context) -> Figures:
    """Redis memory of a queued message, once nobody is connected any more."""
    count = context.sizes.memory_messages
    # Once beforehand: scripts stay loaded, and are not part of a message.
    fill(context, 10)
    context.server.reset()
    before = context.server.used_memory_bytes()
    figures = {}
    for name, mixed in (("bytes", False), ("mixed_bytes", True)):
        fill(context, count, mixed=mixed)
        figures[name] = (context.server.used_memory_bytes() - before) / count
    return figures


def latency(context: Context, loop: str) -> Figures:
    """Time from the beginning of a publish to the callback of an idle consumer, in microseconds."""
    sizes = context.sizes
    context.server.reset()
    spec = {"loop": loop, "prefetch": 8, "count": sizes.latency_messages}
    gaps = {
        "seed": random.getrandbits(32),
        "gap_seconds": sizes.latency_gap_seconds,
        "count": sizes.latency_messages,
    }
    with (
        Client("latency", url=context.url, **spec, **cprofile_spec(context)) as consumer,
        Client("publish_with_gaps", url=context.url, **gaps) as publisher,
    ):
        consumer.wait_ready()
        publisher.wait_ready()
        if context.profiler:
            context.profiler.attach(consumer.pid)
        consumer.go()
        publisher.go()
        samples_ns = consumer.result()["latencies_ns"]
        publisher.result()
        if context.profiler:
            context.profiler.detach()
        publisher.finish()
        consumer.finish()
    samples_ns = sorted(samples_ns[sizes.latency_dropped :])
    return {
        name: samples_ns[math.ceil(share * len(samples_ns)) - 1] / 1e3
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
    }


def cprofile_spec(context: Context) -> Figures:
    """What tells a client to profile itself, if it is to."""
    path = context.profiler.cprofile_path if context.profiler else None
    return {"cprofile": path} if path else {}


def all_measurements() -> dict[str, Callable[[Context], Figures]]:
    """Every measurement by its name, in the order in which they run."""
    from benchmarks import chords
    from benchmarks.idle import idle
    from benchmarks.worker import tasks

    found: dict[str, Callable[[Context], Figures]] = {}
    for loop in ("drain", "hub"):
        for prefetch in (64, 0, 8, 1):
            found[f"consume-{loop}-{prefetch}"] = _with(consume, loop=loop, prefetch=prefetch)
    for load in ("publish", "apply_async", "batch"):
        found[load] = _with(publish, load=load)
    for pool in ("solo", "threads", "prefork"):
        for late in (False, True):
            found[f"tasks-{pool}-{'late' if late else 'early'}"] = _with(
                tasks, pool=pool, acks_late=late
            )
    found["memory"] = memory
    for loop in ("drain", "hub"):
        found[f"latency-{loop}"] = _with(latency, loop=loop)
    found["idle"] = idle
    for size in (1000, 5000):
        found[f"chord-{size}"] = _with(chords.chord, size=size)
    found["chords-200"] = _with(chords.chord, size=5, count=200)
    for task in ("blob", "blob_size"):
        found[f"chord-memory-{task}"] = _with(chords.chord, size=1000, task=task, memory=True)
    found["apply_with_results"] = chords.apply_with_results
    found["apply_and_drop"] = _with(chords.apply_with_results, keep=False)
    found["get_latency"] = chords.get_latency
    for pool in ("solo", "prefork"):
        for late in (False, True):
            found[f"results-{pool}-{'late' if late else 'early'}"] = _with(
                chords.tasks_with_results, pool=pool, acks_late=late
            )
    return found


def _with(function: Callable[..., Figures], **options: Any) -> Callable[[Context], Figures]:
    return lambda context: function(context, **options)
