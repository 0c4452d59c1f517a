"""A private Redis for one project: started on demand, shared by its processes, gone after them.

The processes of a project meet in a *directory*. The first to come starts a server there, the
others find its address in ``server.json``; all of them hold a shared ``flock`` while they live,
and a small keeper process (:mod:`phonon_kombu.store._keeper`, which explains how) stops the
server a few seconds after the last of them has ended, whether by ``exit()`` or by SIGKILL.

What a directory keeps
    Named by the user: everything, in Redis's append-only file (a crash of the machine costs at
    most the last second). The default, one directory per user and working directory below the
    system's temporary directory: what is in the server when it stops in good order, so that a
    task sent by a script that has ended meets the worker that starts later. A temporary server
    (``EmbeddedServer(temporary=True)``): nothing. fakeredis never keeps anything.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from ..errors import EmbeddedServerError
from ._directories import MARK, default_directory, named_directory
from ._keeper_files import (
    POLL_SECONDS,
    EmbeddedAddress,
    end_keeper,
    find_answering,
    keeper_lives,
    lock,
    log_tail,
)
from .server_binary import find_server

__all__ = ["EmbeddedAddress", "EmbeddedServer", "acquire", "default_directory", "release"]

START_SECONDS = 75.0
LINGER_SECONDS = 5.0
#: The longest path of a Unix socket that both Linux (107 bytes) and macOS (103) take.
SOCKET_PATH_MAX_BYTES = 103

logger = logging.getLogger("phonon_kombu.embedded")


class EmbeddedServer:
    """One process's hold on the embedded server of a directory.

    :param directory: where the server lives; made if missing, and this user's own. ``None``: the
        default directory of this user and working directory.
    :param temporary: a server of one's own in a fresh directory, which is stopped and removed
        by :meth:`stop`, and at the latest when this process has ended. Excludes ``directory``.
    :param server: path of the binary to run, or ``"fakeredis"``; ``None`` looks for the best
        one (see :func:`phonon_kombu.store.server_binary.find_server`). A server that already
        runs in the directory is used whatever it is.
    :param linger_seconds: how long an unused server waits for the next user before it stops.
        The process that starts the server decides.

    Also a context manager: ``with EmbeddedServer() as server: server.address.url()``. Safe to
    use after a fork: a child shares its parent's hold until it ends or calls :meth:`stop`.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        temporary: bool = False,
        server: str | None = None,
        linger_seconds: float | None = None,
    ) -> None:
        if temporary and directory is not None:
            raise ValueError("a temporary server makes its own directory: name none")
        if linger_seconds is None:
            linger_seconds = 0.0 if temporary else LINGER_SECONDS
        self._given = None if directory is None else os.path.abspath(os.fspath(directory))
        self._working: str | None = None
        self._temporary = temporary
        self._server = server
        self._linger_seconds = linger_seconds
        self._users_fd: int | None = None
        self._owner_pid = 0
        self._directory: str | None = None
        self._address: EmbeddedAddress | None = None

    @property
    def address(self) -> EmbeddedAddress:
        """Where the server listens. Raises :class:`EmbeddedServerError` before :meth:`start`."""
        if self._address is None:
            raise EmbeddedServerError("the embedded server has not been started")
        return self._address

    def start(self) -> EmbeddedAddress:
        """Find or start the server and hold it; called again, see that it still answers.

        Raises :class:`EmbeddedServerError` if the directory cannot be used, or no server starts.
        """
        if os.name != "posix":
            raise EmbeddedServerError(
                "an embedded server needs Linux, macOS or another POSIX system; "
                "on this one, start a Redis server and use phonon://host:port/0"
            )
        directory = self._enter()
        deadline = time.monotonic() + START_SECONDS
        try:
            if self._users_fd is None:
                self._users_fd = lock(directory, MARK, deadline, shared=True)
            address = find_answering(directory)
            if address is None:
                starter_fd = lock(directory, "start.lock", deadline)
                try:
                    address = self._start_alone(directory, deadline)
                finally:
                    os.close(starter_fd)
        except OSError as exc:
            self.stop()
            raise EmbeddedServerError(f"cannot use the directory {directory}: {exc}") from exc
        except BaseException:
            self.stop()
            raise
        self._address = address
        return address

    def stop(self) -> None:
        """Let go of the server. The last process to let go ends it; a temporary one ends here.

        For a shared server this returns at once; for a temporary one, when it has stopped.
        """
        address, directory = self._address, self._directory
        owner = self._owner_pid == os.getpid()
        self._let_go()
        self._address = None
        if not (self._temporary and owner and directory):
            return
        self._directory = None
        if address is not None:
            end_keeper(address)
        shutil.rmtree(directory, ignore_errors=True)

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def _enter(self) -> str:
        """The directory, made if missing: the first time, and when it was removed meanwhile."""
        if self._directory is None or not self._is_there(self._directory):
            # What we hold in one that was removed keeps its server up until we let go.
            self._let_go()
            self._directory = self._make_directory()
            self._owner_pid = os.getpid()
        return self._directory

    def _is_there(self, directory: str) -> bool:
        try:
            mark = os.stat(os.path.join(directory, MARK))
        except OSError:
            # Of a temporary directory a cleaner may have taken single files.
            return os.path.exists(os.path.join(directory, "server.json"))
        return self._users_fd is None or os.path.samestat(mark, os.fstat(self._users_fd))

    def _make_directory(self) -> str:
        try:
            if self._temporary:
                return tempfile.mkdtemp(prefix="phonon-")
            if self._given is None:
                self._working = self._working or os.path.realpath(os.getcwd())
                return default_directory(self._working)
        except OSError as exc:
            raise EmbeddedServerError(f"cannot make a temporary directory: {exc}") from exc
        return named_directory(self._given)

    def _let_go(self) -> None:
        # Close, never unlock: an unlock would also take the lock from a parent or a child that
        # shares this descriptor since a fork.
        if self._users_fd is not None:
            os.close(self._users_fd)
            self._users_fd = None

    def _start_alone(self, directory: str, deadline: float) -> EmbeddedAddress:
        """Start the server, or wait for it, as the only process of this directory that may."""
        launched = False
        while True:
            address = find_answering(directory)
            if address is not None:
                return address
            if keeper_lives(directory):
                time.sleep(POLL_SECONDS)
            elif launched:
                raise EmbeddedServerError(
                    f"the embedded server in {directory} ended at once; {log_tail(directory)}"
                )
            else:
                self._launch(directory)
                launched = True
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"the embedded server in {directory} does not answer; {log_tail(directory)}"
                )

    def _launch(self, directory: str) -> None:
        found = find_server(self._server)
        if found.path is None and self._given is not None:
            logger.warning(
                "fakeredis keeps nothing on disk: what is queued in %s is lost when it stops. "
                "Install a Redis server, or phonon_kombu[embedded] on a platform that has one.",
                directory,
            )
        path = os.path.join(directory, "redis.sock")
        fits = len(os.fsencode(path)) <= SOCKET_PATH_MAX_BYTES
        settings = {
            "directory": directory,
            "binary": found.path,
            "server": found.label,
            "socket_path": path if fits else None,
            "persist": "none" if self._temporary else "rdb" if self._given is None else "aof",
            "temporary": self._temporary,
            "linger_seconds": self._linger_seconds,
        }
        # The keeper must find this package, and fakeredis, wherever this process found them.
        package_root = str(Path(__file__).parents[2])
        modules = [os.path.abspath(entry) for entry in sys.path]
        if package_root not in modules:
            modules.append(package_root)  # last: what lies beside it must hide nothing
        try:
            # A session of its own: Ctrl-C in the terminal is for the program, not its server.
            # The directory is there for people who read the output of ps.
            outcome = subprocess.run(
                [sys.executable, "-m", "phonon_kombu.store._keeper", directory],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(modules)},
                cwd=directory,
                input=json.dumps(settings),
                capture_output=True,
                text=True,
                timeout=START_SECONDS,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise EmbeddedServerError(f"no server came up in {directory}") from exc
        if outcome.returncode:
            raise EmbeddedServerError(
                f"cannot start {found.label} in {directory}: {outcome.stderr.strip()}; "
                + log_tail(directory)
            )


