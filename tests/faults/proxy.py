"""A line to a Redis server that counts the commands on it, and fails when it is told to.

:class:`Proxy` stands between a victim and its server::

    with Proxy(server.port) as proxy:
        proxy.crash_at(7, "sent", lambda: os.kill(victim, signal.SIGKILL))

All connections of the victim are counted together, in the order in which their commands arrive.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

#: How long the reply to the last command may take before the victim is killed without it: it may
#: be one that blocks.
REPLY_SECONDS = 0.3

When = Literal["sent", "answered"]


@dataclass
class Command:
    """One command that came over the line."""

    #: 1 for the first on any connection.
    number: int
    words: list[bytes]
    #: The server's answer, as it came; None as long as there is none.
    reply: bytes | None = None

    @property
    def name(self) -> str:
        """The command in capitals; of a script call its SHA1 follows."""
        name = self.words[0].decode().upper()
        return f"{name} {self.words[1].decode()}" if name == "EVALSHA" else name


@dataclass(eq=False)
class _Connection:
    near: socket.socket
    far: socket.socket
    unanswered: list[Command] = field(default_factory=list)
    dead: bool = False


class Proxy:
    """Forwards to ``127.0.0.1:port``; the victim connects to :attr:`port`."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = self._listen()
        #: What was forwarded, oldest first.
        self.commands: list[Command] = []
        self._lock = threading.Lock()
        self._connections: set[_Connection] = set()
        self._at = 0
        self._when: When = "sent"
        self._crash: Callable[[], None] = lambda: None
        self._refused = 0
        self._halted = threading.Event()
        #: Set when the victim was killed.
        self.crashed = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _listen(self) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = listener.getsockname()[1]
        return listener

    # What can be done to the line ----------------------------------------------------------

    def crash_at(self, number: int, when: When, crash: Callable[[], None]) -> None:
        """Call `crash` when command `number` was carried out: before its reply is passed on
        ("sent"), or after ("answered"). Nothing is forwarded after that command."""
        self._at, self._when, self._crash = number, when, crash

    def cut_at(self, number: int, when: When, refused: int = 0) -> None:
        """End all connections at a command, as :meth:`crash_at` says; of new ones the first
        `refused` end at once."""

        def cut() -> None:
            self._at = 0
            self._refused = refused
            self._halted.clear()
            self.cut()

        self.crash_at(number, when, cut)

    def fall_silent(self) -> None:
        """From now on nothing passes on the connections that there are, and neither side is told,
        as when a cable is pulled. New connections work."""
        for connection in list(self._connections):
            connection.dead = True

    def cut(self) -> None:
        """End all connections; new ones can be made."""
        for connection in list(self._connections):
            self._end(connection)

    def close(self) -> None:
        """End all connections, for good."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def connections(self) -> int:
        """How many connections there are that work."""
        return sum(not connection.dead for connection in list(self._connections))

    # Pumps ---------------------------------------------------------------------------------

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self._refused:
                    self._refused -= 1
                    near.close()
                    continue
                connection = _Connection(near, socket.create_connection(self._target))
                for sock in (connection.near, connection.far):
                    if sock.family == socket.AF_INET:
                        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connections.add(connection)
                for pump in (self._requests, self._replies):
                    threading.Thread(target=pump, args=(connection,), daemon=True).start()

    def _requests(self, connection: _Connection) -> None:
        with contextlib.suppress(OSError):
            for packed in values_from(connection.near):
                if connection.dead:
                    continue
                if not self._forward(connection, packed):
                    return
        if not connection.dead:
            self._end(connection)

    def _forward(self, connection: _Connection, packed: bytes) -> bool:
        with self._lock:
            if self._halted.is_set():
                return False
            command = Command(len(self.commands) + 1, words_of(packed))
            self.commands.append(command)
            connection.unanswered.append(command)
            last = command.number == self._at
            if last:
                self._halted.set()
            connection.far.sendall(packed)
        if last:
            timer = threading.Timer(REPLY_SECONDS, self._crash_now)
            timer.daemon = True
            timer.start()
        return not last

    def _replies(self, connection: _Connection) -> None:
        with contextlib.suppress(OSError):
            for packed in values_from(connection.far):
                if connection.dead:
                    continue
                command = connection.unanswered.pop(0) if connection.unanswered else None
                last = command is not None and command.number == self._at
                if command is not None:
                    command.reply = packed
                if not last or self._when == "answered":
                    connection.near.sendall(packed)
                if last:
                    self._crash_now()
                    return
        if not connection.dead:
            self._end(connection)

    def _crash_now(self) -> None:
        with self._lock:
            if self.crashed.is_set():
                return
            self._crash()
            self.crashed.set()

    def _end(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        for sock in (connection.near, connection.far):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


# Redis's protocol ----------------------------------------------------------------------------


def values_from(sock: socket.socket) -> Iterator[bytes]:
    """The commands or replies that come over `sock`, each as it was packed, until it is closed."""
    data = b""
    while piece := sock.recv(1 << 16):
        data += piece
        while (end := end_of(data)) is not None:
            packed, data = data[:end], data[end:]
            yield packed


def end_of(data: bytes, start: int = 0) -> int | None:
    """Where the value that begins at `start` ends; None if not all of it is there."""
    line = data.find(b"\r\n", start)
    if line < 0:
        return None
    kind, head = data[start : start + 1], data[start + 1 : line]
    position = line + 2
    if kind in b"$!=":
        length = int(head)
        end = position if length < 0 else position + length + 2
        return end if end <= len(data) else None
    if kind in b"*~>%":
        count = int(head) * (2 if kind == b"%" else 1)
        for _ in range(count):
            found = end_of(data, position)
            if found is None:
                return None
            position = found
    return position


def words_of(packed: bytes) -> list[bytes]:
    """The words of one packed command."""
    words, position = [], packed.index(b"\r\n") + 2
    while position < len(packed):
        line = packed.index(b"\r\n", position)
        length = int(packed[position + 1 : line])
        words.append(packed[line + 2 : line + 2 + length])
        position = line + 4 + length
    return words
