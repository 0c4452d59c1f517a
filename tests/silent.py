"""A network that says nothing any more: no byte, no end of the connection."""

from __future__ import annotations

import contextlib
import socket
import threading

from tests.servers import RedisServer


class SilentLine:
    """A TCP proxy in front of a server that can fall silent.

    After :meth:`silence` it takes what either side sends and passes nothing on, neither bytes nor
    the end of a connection; new connections are accepted and get no answer, as from a machine
    whose process is frozen. :meth:`speak` lets new connections through again; the old ones stay
    as they are, until the client ends them.
    """

    def __init__(self, server: RedisServer) -> None:
        self._target = ("127.0.0.1", server.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._silent = False
        #: The connections that pass nothing on.
        self._muted: set[socket.socket] = set()
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, scheme: str, db: int = 0) -> str:
        """A broker URL that leads through here."""
        return f"{scheme}://127.0.0.1:{self.port}/{db}"

    def silence(self) -> None:
        """Pass nothing on any more, of no connection."""
        self._silent = True
        self._muted |= self._open

    def speak(self) -> None:
        """Pass on what new connections say."""
        self._silent = False

    def close(self) -> None:
        """End all connections."""
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def __enter__(self) -> SilentLine:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                pair = {near, far}
                if self._silent:
                    self._muted |= pair
                self._open |= pair
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if source not in self._muted:
                    sink.sendall(data)
            if source not in self._muted:
                sink.shutdown(socket.SHUT_RDWR)
