"""The process that looks after one embedded server: starts it, watches its users, stops it.

A program of its own, run by :mod:`phonon_kombu.store.embedded` as ``python -I -S _keeper.py``
with its settings as JSON on standard input. It uses the standard library only (and fakeredis,
where no Redis binary was found), so that it starts in a few milliseconds and stays small.

How the end is noticed
    Every process that uses the server holds a *shared* ``flock`` on ``users.lock``. The kernel
    drops it when the process ends, however it ends: SIGKILL and crashes included, and a forked
    child counts as a user until it has ended too. A few times a second the keeper tries for the
    *exclusive* lock. It gets it only when no user is left; when that has been so for
    ``linger_seconds``, it keeps the lock, stops the server, and only then lets the lock go. A
    process that arrives meanwhile waits for its shared lock, then finds no server and starts one:
    nobody is ever handed a server that is about to stop.

What else can die
    The server: the keeper notices within a tick, takes its address away and ends; the next user
    who connects starts another. The keeper: its own lock ``keeper.lock`` falls free, and the next
    process that connects starts a new keeper, which adopts the running server.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Protocol, TextIO

try:
    import fcntl
except ImportError:  # not a POSIX system; embedded.py refuses before anything here is used
    fcntl = None  # type: ignore[assignment]

TICK_SECONDS = 0.2
START_SECONDS = 60.0
STOP_SECONDS = 15.0
LOG_MAX_BYTES = 1_000_000


class StartFailed(Exception):
    """The server did not come up; the message says why, in a sentence for the user."""


def quoted(value: str) -> str:
    """``value`` as one argument of a Redis configuration line."""
    escaped = "".join(
        f"\\x{b:02x}" if b < 32 or b in b'"\\' else chr(b) for b in os.fsencode(value)
    )
    return f'"{escaped}"'


def command(address: dict[str, Any], *words: str) -> bytes:
    """Send one command to the server and return the start of its reply (b'' at its end)."""
    sock: socket.socket
    if address["socket_path"]:
        sock = socket.socket(socket.AF_UNIX)
        target: Any = address["socket_path"]
    else:
        sock = socket.socket(socket.AF_INET)
        target = (address["host"], address["port"])
    with sock:
        sock.settimeout(2.0)
        sock.connect(target)
        if address.get("password"):
            sock.sendall(encoded("AUTH", address["password"]))
            sock.recv(4096)
        sock.sendall(encoded(*words))
        return sock.recv(65536)


def encoded(*words: str) -> bytes:
    """One command in the Redis protocol."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word.encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


