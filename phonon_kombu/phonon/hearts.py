"""The hearts of this process: one for each database, however many use it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from .heart import Heart

_hearts: dict[tuple[Any, ...], Heart] = {}
_hearts_lock = threading.RLock()
#: Held while a server is joined or left: who joins must not be taken along by a goodbye.
_server_locks: dict[tuple[Any, ...], threading.RLock] = {}


def _after_fork() -> None:
    global _hearts_lock
    _hearts_lock = threading.RLock()
    _server_locks.clear()
    for heart in _hearts.values():
        heart.after_fork()
    _hearts.clear()


os.register_at_fork(after_in_child=_after_fork)


def join(server: tuple[Any, ...], make: Callable[[], Heart]) -> Heart:
    """The heart of this process at `server`, started by the first who needs it."""
    with _lock_of(server):
        heart = _hearts.get(server)
        if heart is None:
            heart = make()
            heart.start()
            _hearts[server] = heart
        heart.users += 1
        return heart


def leave(server: tuple[Any, ...], heart: Heart, goodbye: bool) -> None:
    """The counterpart of :func:`join`; the last one out says goodbye, if nothing is held."""
    with _lock_of(server):
        heart.users -= 1
        if heart.users > 0 or _hearts.get(server) is not heart:
            return
        del _hearts[server]
        heart.stop(goodbye)


def _lock_of(server: tuple[Any, ...]) -> Any:
    with _hearts_lock:
        return _server_locks.setdefault(server, threading.RLock())
