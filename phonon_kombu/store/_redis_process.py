"""A redis-server or valkey-server as a child process of the keeper, and a word with it."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from typing import Any

START_SECONDS = 60.0
#: The server's configuration: not a name that a file of the user's may have.
CONFIGURATION = "phonon-redis.conf"
#: How long a server may do nothing, saving least of all, until it is killed.
STOP_SECONDS = 15.0
#: How long a server that is there may say nothing about whose it is.
ADOPT_SECONDS = 30.0
REPLY_SECONDS = 2.0
REPLY_MAX_BYTES = 65536


class StartFailed(Exception):
    """The server did not come up; the message says why, in a sentence for the user."""


def quoted(value: str) -> str:
    """``value`` as one argument of a Redis configuration line."""
    escaped = "".join(
        f"\\x{b:02x}" if b < 32 or b in b'"\\' else chr(b) for b in os.fsencode(value)
    )
    return f'"{escaped}"'


def command(address: dict[str, Any], *words: str, seconds: float | None = None) -> bytes:
    """Send one command to the server and return its reply (b'' at its end).

    Raises OSError; ConnectionRefusedError also where another server listens, which does not take
    the password.
    """
    sock: socket.socket
    if address["socket_path"]:
        sock = socket.socket(socket.AF_UNIX)
        target: Any = address["socket_path"]
    else:
        sock = socket.socket(socket.AF_INET)
        target = (address["host"], address["port"])
    with sock, sock.makefile("rb") as replies:
        sock.settimeout(seconds or REPLY_SECONDS)
        sock.connect(target)
        if address.get("password"):
            sock.sendall(encoded("AUTH", address["password"]))
            if replies.readline(REPLY_MAX_BYTES) != b"+OK\r\n":
                raise ConnectionRefusedError("another server listens there")
        sock.sendall(encoded(*words))
        reply = replies.readline(REPLY_MAX_BYTES)
        size = reply[1:].strip()
        return replies.read(int(size)) if reply[:1] == b"$" and size.isdigit() else reply


def is_inside(address: dict[str, Any], directory: str) -> bool:
    """Whether the server listens within `directory`; False also for a port.

    A copy of a directory names the socket of the one that was copied.
    """
    with contextlib.suppress(OSError):
        if address["socket_path"]:
            return os.path.samefile(os.path.dirname(address["socket_path"]), directory)
    return False


def pid_of(address: dict[str, Any], directory: str, seconds: float | None = None) -> int:
    """The process id that the server at `address` gives; 0 if it is too busy to say.

    Raises OSError; ConnectionRefusedError also for a server that is not this directory's.
    """
    info = os.fsdecode(command(address, "INFO", "server", seconds=seconds))
    said = dict(line.split(":", 1) for line in info.split("\r\n") if ":" in line)
    if "process_id" not in said:
        return 0
    if not is_inside(address, directory):
        # One that was copied has the password and the process id of the other one, too.
        own = False
        with contextlib.suppress(OSError):
            configuration = os.path.join(directory, CONFIGURATION)
            own = os.path.samefile(said.get("config_file", ""), configuration)
        if not own:
            raise ConnectionRefusedError("the server of another directory listens there")
    return int(said["process_id"])


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


class RedisProcess:
    """A redis-server or valkey-server: started as a child, or found running and adopted."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.process: subprocess.Popen[bytes] | None = None
        #: As the server itself says it; 0 if it has not said.
        self.pid = 0

    def start(self) -> dict[str, Any]:
        """Start the server and return its address, once it answers."""
        address = self._address()
        directory = self.settings["directory"]
        conf_path = os.path.join(directory, CONFIGURATION)
        conf_fd = os.open(conf_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(conf_fd, "w", encoding="latin-1") as conf:
            conf.write(self._configuration(address))
        self.process = subprocess.Popen(
            [self.settings["binary"], conf_path],
            cwd=directory,
            stdin=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        # A caller that was interrupted may have removed its temporary directory meanwhile.
        while time.monotonic() < deadline and os.path.exists(conf_path):
            if self.process.poll() is not None:
                raise StartFailed(
                    f"{self.settings['binary']} ended with status {self.process.returncode} "
                    "while starting"
                )
            with contextlib.suppress(OSError):
                if command(address, "PING").startswith(b"+PONG"):
                    self.pid = pid_of(address, directory)
                    return address
            time.sleep(0.01)
        self.process.kill()
        self.process.wait()
        raise StartFailed(f"the server did not answer within {START_SECONDS:.0f} seconds")

    def adopt(self, address: dict[str, Any]) -> bool:
        """Take over the server at ``address``, left by a keeper that died; False if it is gone,
        or is another's.

        A fakeredis is always gone: it lived in its keeper. Raises :class:`StartFailed`.
        """
        inside = is_inside(address, self.settings["directory"])
        if not inside and not address.get("password"):
            return False
        deadline = time.monotonic() + ADOPT_SECONDS
        while True:
            try:
                self.pid = pid_of(address, self.settings["directory"])
            except (ConnectionRefusedError, FileNotFoundError):
                return False
            except OSError:
                pass  # it is there but busy
            if inside:
                # However busy, it is the one that holds the data, and that was written down here.
                self.pid = self.pid or address["pid"]
                return True
            if self.pid:
                return bool(self.pid == address["pid"])
            if time.monotonic() > deadline:
                raise StartFailed(
                    f"port {address['port']} of {address['host']}, where the directory's server "
                    "was, is taken and says nothing: end what listens there"
                )
            time.sleep(0.1)

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

    def stop(self, address: dict[str, Any], reachable: bool = True) -> None:
        """Shut the server down, saving what is to be kept; kill it if it does not obey.

        ``reachable``: whether its directory is still there. In one that was removed and made
        again another server may listen, at the same address; ours has nothing left to save to,
        and would at an end in good order remove the other one's socket.
        """
        if not reachable:
            return self._kill()
        word = "SAVE" if self.settings["persist"] == "rdb" else "NOSAVE"
        try:
            command(address, "SHUTDOWN", word)
        except (ConnectionRefusedError, FileNotFoundError):
            if self.process is not None:
                self.process.terminate()  # ended already, or its socket was removed
        except OSError:
            pass  # busy: it may be writing its data at this very moment
        saved, deadline = -1, time.monotonic() + STOP_SECONDS
        while self.alive(address) and time.monotonic() < deadline:
            if self._saved_bytes() > saved:
                saved, deadline = self._saved_bytes(), time.monotonic() + STOP_SECONDS
            time.sleep(0.01)
        if self.process is not None or self.alive(address):
            self._kill()

    def _kill(self) -> None:
        if self.process is not None:
            self.process.kill()  # does nothing to one that has ended
            self.process.wait()
        elif self.pid:
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)

    def _saved_bytes(self) -> int:
        """How far the server has come with the file that it saves to at its end."""
        with contextlib.suppress(OSError):
            return os.stat(os.path.join(self.settings["directory"], f"temp-{self.pid}.rdb")).st_size
        return 0

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
