"""The hearts of this process: one for each database, however many use it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from .heart import Heart

_hearts: dict[tuple[Any, ...], Heart] = {}
_hearts_lock = threading.RLock()


def _after_fork() -> None:
    global _hearts_lock
    _hearts_lock = threading.RLock()
    for heart in _hearts.values():
        heart.after_fork()
    _hearts.clear()


os.register_at_fork(after_in_child=_after_fork)


def join(server: tuple[Any, ...], make: Callable[[], Heart]) -> Heart:
    """The heart of this process at `server`, started by the first who needs it."""
    with _hearts_lock:
        heart = _hearts.get(server)
        if heart is None:
            heart = make()
            heart.start()
            _hearts[server] = heart
        heart.users += 1
        return heart


def leave(server: tuple[Any, ...], heart: Heart, goodbye: bool) -> None:
    """The counterpart of :func:`join`; the last one out says goodbye, if nothing is held."""
    with _hearts_lock:
        heart.users -= 1
        if heart.users > 0 or _hearts.get(server) is not heart:
            return
        del _hearts[server]
    heart.stop(goodbye)
