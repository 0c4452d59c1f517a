"""fakeredis's server inside the keeper, for machines that have no Redis binary at all."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
from typing import Any

from fakeredis import TcpFakeServer


class FakeredisThread:
    """Serves on a Unix socket or a loopback port, from a thread of this process."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.pid = os.getpid()
        self.thread: threading.Thread | None = None

    def start(self) -> dict[str, Any]:
        """Start to serve; return the address."""
        path: str | None = self.settings["socket_path"]
        if path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        server = _server(path)
        self.thread = threading.Thread(target=server.serve_forever, daemon=True)
        self.thread.start()
        return {
            "socket_path": path,
            "host": None if path else "127.0.0.1",
            "port": None if path else server.server_address[1],
            "password": None,
        }

    def adopt(self, address: dict[str, Any]) -> bool:
        """Never: a fakeredis ends with the keeper in which it lives."""
        return False

    def alive(self, address: dict[str, Any]) -> bool:
        """Whether it still serves."""
        return self.thread is not None and self.thread.is_alive()

    def stop(self, address: dict[str, Any]) -> None:
        """Nothing to do: it ends with this process."""


def _server(path: str | None) -> Any:
    numbers = itertools.count(1)

    class Server(TcpFakeServer):
        address_family = socket.AF_UNIX if path else socket.AF_INET
        daemon_threads = True

        def server_bind(self) -> None:
            self.socket.bind(self.server_address)
            self.server_address: Any = self.socket.getsockname()

        def get_request(self) -> tuple[Any, Any]:
            # Clients of a Unix socket have no address, by which fakeredis tells them apart.
            request, address = super().get_request()
            return request, address or ("unix", next(numbers))

    server = Server(path or ("127.0.0.1", 0))
    server.daemon_threads = True  # its constructor sets it back
    return server
