"""What other processes do in these tests."""

from __future__ import annotations

import time

from phonon_kombu.phonon.connections import Connections
from phonon_kombu.phonon.lock import Lock


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
