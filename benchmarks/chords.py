"""Measurements of chords and results, with a real prefork worker."""

from __future__ import annotations

import sys
import threading
import time

import redis

from benchmarks.measure import Context, Figures, per_message
from benchmarks.processes import Client, Process, RunFailed
from benchmarks.worker import POOLS, STOP_TIMEOUT_SECONDS

SAMPLE_SECONDS = 0.002


def start_worker(context: Context, pool: str = "prefork", acks_late: bool = False) -> Process:
    """A worker of the chord application with Celery's default settings."""
    env = {"PHONON_BENCH_BROKER": context.url, "PHONON_BENCH_BACKEND": backend_url(context)}
    env["PHONON_BENCH_ACKS_LATE"] = str(int(acks_late))
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.chordapp", "worker"]
    return Process([*command, *POOLS[pool], "--loglevel", "ERROR"], env=env)


def backend_url(context: Context) -> str:
    """Database 1 of the server, by the scheme that is being measured."""
    return context.url.removesuffix("/0") + "/1"


class Peak:
    """The most memory that the server used while the block ran, above what it used before."""

    def __init__(self, port: int) -> None:
        self._client = redis.Redis(host="127.0.0.1", port=port)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.bytes = 0

    def __enter__(self) -> Peak:
        self._before = self._used()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._client.close()

    def _used(self) -> int:
        return int(self._client.info("memory")["used_memory"])

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.bytes = max(self.bytes, self._used() - self._before)


def chord(
    context: Context, size: int, count: int = 1, task: str = "part", memory: bool = False
) -> Figures:
    """`count` chords of `size` parts; figures a part, or the peak of memory."""
    aggregated = memory and task == "blob_size" and context.scheme != "redis"
    if task == "blob_size" and not aggregated:
        task = "blob"  # what stock has to compare with
    context.server.reset()
    spec = {"size": size, "count": count, "task": task, "aggregated": aggregated}
    worker = start_worker(context)
    try:
        with Client("chord", url=context.url, backend=backend_url(context), **spec) as client:
            client.wait_ready()
            before = context.server.snapshot()
            if memory:
                with Peak(context.server.port) as peak:
                    client.go()
                    figures = client.result()
                figures["peak_bytes"] = float(peak.bytes)
            else:
                client.go()
                figures = client.result()
                after = context.server.snapshot()
                figures.update(per_message(after.since(before), size * count))
            client.finish()
    finally:
        worker.stop(STOP_TIMEOUT_SECONDS)
    return figures


def apply_with_results(context: Context, keep: bool = True) -> Figures:
    """Calls a second."""
    context.server.reset()
    count = context.sizes.publish_messages // 4
    backend = backend_url(context)
    spec = {"url": context.url, "backend": backend, "count": count, "keep": keep}
    with Client("apply_with_results", **spec) as client:
        figures = context.watched(client, count)
        client.finish()
    return {**figures, "rate": count / figures["seconds"]}


def get_latency(context: Context) -> Figures:
    """Medians, microseconds."""
    context.server.reset()
    worker = start_worker(context)
    try:
        with Client(
            "get_latency", url=context.url, backend=backend_url(context), count=200
        ) as client:
            client.wait_ready()
            client.go()
            figures = client.result()
            client.finish()
    finally:
        worker.stop(STOP_TIMEOUT_SECONDS)
    return figures


def tasks_with_results(context: Context, pool: str, acks_late: bool) -> Figures:
    """Tasks a second with their results kept, all queued before the worker starts."""
    context.server.reset()
    count = context.sizes.tasks
    backend = backend_url(context)
    spec = {"url": context.url, "backend": backend, "count": count, "keep": True}
    with Client("apply_with_results", **spec) as client:
        client.wait_ready()
        client.go()
        client.result()
        client.finish()
    kept = redis.Redis(host="127.0.0.1", port=context.server.port, db=1)
    worker = start_worker(context, pool, acks_late)
    try:
        deadline = time.monotonic() + 170
        while not (started := kept.dbsize()):
            _look_again(worker, deadline)
        first, before = time.perf_counter(), context.server.snapshot()
        looks = 0
        while kept.dbsize() < count:
            _look_again(worker, deadline)
            looks += 1
        seconds, after = time.perf_counter() - first, context.server.snapshot()
    finally:
        worker.stop(STOP_TIMEOUT_SECONDS)
        kept.close()
    delta = after.since(before)
    delta["commands"] -= looks + 1
    delta["reads"] -= looks + 1
    done = count - started
    return {"rate": done / seconds, "seconds": seconds, **per_message(delta, done)}


def _look_again(worker: Process, deadline: float) -> None:
    worker.check_alive()
    if time.monotonic() > deadline:
        raise RunFailed("not all tasks have run in time")
    time.sleep(0.005)
