"""Client processes seen from the parent, and the CPU time of a tree of processes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUN_TIMEOUT_SECONDS = 180.0


class RunFailed(Exception):
    """A client process or worker did not do what it was started for; says why."""


class Process:
    """A process in a session of its own, its error output kept, its end certain."""

    def __init__(
        self,
        command: list[str],
        env: dict[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
    ) -> None:
        # A file and not a pipe: nobody reads it while the process runs.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._popen = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdin=stdin,
            stdout=stdout,
            stderr=self._stderr,
            start_new_session=True,
        )
        self.pid = self._popen.pid

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def check_alive(self) -> None:
        """Raise RunFailed if the process has ended."""
        if self._popen.poll() is not None:
            raise RunFailed(f"exited with {self._popen.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        """The end of what it wrote to its error output."""
        self._stderr.seek(0)
        return self._stderr.read()[-1500:].decode(errors="replace").strip()

    def stop(self, timeout_seconds: float = 0) -> None:
        """Ask it to end, give it `timeout_seconds`, then kill its whole session."""
        if timeout_seconds and self._popen.poll() is None:
            self._popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(timeout_seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()
        for stream in (self._popen.stdin, self._popen.stdout, self._stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class Client(Process):
    """A load in a fresh process; see ``benchmarks.client`` for the conversation."""

    def __init__(self, load: str, **spec: Any) -> None:
        super().__init__(
            [sys.executable, "-m", "benchmarks.client", load, json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._load = load
        self._unread = b""

    def wait_ready(self) -> None:
        self._event("ready", RUN_TIMEOUT_SECONDS)

    def go(self) -> None:
        self._send("go")

    def result(self) -> dict[str, Any]:
        """Wait for the measured part's end and return its figures."""
        return self._event("result", RUN_TIMEOUT_SECONDS)

    def finish(self) -> dict[str, Any]:
        """Let it check and end; return what the check found."""
        self._send("quit")
        values = self._event("end", RUN_TIMEOUT_SECONDS)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(10)
        return values

    def _send(self, word: str) -> None:
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._popen.stdin.write(word.encode() + b"\n")
            self._popen.stdin.flush()

    def _event(self, name: str, timeout_seconds: float) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(self._line(timeout_seconds))
        if values.pop("event") != name:
            raise RunFailed(f"{self._load}: expected {name!r}, got {values}")
        return values

    def _line(self, timeout_seconds: float) -> bytes:
        assert self._popen.stdout is not None
        descriptor = self._popen.stdout.fileno()
        deadline = time.monotonic() + timeout_seconds
        while b"\n" not in self._unread:
            left_seconds = deadline - time.monotonic()
            if left_seconds <= 0 or not select.select([descriptor], [], [], left_seconds)[0]:
                raise RunFailed(f"{self._load}: no answer in {timeout_seconds:.0f} s")
            data = os.read(descriptor, 1 << 16)
            if not data:
                self._popen.wait()
                raise RunFailed(
                    f"{self._load}: exited with {self._popen.returncode}: {self.last_words()}"
                )
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return line


def tree_cpu_seconds(pid: int) -> float:
    """CPU time used so far by a process and all its descendants that are alive.

    From ``/proc/*/task/*/schedstat`` (nanoseconds), or from psutil (steps of 10 ms).
    """
    if not Path(f"/proc/{pid}/schedstat").exists():
        import psutil  # type: ignore[import-untyped,unused-ignore]

        process = psutil.Process(pid)
        tree = [process, *process.children(recursive=True)]
        return float(sum(sum(one.cpu_times()[:2]) for one in tree))
    nanoseconds = 0
    for member in _tree(pid):
        for thread in Path(f"/proc/{member}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                nanoseconds += int(thread.read_text().split()[0])
    return nanoseconds / 1e9


def _tree(pid: int) -> list[int]:
    """`pid` and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # The name in brackets may hold spaces: count from its end.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    tree = [pid]
    for member in tree:
        tree.extend(children.get(member, ()))
    return tree
