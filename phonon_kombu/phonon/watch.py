"""Looking after what this process has left to others and may have to end.

A thread for each server, so that one which is silent keeps nothing waiting that lives elsewhere.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Hashable
from functools import partial
from time import sleep
from typing import Protocol

from ..errors import PhononError
from ..store.client import CONNECTION_ERRORS

logger = logging.getLogger("phonon_kombu.phonon")

#: Seconds between two looks at what others still hold.
WATCH_SECONDS = 1.0

#: What may go wrong with a look and go away again.
PASSING_ERRORS: tuple[type[Exception], ...] = (*CONNECTION_ERRORS, PhononError)


class Watched(Protocol):
    """What is looked after. Of several of one name the last is enough, and those that owe more."""

    name: str

    @property
    def owes(self) -> bool:
        """Whether no other one of this name knows what this one has done."""

    def maintain(self) -> bool:
        """Do what there is to do; whether that was all."""


class Place(Protocol):
    """Where it lives."""

    @property
    def identity(self) -> tuple[Hashable, ...]:
        """What tells this place from others."""


#: What is looked after, by place. There is a thread for a place as long as it stands here: both
#: end at once, under the lock, so that nothing is left to a thread that is about to end.
_watched: dict[tuple[Hashable, ...], dict[str, list[Watched]]] = {}
_lock = threading.Lock()


def _after_fork() -> None:
    # The threads are the parent's, and so is what they look after.
    global _lock
    _lock = threading.Lock()
    _watched.clear()


os.register_at_fork(after_in_child=_after_fork)


def watch(one: Watched, place: Place) -> None:
    """Look after `one` until its :meth:`~Watched.maintain` is true."""
    key = place.identity
    with _lock:
        if key in _watched:
            found = _watched[key].setdefault(one.name, [])
            found[:] = [other for other in found if other.owes and other is not one] + [one]
            return
        target = partial(_look_after, key)
        threading.Thread(target=target, name="phonon-references", daemon=True).start()
        _watched[key] = {one.name: [one]}


def _look_after(key: tuple[Hashable, ...]) -> None:
    while True:
        sleep(WATCH_SECONDS)
        with _lock:
            # Whoever comes to be looked after from now on, perhaps once more, is not overlooked.
            found, _watched[key] = _watched[key], {}
        left = [one for some in found.values() for one in some if not _look(one)]
        with _lock:
            for one in left:
                again = _watched[key].setdefault(one.name, [])
                if not again or (one.owes and one not in again):
                    again.append(one)
            if not _watched[key]:
                del _watched[key]
                return


def _look(one: Watched) -> bool:
    try:
        return one.maintain()
    except PASSING_ERRORS as error:
        logger.debug("%r: %r", one, error)
    except BaseException:
        # The callback's, SystemExit too: it is tried again when the lease has ended.
        logger.exception("%r: on_last", one)
    return False
