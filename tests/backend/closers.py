"""The crash-point proxy for closers: kills the process that closes a chord at a command it sends.

It stands between a worker and its server. Whose last part makes it the closer, it learns from the
server's reply; from then on it counts the commands of that process, on all of its connections, up
to the one that clears the chord up.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import tempfile
import threading
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from phonon_kombu.store.scripts import load
from tests.faults.proxy import Command, Proxy, When, values_from, words_of

ARRIVALS = {f"EVALSHA {load(name).sha}" for name in ("chord/arrive", "chord/fold")}
CLOSE = f"EVALSHA {load('chord/close').sha}"
#: How a reply begins that makes its reader the closer.
CLOSER = b"*5\r\n:1\r\n"


class Point(NamedTuple):
    """Where a closer dies: at its command `number`, when that was carried out and its reply is
    on its way ("sent"), or when the reply has come ("answered"). Number 0 is the arrival."""

    number: int
    when: When


#: Where the closer dies that is of no use.
USELESS = Point(0, "sent")


def pid_of(connection: Any) -> int:
    """The process that has connected."""
    credentials = connection.near.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("3i", credentials)[0])


@dataclass(eq=False)
class Closing:
    """One process that closes a chord."""

    pid: int
    group: str
    #: Where it dies; None: nowhere.
    point: Point | None
    #: The commands that it has sent as closer.
    names: list[str] = field(default_factory=list)
    halted: bool = False

    def dies_at(self, number: int) -> bool:
        """Whether it dies at this command."""
        return self.point is not None and self.point.number == number


@dataclass
class Sent(Command):
    """A command, and the closer that has sent it, if one has."""

    closing: Closing | None = None


class Death(NamedTuple):
    """What became of the closer of a chord."""

    point: Point
    at: float
    #: The command at which it died.
    name: str


class Closers(Proxy):
    """A line to the server of a worker, on which closers die.

    Each chord's first closer takes the next of :attr:`points`; when there is none it lives. A
    process that has closed a chord before has its connections and sends fewer commands: while there
    are points such a one dies at once, so that a new process takes its place.
    """

    def __init__(self, port: int) -> None:
        self.points: list[Point] = []
        #: Group -> how its closer has died.
        self.deaths: dict[str, Death] = {}
        #: The commands of those that lived, and had closed nothing before.
        self.whole: list[list[str]] = []
        #: Process -> what it closes, or was closing when it died.
        self._closings: dict[int, Closing] = {}
        self._used: set[int] = set()
        self._guard = threading.RLock()
        super().__init__(port)

    def _listen(self) -> socket.socket:
        # Such a socket tells which process has connected.
        self._directory = tempfile.TemporaryDirectory(prefix="phk-")
        self.path = f"{self._directory.name}/line"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(256)
        return listener

    def close(self) -> None:
        """End all connections, for good."""
        super().close()
        self._directory.cleanup()

    def _forward(self, connection: Any, packed: bytes) -> bool:
        with self._guard:
            command = Sent(-1, words_of(packed))
            closing = self._closings.get(pid_of(connection))
            if closing is not None:
                if closing.halted:
                    return True  # what a dead process has sent is dropped
                closing.names.append(command.name)
                command.number, command.closing = len(closing.names), closing
                closing.halted = closing.dies_at(command.number)
            connection.unanswered.append(command)
            connection.far.sendall(packed)
            return True

    def _replies(self, connection: Any) -> None:
        with contextlib.suppress(OSError):
            for packed in values_from(connection.far):
                if not self._answer(connection, packed):
                    return
        self._end(connection)

    def _answer(self, connection: Any, packed: bytes) -> bool:
        """Pass a reply on, and see what it means; False when its reader is dead."""
        with self._guard:
            command = connection.unanswered.pop(0) if connection.unanswered else None
            if command is not None and command.name in ARRIVALS and packed.startswith(CLOSER):
                self._begin(connection, command)
            closing = None if command is None else command.closing
            if closing is None or not closing.dies_at(command.number):
                connection.near.sendall(packed)
                if closing is not None and command.name == CLOSE:
                    self._end_well(closing)
                return True
            if closing.point.when == "answered":
                connection.near.sendall(packed)
            os.kill(closing.pid, signal.SIGKILL)
            self.deaths[closing.group] = Death(closing.point, time.time(), command.name)
            return False

    def _begin(self, connection: Any, command: Sent) -> None:
        group = command.words[3 + int(command.words[2])].decode()
        pid = pid_of(connection)
        if group in self.deaths:
            return
        point = None
        if self.points:
            point = USELESS if pid in self._used else self.points.pop(0)
        closing = self._closings[pid] = Closing(pid, group, point)
        closing.halted = closing.dies_at(0)
        command.number, command.closing = 0, closing

    def _end_well(self, closing: Closing) -> None:
        del self._closings[closing.pid]
        if closing.pid not in self._used:
            self._used.add(closing.pid)
            self.whole.append(closing.names)