_registry: dict[str, EmbeddedServer] = {}
_registry_lock = threading.Lock()


def acquire(directory: str | os.PathLike[str] | None = None) -> EmbeddedAddress:
    """The address of the server of ``directory`` (``None``: the default), started if need be.

    The process holds the server from then on until it ends, or calls :func:`release`; the default
    remains the one of the first call, wherever the process changes its directory to. Call it
    before every new connection: it costs one PING, and brings back a server that has died.
    Raises :class:`EmbeddedServerError`.
    """
    key = _key(directory)
    with _registry_lock:
        server = _registry.get(key)
        if server is None:
            server = _registry[key] = EmbeddedServer(key or None)
        return server.start()


def release(directory: str | os.PathLike[str] | None = None) -> None:
    """Undo :func:`acquire` before this process ends. Open connections are not closed."""
    with _registry_lock:
        server = _registry.pop(_key(directory), None)
    if server is not None:
        server.stop()


def _key(directory: str | os.PathLike[str] | None) -> str:
    # One for the default, wherever the process is: the directory is the one of its first call.
    return os.path.abspath(os.fspath(directory)) if directory else ""


def _fresh_lock() -> None:
    # Another thread of the parent may have held it at the moment of the fork.
    global _registry_lock
    _registry_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh_lock)
