"""The files in the directory of an embedded server, as the processes that use it see them.

``users.lock`` (shared: a user, exclusive: the keeper while it stops the server), ``keeper.lock``
(held by the living keeper), ``start.lock`` (held by the one process that may start a keeper),
``server.json`` (the address, written when the server answers), ``server.log``,
``phonon-redis.conf``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote

from ..errors import EmbeddedServerError
from ._redis_process import RedisProcess, StartFailed, command, is_inside, pid_of

try:
    import fcntl
except ImportError:  # not a POSIX system; embedded.py refuses before anything here is used
    fcntl = None  # type: ignore[assignment]

POLL_SECONDS = 0.02
ANSWER_SECONDS = 5.0
STOP_SECONDS = 20.0
LOG_TAIL_LINES = 4


@dataclass(frozen=True)
class EmbeddedAddress:
    """Where an embedded server listens: a Unix socket, or else a loopback port."""

    directory: str
    socket_path: str | None
    host: str | None
    port: int | None
    password: str | None = field(repr=False)
    #: What serves, for people to read: ``Redis 8.2.3``, ``Valkey 8.0.1``, ``fakeredis 2.40.0``.
    server: str
    #: Process ids of the server and of its keeper (the same one where fakeredis serves).
    pid: int
    keeper_pid: int

    def url(self, scheme: str = "phonon", db: int = 0) -> str:
        """The broker URL of database ``db``, for ``scheme`` ``phonon`` or ``redis``."""
        if self.socket_path is not None:
            return f"{scheme}+socket://{quote(self.socket_path)}?virtual_host={db}"
        password = f":{self.password}@" if self.password else ""
        return f"{scheme}://{password}{self.host}:{self.port}/{db}"

    def client_options(self) -> dict[str, Any]:
        """Keyword arguments for ``redis.Redis``."""
        if self.socket_path is not None:
            return {"unix_socket_path": self.socket_path}
        return {"host": self.host, "port": self.port, "password": self.password}

    # dict(address) and **address give the keyword arguments of redis-py's connection classes.
    def keys(self) -> list[str]:
        """``path`` of a Unix socket, or ``host``, ``port`` and ``password``."""
        return ["path"] if self.socket_path is not None else ["host", "port", "password"]

    def __getitem__(self, key: str) -> Any:
        return self.socket_path if key == "path" else getattr(self, key)


def lock(directory: str, name: str, deadline: float, *, shared: bool = False) -> int:
    """Take a lock file's lock; return the descriptor that holds it until it is closed.

    Raises :class:`EmbeddedServerError` when ``deadline`` (of ``time.monotonic``) passes first.
    """
    fd = os.open(os.path.join(directory, name), os.O_RDWR | os.O_CREAT, 0o600)
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    try:
        while True:
            try:
                fcntl.flock(fd, kind)
                return fd
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EmbeddedServerError(
                        f"another process has held {name} in {directory} for too long"
                    ) from None
            # A blocking flock would stop every green thread of gevent and eventlet.
            time.sleep(POLL_SECONDS)
    except BaseException:
        os.close(fd)
        raise


def keeper_lives(directory: str) -> bool:
    """Whether some process holds the keeper's lock."""
    try:
        fd = os.open(os.path.join(directory, "keeper.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return False  # the directory itself is gone
    try:
        return _held_by_another(fd)
    finally:
        os.close(fd)


def _held_by_another(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(fd, fcntl.LOCK_UN)
    return False


def find_answering(directory: str) -> EmbeddedAddress | None:
    """The address of the directory's server, if a keeper lives and the server answers."""
    try:
        with open(os.path.join(directory, "server.json"), encoding="utf-8") as file:
            fields = json.load(file)
        address = EmbeddedAddress(directory=directory, **fields)
    except (OSError, ValueError, TypeError):
        return None
    return address if keeper_lives(directory) and _answers(address) else None


def _answers(address: EmbeddedAddress) -> bool:
    fields = asdict(address)
    try:
        if address.password:
            return pid_of(fields, address.directory, ANSWER_SECONDS) == address.pid
        # fakeredis at a port has no password, and ends with its keeper.
        if address.socket_path is None or is_inside(fields, address.directory):
            return command(fields, "PING", seconds=ANSWER_SECONDS).startswith(b"+PONG")
    except OSError:
        pass
    return False


def end_keeper(address: EmbeddedAddress) -> None:
    """Tell the keeper of a temporary server to stop it, and wait until both have ended, within a
    bound; a server whose keeper was killed is stopped here.
    """
    try:
        # Kept open: the keeper of a temporary server removes the file before it ends.
        fd = os.open(os.path.join(address.directory, "keeper.lock"), os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        if _held_by_another(fd):
            with contextlib.suppress(ProcessLookupError):
                os.kill(address.keeper_pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while _held_by_another(fd):
            if time.monotonic() > deadline:
                return
            time.sleep(POLL_SECONDS)
    finally:
        os.close(fd)
    server = RedisProcess({"directory": address.directory, "persist": "none"})
    with contextlib.suppress(StartFailed):
        if server.adopt(asdict(address)):
            server.stop(asdict(address))


def log_tail(directory: str) -> str:
    """The end of the server's log as a clause for an error message."""
    path = os.path.join(directory, "server.log")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
    except OSError:
        lines = []
    if not lines:
        return f"it wrote nothing to {path}"
    return f"the end of {path}: " + " | ".join(lines[-LOG_TAIL_LINES:])
