"""A port that speaks TLS with those who begin so, and plainly with all others.

A Sentinel gives its clients the address at which it watches the master itself: where the one must
have TLS and the other has none, both come to the same port.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING

from tests.servers import free_port

if TYPE_CHECKING:
    from tests.topologies import Certificates

#: The first byte of a TLS handshake.
HANDSHAKE = b"\x16"


class DualPort:
    """A loopback port in front of a server's port, until ``close``.

    Attributes:
        port: the new port.
        secured: how many connections came with TLS.
    """

    def __init__(self, target: int, certificates: Certificates) -> None:
        self.target = target
        self.port = free_port()
        self.secured = 0
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificates.server_certificate, certificates.server_key)
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if near.recv(1, socket.MSG_PEEK) == HANDSHAKE:
                near = self._context.wrap_socket(near, server_side=True)
                self.secured += 1
            far = socket.create_connection(("127.0.0.1", self.target))
            self._ends += [near, far]
            threading.Thread(target=self._copy, args=(far, near), daemon=True).start()
            self._copy(near, far)

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the port and all connections that came to it."""
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
