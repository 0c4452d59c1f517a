"""The demo's workers: real ``celery worker`` processes, each with a pool of child processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ..errors import PhononError
from .app import BROKER_VARIABLE, LIFELINE_VARIABLE, NAME_VARIABLE, RUN_VARIABLE

STOP_SECONDS = 8.0
LOG_TAIL_LINES = 15


class Worker:
    """One worker process and its pool, in a process group of their own.

    It ends by :meth:`stop`; should this process be killed outright, the worker sees the pipe
    between them close and ends by itself.
    """

    def __init__(self, name: str, broker: str, run: str, concurrency: int, logs: Path) -> None:
        self.name = name
        self.log_path = logs / f"{name}.log"
        read_fd, self._lifeline_fd = os.pipe()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CELERY_")}
        environment |= {
            BROKER_VARIABLE: broker,
            RUN_VARIABLE: run,
            NAME_VARIABLE: name,
            LIFELINE_VARIABLE: str(read_fd),
            # A pool leaves its temporary directory behind when it is killed.
            "TMPDIR": str(logs),
            # The same modules as here, wherever this program found them.
            "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),
        }
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "-A", "phonon_kombu.demo.app:app"),
                    *("worker", "--hostname", name, "--pool", "prefork"),
                    *("--concurrency", str(concurrency), "--loglevel", "INFO"),
                ],
                env=environment,
                cwd=logs,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(read_fd,),
                # Ctrl-C is for the demo, which then stops its workers in good order.
                start_new_session=True,
            )
        os.close(read_fd)

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

    def kill(self) -> None:
        """Kill the worker and its pool with SIGKILL, as a crash of the machine would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def log_tail(self) -> str:
        """The end of what the worker wrote."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def close(self) -> None:
        """See that no process of the group is left. May be called again."""
        self.kill()
        if self._lifeline_fd >= 0:
            os.close(self._lifeline_fd)
            self._lifeline_fd = -1


def stop_all(workers: list[Worker]) -> None:
    """Stop the workers in good order, all at once; kill what has not ended in time."""
    for worker in workers:
        if worker.running:
            worker.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    try:
        for worker in workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        kill_all(workers)


def kill_all(workers: list[Worker]) -> None:
    """See at once that no process of any worker is left."""
    for worker in workers:
        worker.close()


def check_running(workers: list[Worker]) -> None:
    """Raise :class:`~phonon_kombu.errors.PhononError` if a worker has ended by itself."""
    for worker in workers:
        if not worker.running:
            raise PhononError(
                f"worker {worker.name} ended with status {worker.process.returncode}:\n"
                f"{worker.log_tail()}"
            )