def free_port() -> int:
    """A loopback port that nobody listens on at the moment."""
    with socket.socket(socket.AF_INET) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def try_lock(fd: int) -> bool:
    """Take the exclusive lock of ``fd`` if nobody holds it, shared or exclusive."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Server(Protocol):
    """What the keeper needs of the server that it keeps."""

    pid: int

    def start(self) -> dict[str, Any]: ...
    def adopt(self, address: dict[str, Any]) -> bool: ...
    def alive(self, address: dict[str, Any]) -> bool: ...
    def stop(self, address: dict[str, Any]) -> None: ...


class RedisProcess:
    """A redis-server or valkey-server: started as a child, or found running and adopted."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        self.pid = 0

    def start(self) -> dict[str, Any]:
        """Start the server and return its address, once it answers."""
        address = self._address()
        directory = self.settings["directory"]
        conf_path = os.path.join(directory, "redis.conf")
        conf_fd = os.open(conf_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(conf_fd, "w", encoding="latin-1") as conf:
            conf.write(self._configuration(address))
        self.process = subprocess.Popen(
            [self.settings["binary"], conf_path],
            cwd=directory,
            stdin=subprocess.DEVNULL,
        )
        self.pid = self.process.pid
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise StartFailed(
                    f"{self.settings['binary']} ended with status {self.process.returncode} "
                    "while starting"
                )
            with contextlib.suppress(OSError):
                if command(address, "PING").startswith(b"+PONG"):
                    return address
            time.sleep(0.01)
        self.process.kill()
        raise StartFailed(f"the server did not answer within {START_SECONDS:.0f} seconds")

    def adopt(self, address: dict[str, Any]) -> bool:
        """Take over the server at ``address``, left by a keeper that died; False if it is gone.

        A fakeredis is always gone: it lived in its keeper.
        """
        try:
            info = command(address, "INFO", "server").decode(errors="replace")
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            info = ""  # It is there but busy. It is still the one that holds the data.
        for line in info.splitlines():
            if line.startswith("process_id:"):
                self.pid = int(line.partition(":")[2])
        self.pid = self.pid or address["pid"]
        return True

    def alive(self, address: dict[str, Any]) -> bool:
        if self.process is not None:
            return self.process.poll() is None
        try:
            command(address, "PING")
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # slow, not gone
        return True

    def stop(self, address: dict[str, Any]) -> None:
        """Shut the server down, saving what is to be kept; kill it if it does not obey."""
        word = "SAVE" if self.settings["persist"] == "rdb" else "NOSAVE"
        with contextlib.suppress(OSError):
            command(address, "SHUTDOWN", word)
        deadline = time.monotonic() + STOP_SECONDS
        while self.alive(address) and time.monotonic() < deadline:
            time.sleep(0.01)
        if self.alive(address):
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def _address(self) -> dict[str, Any]:
        path = self.settings["socket_path"]
        return {
            "socket_path": path,
            "host": None if path else "127.0.0.1",
            "port": None if path else free_port(),
            # Anybody on this machine reaches a loopback port, but only its owner the socket.
            "password": None if path else secrets.token_hex(16),
        }

    def _configuration(self, address: dict[str, Any]) -> str:
        lines = [
            "daemonize no",
            f"dir {quoted(self.settings['directory'])}",
            'save ""',
            "appendonly yes" if self.settings["persist"] == "aof" else "appendonly no",
        ]
        if address["socket_path"]:
            lines += ["port 0", f"unixsocket {quoted(address['socket_path'])}"]
            lines += ["unixsocketperm 700"]
        else:
            lines += [f"port {address['port']}", "bind 127.0.0.1"]
            lines += [f"requirepass {address['password']}"]
        return "\n".join(lines) + "\n"


def fakeredis_server(settings: dict[str, Any]) -> Server:
    """fakeredis's server, in a thread of this process."""
    sys.path[:] = settings["sys_path"]
    try:
        from phonon_kombu.store._fake_server import FakeredisThread
    except ImportError as exc:
        raise StartFailed(f"fakeredis cannot be imported: {exc}") from exc
    return FakeredisThread(settings)


def read_address(path: str) -> dict[str, Any] | None:
    """The address that an earlier keeper wrote down, if there is a readable one."""
    try:
        with open(path, encoding="utf-8") as file:
            address = json.load(file)
    except (OSError, ValueError):
        return None
    return address if isinstance(address, dict) and "socket_path" in address else None


def write_address(path: str, address: dict[str, Any]) -> None:
    """Publish the address in one step: a reader sees all of it or the file of before."""
    fd = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(address, file)
    os.replace(path + ".new", path)


def keep(settings: dict[str, Any], report: TextIO) -> None:
    """Bring the server up, tell ``report`` how that went, and stay until nobody needs it."""
    directory = settings["directory"]
    address_path = os.path.join(directory, "server.json")
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    keeper_fd = os.open(os.path.join(directory, "keeper.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    users_fd = os.open(os.path.join(directory, "users.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + STOP_SECONDS
    while not try_lock(keeper_fd):  # held for a moment by those who ask whether a keeper lives
        if time.monotonic() > deadline:
            raise StartFailed(f"another keeper has not let go of {directory}")
        time.sleep(0.01)

    server: Server = RedisProcess(settings)
    address = read_address(address_path)
    if address is None or not server.adopt(address):
        server = server if settings["binary"] else fakeredis_server(settings)
        address = server.start() | {"server": settings["server"], "pid": server.pid}
    address["keeper_pid"] = os.getpid()
    write_address(address_path, address)
    report.write("ok")
    report.close()

    unused_since: float | None = None
    while not stopping.wait(TICK_SECONDS) and server.alive(address):
        if not try_lock(users_fd):
            unused_since = None
            continue
        now = time.monotonic()
        unused_since = now if unused_since is None else unused_since
        if now - unused_since >= settings["linger_seconds"]:
            break  # with the lock in hand: nobody can come in while the server stops
        fcntl.flock(users_fd, fcntl.LOCK_UN)
    server.stop(address)
    for name in [address_path, address["socket_path"]]:
        if name:
            with contextlib.suppress(OSError):
                os.unlink(name)
    if settings["temporary"]:
        shutil.rmtree(directory, ignore_errors=True)


def main() -> int:
    """Leave a keeper running in the background; exit 0 once its server answers."""
    settings = json.load(sys.stdin)
    read_fd, write_fd = os.pipe()
    if os.fork():
        os.close(write_fd)
        with open(read_fd, encoding="utf-8") as report:
            outcome = report.read()
        if outcome == "ok":
            return 0
        print(outcome or "the keeper of the server ended while starting it", file=sys.stderr)
        return 1

    os.close(read_fd)
    os.umask(0o077)
    log_path = os.path.join(settings["directory"], "server.log")
    log_fd = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if os.fstat(log_fd).st_size > LOG_MAX_BYTES:
        os.ftruncate(log_fd, 0)
    null_fd = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null_fd, 0)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    os.chdir("/")
    with open(write_fd, "w", encoding="utf-8") as report:
        try:
            keep(settings, report)
        except StartFailed as exc:
            report.write(str(exc))
            return 1
        except OSError as exc:
            if report.closed:
                raise
            report.write(f"{type(exc).__name__}: {exc}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
