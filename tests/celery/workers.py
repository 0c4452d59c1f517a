"""Start, watch and end real Celery worker processes, and run the ``celery`` command.

``Worker`` is a context manager around ``python -m celery -A tests.celery.app worker``;
``run_celery`` runs any other sub-command to its end. Both run from the top of the
checkout, in a process group of their own, so that nothing outlives a test.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tests.celery.app import ENVIRONMENT
from tests.servers import wait_for

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_SECONDS = 60.0
# A prefork pool told to stop while results are on their way may wait 30 s for a child that
# wants its last result read (billiard's _ensure_messages_consumed), on any broker.
STOP_TIMEOUT_SECONDS = 50.0
POOLS = ("solo", "prefork", "threads", "gevent", "eventlet")
# What no worker may ever print, whatever a test does to it.
FATAL = ("Unrecoverable error", "Frequent restarts detected")

_names = itertools.count(1)
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Have the kernel kill this process with its parent: a test run may be killed too."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def celery_environment(
    broker: str,
    backend: str,
    records: str,
    settings: Mapping[str, Any] | None = None,
    extra: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the environment in which ``tests.celery.app`` finds its servers."""
    environment = dict(os.environ)
    environment[ENVIRONMENT["broker"]] = broker
    environment[ENVIRONMENT["backend"]] = backend
    environment[ENVIRONMENT["records"]] = records
    environment[ENVIRONMENT["settings"]] = json.dumps(dict(settings or {}))
    environment["PYTHONUNBUFFERED"] = "1"
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])
    )
    environment.update(extra or {})
    return environment


def run_celery(
    arguments: Iterable[str],
    environment: Mapping[str, str],
    *,
    app: str | None = "tests.celery.app",
    timeout_seconds: float = 60.0,
    input_text: str = "",
    directory: Path = ROOT,
) -> subprocess.CompletedProcess[str]:
    """Run ``celery [-A app] arguments`` to its end and return it, output as text.

    :raises subprocess.TimeoutExpired: if it does not end within `timeout_seconds`.
    """
    command = [sys.executable, "-m", "celery"]
    if app:
        command += ["-A", app]
    return subprocess.run(
        [*command, *arguments],
        env=dict(environment),
        cwd=directory,
        input=input_text,
        text=True,
        capture_output=True,
        timeout=timeout_seconds,
        check=False,
    )


class Worker:
    """One ``celery worker`` (or ``celery beat``) process group.

    The end of the ``with`` block kills it: a warm shutdown takes an idle worker some
    seconds, so only the tests to which it matters call ``stop()``.

    :param environment: as ``celery_environment`` makes it.
    :param pool: solo, prefork, threads, gevent or eventlet.
    :param concurrency: processes, threads or greenlets of the pool.
    :param queues: names for ``-Q``; the application's default queue if none is given.
    :param mingle: off by default, as a worker that is alone waits a second for answers.
    :param wait: whether ``start`` waits until the worker says that it is ready.
    :param may_fail: whether the log may hold one of ``FATAL``.
    :param app: the module with the application that it runs.
    :param command: the sub-command; ``beat`` takes none of the worker's options.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        pool: str = "prefork",
        concurrency: int = 2,
        queues: str | None = None,
        options: Iterable[str] = (),
        log_level: str = "INFO",
        mingle: bool = False,
        command: str = "worker",
        wait: bool = True,
        may_fail: bool = False,
        app: str = "tests.celery.app",
    ) -> None:
        self.number = next(_names)
        self.name = f"w{self.number}.{os.getpid()}@exam"
        self.pool = pool
        self.process: subprocess.Popen[bytes] | None = None
        self._environment = dict(environment)
        self._wait = wait
        self._may_fail = may_fail
        self._directory = tempfile.TemporaryDirectory(prefix="phkw-")
        self.log_path = Path(self._directory.name) / "worker.log"
        self._is_beat = command == "beat"
        self.command = [sys.executable, "-m", "celery", "-A", app, command]
        if not self._is_beat:
            self.command += ["-P", pool, "-c", str(concurrency), "-n", self.name]
            if queues:
                self.command += ["-Q", queues]
            if not mingle:
                self.command.append("--without-mingle")
        self.command += ["-l", log_level, *options]

    # Starting and ending

    def start(self) -> Worker:
        """Start the process and, unless told otherwise, wait until it is ready."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self._environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        if self._wait:
            try:
                self.wait_for_log("beat: Starting" if self._is_beat else f"{self.name} ready.")
            except BaseException:
                self.kill()
                raise
        return self

    @property
    def pid(self) -> int:
        """The main process's id, which is also its process group's."""
        assert self.process is not None, "the worker has not been started"
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the main process is alive."""
        return self.process is not None and self.process.poll() is None

    def send_signal(self, number: int) -> None:
        """Send a signal to the main process only."""
        os.kill(self.pid, number)

    def join(self, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> int:
        """Wait until the main process has ended by itself and return its exit status.

        :raises AssertionError: with the log, if it is still running after the timeout.
        """
        assert self.process is not None
        try:
            return self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.name} is still running after {timeout_seconds:g} s:\n{self.tail()}"
            ) from None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask for a shutdown (SIGTERM: warm, SIGQUIT: cold), wait, return the exit status."""
        if self.running:
            self.send_signal(number)
        status = self.join()
        self.kill()
        return status

    def kill(self) -> None:
        """SIGKILL the whole process group, pool processes too, and wait for its end."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Worker:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                for words in () if self._may_fail else FATAL:
                    assert words not in self.log(), f"{self.name} printed:\n{self.tail()}"
            else:
                print(f"--- log of {self.name} ---\n{self.tail(6000)}")
        finally:
            self.kill()
            self._directory.cleanup()

    # Watching

    def log(self) -> str:
        """Return everything that the worker has printed so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def tail(self, size: int = 3000) -> str:
        """Return the end of the log."""
        return self.log()[-size:]

    def wait_for_log(
        self, pattern: str, timeout_seconds: float = START_TIMEOUT_SECONDS, count: int = 1
    ) -> str:
        """Wait until the log holds the text `pattern` at least `count` times; return the log.

        :raises AssertionError: if that does not happen, or the process has ended.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            running = self.running  # before reading: a last line may come with the end
            log = self.log()
            if log.count(pattern) >= count:
                return log
            if not running:
                raise AssertionError(f"{self.name} ended without {pattern!r}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name}: no {pattern!r} in the log:\n{self.tail()}")
            time.sleep(0.05)

    def matches(self, expression: str) -> list[str]:
        """Return what `expression` finds in the log."""
        return re.findall(expression, self.log())

    def children(self) -> list[int]:
        """Return the ids of the pool processes that are alive."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(self.pid).children()]
        return []

    def wait_for_children(self, count: int, timeout_seconds: float = 20.0) -> list[int]:
        """Wait until there are exactly `count` pool processes, and return their ids."""
        wait_for(
            lambda: len(self.children()) == count,
            timeout_seconds,
            message=f"{self.name} does not come to {count} pool processes",
        )
        return self.children()
