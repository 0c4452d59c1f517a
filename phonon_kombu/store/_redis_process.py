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
STOP_SECONDS = 15.0


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
        conf_path = os.path.join(directory, CONFIGURATION)
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
        # A caller that was interrupted may have removed its temporary directory meanwhile.
        while time.monotonic() < deadline and os.path.exists(conf_path):
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
        self.process.wait()
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
        try:
            command(address, "SHUTDOWN", word)
        except (ConnectionRefusedError, FileNotFoundError):
            # Ended already, or its socket was removed together with the directory.
            if self.process is not None:
                self.process.terminate()
        except OSError:
            pass  # busy: it may be writing its data at this very moment
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
