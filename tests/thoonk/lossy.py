"""A network that breaks at the worst moment."""

from __future__ import annotations

import contextlib
import socket
import threading


class LossyLine:
    """A TCP proxy in front of a server that can swallow a reply and break the connection.

    ``lose(word)`` arms it: the next commands with `word` in them reach the server and are
    carried out, but instead of the reply the client sees its connection end.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._word = b""
        self._times = 0
        self._before = False
        #: How many replies or commands were lost.
        self.lost = 0
        #: How many writes of clients came through.
        self.requests = 0
        #: How many of them were waits for work.
        self.waits = 0
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, word: bytes, times: int = 1, before: bool = False) -> None:
        """Lose the replies to the next `times` commands that contain `word`.

        With `before` the command itself is lost, on its way to the server.
        """
        self._word, self._times, self._before = word, times, before

    @property
    def connections(self) -> int:
        """How many connections there are at the moment."""
        return len(self._pairs)

    def cut(self) -> None:
        """End all connections; new ones can be made."""
        for pair in list(self._pairs):
            self._end(*pair)

    def close(self) -> None:
        """End all connections, for good."""
        self._end(self._listener)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._pairs.add((near, far))
                losing = threading.Event()
                for pump in (self._requests, self._replies):
                    threading.Thread(target=pump, args=(near, far, losing), daemon=True).start()

    def _requests(self, near: socket.socket, far: socket.socket, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(1 << 20):
                if self._times and self._word in data:
                    self._times -= 1
                    self.lost += 1
                    if self._before:
                        break
                    losing.set()
                far.sendall(data)
                self.requests += 1
                self.waits += b"BZPOPMIN" in data and b"node.mail" not in data
        self._end(near, far)
        self._pairs.discard((near, far))

    def _replies(self, near: socket.socket, far: socket.socket, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := far.recv(1 << 20):
                if losing.is_set():
                    break
                near.sendall(data)
        self._end(near, far)

    def _end(self, *sockets: socket.socket) -> None:
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
