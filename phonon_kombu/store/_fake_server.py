"""fakeredis's server inside the keeper, for machines that have no Redis binary at all."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

from fakeredis import TcpFakeServer
from redis.exceptions import ResponseError

#: The answer to INFO: fakeredis behaves like this version by default.
INFO = b"# Server\r\nredis_version:8.0.0\r\nredis_mode:standalone\r\n"


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
        server = make_server(path or ("127.0.0.1", 0))
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

    def stop(self, address: dict[str, Any], reachable: bool = True) -> None:
        """Nothing to do: it ends with this process."""


def make_server(address: str | tuple[str, int]) -> Any:
    """A fakeredis server bound to ``address``: the path of a Unix socket, or host and port.

    The caller runs its ``serve_forever()``. fakeredis's own server breaks a connection at every
    error reply, NOSCRIPT included, and does not know INFO: this one answers and goes on.
    """
    numbers = itertools.count(1)

    class Server(TcpFakeServer):
        address_family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET

        def server_bind(self) -> None:
            if self.address_family == socket.AF_INET:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(self.server_address)
            self.server_address: Any = self.socket.getsockname()

        def get_request(self) -> tuple[Any, Any]:
            # Clients of a Unix socket have no address, by which fakeredis tells them apart.
            request, client = super().get_request()
            return request, client or ("unix", next(numbers))

    server: Any = Server(address)
    server.daemon_threads = True  # its constructor sets it back

    class Handler(server.RequestHandlerClass):
        def setup(self) -> None:
            super().setup()
            self.current_client.read_response = _reading(self.current_client)

    server.RequestHandlerClass = Handler
    return server


def _reading(client: Any) -> Callable[..., Any]:
    """``client.read_response``, but an error reply is returned and not raised."""
    read = client.read_response

    def read_response(*args: Any, **options: Any) -> Any:
        try:
            return read(*args, **options)
        except ResponseError as exc:
            if str(exc).startswith("unknown command 'info'"):
                return INFO
            return exc

    return read_response
