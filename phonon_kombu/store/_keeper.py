"""The process that looks after one embedded server: starts it, watches its users, stops it.

A program of its own, run by :mod:`phonon_kombu.store.embedded` as ``python -m
phonon_kombu.store._keeper`` with its settings as JSON on standard input.

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
    process that connects starts a new keeper, which adopts the running server, if that shows that
    it is this directory's. The directory: when it is removed, the keeper stays until its users have
    ended, and then leaves alone what was made there since.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time
from typing import Any, Protocol

from ._redis_process import STOP_SECONDS, RedisProcess, StartFailed

TICK_SECONDS = 0.2
LOG_MAX_BYTES = 1_000_000


def try_lock(fd: int) -> bool:
    """Take the exclusive lock of ``fd`` if nobody holds it, shared or exclusive."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Report:
    """The pipe to the process that waits to hear how the start went."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.sent = False

    def send(self, text: str) -> bool:
        """Send the one and only message; False if nobody waits for it any more."""
        self.sent = True
        try:
            os.write(self.fd, text.encode(errors="replace"))
        except BrokenPipeError:
            return False
        finally:
            os.close(self.fd)
        return True


class Server(Protocol):
    """What the keeper needs of the server that it keeps."""

    pid: int

    def start(self) -> dict[str, Any]: ...
    def adopt(self, address: dict[str, Any]) -> bool: ...
    def alive(self, address: dict[str, Any]) -> bool: ...
    def stop(self, address: dict[str, Any], reachable: bool = True) -> None: ...


def fakeredis_server(settings: dict[str, Any]) -> Server:
    """fakeredis's server, in a thread of this process."""
    try:
        from ._fake_server import FakeredisThread
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


def is_there(directory: str, keeper_fd: int) -> bool:
    """Whether `directory` is still the one whose keeper's lock we hold, not one made since."""
    try:
        found = os.stat(os.path.join(directory, "keeper.lock"))
    except OSError:
        return False
    return os.path.samestat(found, os.fstat(keeper_fd))


def detach(directory: str) -> None:
    """Let go of the terminal, the caller's pipes and working directory; log into the directory."""
    os.umask(0o077)
    log_path = os.path.join(directory, "server.log")
    log_fd = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if os.fstat(log_fd).st_size > LOG_MAX_BYTES:
        os.ftruncate(log_fd, 0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    os.chdir("/")


def keep(settings: dict[str, Any], report: Report) -> None:
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
        with contextlib.suppress(FileNotFoundError):
            os.unlink(address_path)  # of a copied directory it names the other one's server
        server = server if settings["binary"] else fakeredis_server(settings)
        address = server.start() | {"server": settings["server"], "pid": server.pid}
    address |= {"pid": server.pid or address["pid"], "keeper_pid": os.getpid()}
    try:
        write_address(address_path, address)
        report.send("ok")
        watch(settings, server, address, users_fd, stopping)
    finally:
        server.stop(address, is_there(directory, keeper_fd))
        for name in (address_path, address["socket_path"]):
            if name and is_there(directory, keeper_fd):
                with contextlib.suppress(OSError):
                    os.unlink(name)


def watch(
    settings: dict[str, Any],
    server: Server,
    address: dict[str, Any],
    users_fd: int,
    stopping: threading.Event,
) -> None:
    """Return when the server has died, has had no user for long enough, or is told to stop."""
    unused_since: float | None = None
    while not stopping.wait(TICK_SECONDS) and server.alive(address):
        if not try_lock(users_fd):
            unused_since = None
            continue
        now = time.monotonic()
        unused_since = now if unused_since is None else unused_since
        if now - unused_since >= settings["linger_seconds"]:
            return  # with the lock in hand: nobody can come in while the server stops
        fcntl.flock(users_fd, fcntl.LOCK_UN)


def main() -> int:
    """Leave a keeper running in the background; exit 0 once its server answers."""
    settings = json.load(sys.stdin)
    read_fd, write_fd = os.pipe()
    if os.fork():
        os.close(write_fd)
        with open(read_fd, encoding="utf-8") as pipe:
            outcome = pipe.read()
        if outcome == "ok":
            return 0
        print(outcome or "the keeper of the server ended while starting it", file=sys.stderr)
        return 1

    os.close(read_fd)
    report = Report(write_fd)
    try:
        detach(settings["directory"])
        keep(settings, report)
    except (StartFailed, OSError) as exc:
        if report.sent:
            raise  # into the log
        text = str(exc) if isinstance(exc, StartFailed) else f"{type(exc).__name__}: {exc}"
        if report.send(text):
            return 1  # who asked for the server reads the log, and then clears up
    if settings["temporary"]:
        shutil.rmtree(settings["directory"], ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
