"""What other processes do in these tests."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

from phonon_kombu.phonon import field
from phonon_kombu.phonon.connections import Connections
from phonon_kombu.phonon.lock import Lock
from phonon_kombu.phonon.model import Model
from phonon_kombu.phonon.registry import Registry


def count_locked(url: str, name: str, key: str, times: int) -> None:
    """Count up with a read and a write that somebody might come between."""
    with Connections(url) as made:
        link = made.host_of(name).link
        for _ in range(times):
            with Lock(name, connections=made):
                seen = int(link.command(b"GET", key.encode()) or 0)
                time.sleep(0.001)
                link.command(b"SET", key.encode(), b"%d" % (seen + 1))


def hold_for_ever(url: str, name: str, ttl_seconds: float) -> None:
    """Take a lock and never give it back."""
    with Connections(url) as made, Lock(name, ttl_seconds, connections=made):
        time.sleep(3600)


class Tally(Model):
    """Writes what it sees at its completion into a list in Redis, as a database would have it."""

    TTL = 0.6
    FLUSH_SECONDS = 0.05
    n = field.SumField()
    who = field.SetAppendField()
    log = field.ListAppendField()
    mean = field.MeanField()

    def on_complete(self, message: Any) -> None:
        if Bus.die_in_completion:
            os.kill(os.getpid(), signal.SIGKILL)
        line = json.dumps({"id": self.id, "n": self.n, "who": sorted(self.who), "log": self.log})
        Bus.link.command(b"RPUSH", b"database", line.encode())
        message.finish()


class Message:
    """A message of a bus that delivers again what was not finished when its consumer died."""

    def __init__(self, number: bytes) -> None:
        self.number = self.id = number

    def finish(self) -> None:
        """It need not come again."""
        Bus.link.command(b"LREM", Bus.mine, b"1", self.number)


class Bus:
    """A queue in Redis: a message moves into the consumer's own list until it is finished."""

    link: Any = None
    mine = b""
    die_in_completion = False

    @classmethod
    def next(cls) -> Message | None:
        """The next message."""
        number = cls.link.command(b"LMOVE", b"{bus}", cls.mine, b"LEFT", b"RIGHT")
        return None if number is None else Message(number)


def consume(url: str, name: str, records: int, die: str = "") -> None:
    """Register what the bus brings until the key `stop` is there; then let go of everything.

    `die` says where this process kills itself: in its on_complete.
    """
    with Connections(url, presence_grace=0.5) as made:
        Bus.link = made.hosts[0].link
        Bus.mine = f"{{bus}}.{name}".encode()
        Bus.die_in_completion = die == "completion"
        registry = Registry(connections=made)
        Bus.link.command(b"INCR", b"ready")
        while not Bus.link.command(b"EXISTS", b"go"):
            time.sleep(0.005)
        while not Bus.link.command(b"EXISTS", b"stop"):
            message = Bus.next()
            if message is None:
                time.sleep(0.01)
                continue
            n = int(message.number)
            registry.register(Tally(id=n % records, n=n, who=name, log=n, mean=n), message)
            time.sleep(0.001)
        registry.close()


if __name__ == "__main__":
    consume(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
