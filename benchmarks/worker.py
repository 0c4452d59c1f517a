"""Measurements with a real Celery worker."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.marks import Marks
from benchmarks.measure import Context, Figures, fill, per_message
from benchmarks.processes import RUN_TIMEOUT_SECONDS, Process, RunFailed, tree_cpu_seconds
from benchmarks.profiles import WORKER_RATE_HERTZ

POOLS = {
    "solo": ["--pool", "solo"],
    "threads": ["--pool", "threads", "--concurrency", "8"],
    "prefork": ["--pool", "prefork", "--concurrency", "2"],
}
START_TIMEOUT_SECONDS = 30.0
STOP_TIMEOUT_SECONDS = 10.0


def start_worker(context: Context, pool: str, env: dict[str, str]) -> Process:
    """A worker of the benchmark's application with Celery's default settings."""
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.app", "worker"]
    if context.profiler and context.profiler.cprofile_path:
        env = {**env, "PHONON_BENCH_CPROFILE": context.profiler.cprofile_path}
    return Process(
        [*command, *POOLS[pool], "--loglevel", "WARNING"],
        env={"PHONON_BENCH_BROKER": context.url, **env},
    )


def tasks(context: Context, pool: str, acks_late: bool) -> Figures:
    """Tasks a second from the first to the last one run, all queued before the worker starts.

    CPU and Redis's counters are read when the first tasks have run and when the last one has, and
    are divided by the number of tasks that ran in between.
    """
    count = context.sizes.tasks
    fill(context, count)
    with tempfile.TemporaryDirectory(prefix="phonon-bench-") as folder:
        path = Path(folder) / "marks"
        marks = Marks.create(path, count)
        env = {"PHONON_BENCH_MARKS": str(path), "PHONON_BENCH_ACKS_LATE": str(int(acks_late))}
        worker = start_worker(context, pool, env)
        try:
            wait_for(worker, lambda: marks.ran() > 0, START_TIMEOUT_SECONDS, "ran no task")
            if context.profiler:
                context.profiler.attach(worker.pid, WORKER_RATE_HERTZ, pool == "prefork")
            ran_before = marks.ran()
            cpu_seconds, before = tree_cpu_seconds(worker.pid), context.server.snapshot()
            wait_for(
                worker, lambda: marks.ran() == count, RUN_TIMEOUT_SECONDS, "did not run all tasks"
            )
            cpu_seconds = tree_cpu_seconds(worker.pid) - cpu_seconds
            after = context.server.snapshot()
            if context.profiler:
                context.profiler.detach()
        finally:
            worker.stop(STOP_TIMEOUT_SECONDS)
        summary = marks.summary()
    in_between = max(count - ran_before, 1)
    return {
        **per_message(after.since(before), in_between),
        "rate": (count - 1) / (summary.last_seconds - summary.first_seconds),
        "worker_cpu_us": cpu_seconds / in_between * 1e6,
        "ran_again": summary.ran_again,
    }


def wait_for(
    worker: Process, condition: Callable[[], bool], timeout_seconds: float, complaint: str
) -> None:
    """Wait for a worker to do something. Raises RunFailed if it ends, or is not in time."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        worker.check_alive()
        if time.monotonic() > deadline:
            raise RunFailed(
                f"the worker {complaint} in {timeout_seconds:.0f} s: {worker.last_words()}"
            )
        time.sleep(0.01)
