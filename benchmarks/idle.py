"""What those cost that have nothing to do: a Celery worker and two plain consumers."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.measure import Context, Figures, cprofile_spec
from benchmarks.processes import Client, tree_cpu_seconds
from benchmarks.server import Server
from benchmarks.worker import START_TIMEOUT_SECONDS, STOP_TIMEOUT_SECONDS, start_worker, wait_for

POOL = "prefork"


def idle(context: Context) -> Figures:
    """Commands and CPU a second of an idle worker and of idle consumers, over the same window.

    The three wait at the same time, each at a server of its own, so that commands can be told apart
    and nobody has to wait three times as long.
    """
    sizes = context.sizes
    context.server.reset()
    with ExitStack() as stack:
        servers, clients = {}, {}
        for loop in ("drain", "hub"):
            server = servers[loop] = stack.enter_context(Server(context.server.binary))
            clients[loop] = stack.enter_context(
                Client(
                    "idle",
                    url=server.url(context.scheme),
                    loop=loop,
                    prefetch=8,
                    settle_seconds=sizes.idle_settle_seconds,
                    window_seconds=sizes.idle_window_seconds,
                    **cprofile_spec(context),
                )
            )
        ready = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "ready"
        worker = start_worker(context, POOL, {"PHONON_BENCH_READY": str(ready)})
        stack.callback(worker.stop, STOP_TIMEOUT_SECONDS)
        wait_for(worker, ready.exists, START_TIMEOUT_SECONDS, "did not start")
        # mingle and gossip have a say first; that is not idleness
        time.sleep(sizes.idle_settle_seconds)
        for client in clients.values():
            client.wait_ready()
        if context.profiler:
            context.profiler.attach(worker.pid)

        before = {loop: server.snapshot() for loop, server in servers.items()}
        for client in clients.values():
            client.go()
        cpu_before, worker_before = tree_cpu_seconds(worker.pid), context.server.snapshot()
        time.sleep(sizes.idle_window_seconds)
        cpu_seconds = tree_cpu_seconds(worker.pid) - cpu_before
        delta = context.server.snapshot().since(worker_before)
        if context.profiler:
            context.profiler.detach()
        worker.check_alive()
        window_seconds = sizes.idle_window_seconds
        figures = _per_second("worker", delta, window_seconds, cpu_seconds)
        for loop, client in clients.items():
            result = client.result()
            delta = servers[loop].snapshot().since(before[loop])
            client.finish()
            figures |= _per_second(loop, delta, window_seconds, result["cpu_seconds"])
    return figures


def _per_second(who: str, delta: dict[str, Any], seconds: float, cpu_seconds: float) -> Figures:
    """Figures a second of the window as it was meant to be.

    Commands are few and whole: to divide them by a time measured to the microsecond would make two
    equal counts differ.
    """
    return {
        f"{who}_commands": delta["commands"] / seconds,
        f"{who}_reads": delta["reads"] / seconds,
        f"{who}_cpu_ms": cpu_seconds / seconds * 1e3,
        f"{who}_redis_cpu_ms": delta["redis_cpu_seconds"] / seconds * 1e3,
        f"{who}_calls": {name: round(n / seconds, 3) for name, n in delta["calls"].items()},
    }
