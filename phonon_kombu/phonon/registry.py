"""The registry: merges records in memory, folds them into Redis, completes those left last.

::

    import phonon_kombu.phonon.registry

    phonon_kombu.phonon.registry.register(Session(id=42, clicks=1), msg)

A record is *held* from its first registration until none has come for its ``TTL``; meanwhile what
was registered is folded every ``FLUSH_SECONDS``. The last process to let go calls ``on_complete``.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import weakref
from time import monotonic, sleep
from typing import Any

from ..errors import ConfigurationError, RegistryFull
from ..store.client import CONNECTION_ERRORS
from .connections import Connections
from .entries import Entry, Registration
from .model import Model
from .sending import CLOSING_SECONDS, Sender

logger = logging.getLogger("phonon_kombu.phonon")

#: How many entries a record may gather in memory before it is folded at once.
HEAVY = 1000

#: Seconds that the end of the program waits for what is still in memory.
EXIT_SECONDS = 10.0


class Registry(Sender):
    """Records of this process. Safe between threads; a forked child begins with none.

    Arguments:
        max_entries: above so many records in memory, the one that was registered longest ago is
            let go of.
        connections: by default what :func:`.connections.connect` connected.

    At the end of a program it is closed. A forked child begins with an empty one. Processes that
    end by ``os._exit``, as children of ``multiprocessing`` and of Celery's prefork pool do, must
    call :meth:`close` themselves, or what is in memory only is lost with them.

    Redis keys:
        <prefix>model.held.<node>:{models}: SET, what a process holds: ``<owner> <record>``.
        <prefix>model.orphans:{models}: ZSET, records whose holders have all died, by the time that
            was noticed, ms.
    """

    def __init__(self, max_entries: int = 10_000, connections: Connections | None = None) -> None:
        if isinstance(max_entries, bool) or not isinstance(max_entries, int) or max_entries < 1:
            raise ConfigurationError(f"max_entries={max_entries!r}: it must be a positive number")
        super().__init__(connections)
        self.max_entries = max_entries
        _all.add(self)

    @property
    def models(self) -> dict[str, Model]:
        """What is in memory and not on its way to Redis, by registry key."""
        with self._wake:
            found = [(e.name, e.tail or e.head) for e in self._entries.values()]
        return {name: model for name, model in found if model is not None}

    def register(self, model: Model, *args: Any, **kwargs: Any) -> None:
        """Merge a record into those in memory. `args` go to its on_complete, or on_flush.

        In an event loop they are called in it, else in a thread of the registry. The first
        registration of a record asks Redis once; see :meth:`register_async`.

        Raises redis-py's connection errors at that occasion,
        :exc:`~phonon_kombu.errors.RegistryFull` if twice as many records as `max_entries` wait, and
        :exc:`~phonon_kombu.errors.FieldError` if the values together are refused: then they are
        not registered, and the message is not to be acknowledged.
        """
        registration = registration_of(model, args, kwargs)
        if not self._merge(model, registration):
            self._open(model, registration)

    async def register_async(self, model: Model, *args: Any, **kwargs: Any) -> None:
        """:meth:`register`, without keeping the event loop while Redis is asked."""
        registration = registration_of(model, args, kwargs)
        if not self._merge(model, registration):
            await asyncio.to_thread(self._open, model, registration)

    def flush(self, timeout_seconds: float = 30.0) -> None:
        """Fold now what was registered, but for each record's last registration with arguments.

        Raises ``TimeoutError`` if that is not done in time, and connection errors.
        """
        until = monotonic() + timeout_seconds
        while True:
            with self._wake:
                due = [e for e in self._entries.values() if e.sent or e.has_head]
            if not due:
                return
            if monotonic() >= until:
                raise TimeoutError(f"{len(due)} record(s) could not be folded in time")
            if self._send(due, raising=True):
                sleep(CLOSING_SECONDS)

    def close(self, timeout_seconds: float = 30.0) -> None:
        """Let go of all records now, and complete those that nobody else holds.

        Raises ``TimeoutError`` if that is not done in time. The registry may be used again.
        """
        until = monotonic() + timeout_seconds
        while True:
            with self._wake:
                due = list(self._entries.values())
                for entry in due:
                    entry.leaving = True
            if not due or monotonic() >= until:
                break
            if self._send(due):
                sleep(CLOSING_SECONDS)
        done = self._completions.wait(until - monotonic())
        self._stop()
        if due or not done:
            raise TimeoutError(f"{len(due)} record(s) left in memory, {self._completions} open")

    async def close_async(self, timeout_seconds: float = 30.0) -> None:
        """:meth:`close`, while the event loop goes on and calls what it is to call."""
        await asyncio.to_thread(self.close, timeout_seconds)

    # Taking in -----------------------------------------------------------------------------

    def _merge(self, model: Model, registration: Registration) -> bool:
        """Merge into a record that we hold; whether we do."""
        name = model.registry_key()
        with self._wake:
            entry = self._entries.get(name)
            if entry is None:
                return False
            if entry.kind is not type(model):
                raise ConfigurationError(f"two models are called {model.NAME!r}")
            entry.add(model, registration, monotonic())
            self._entries.move_to_end(name)
            if (entry.heads or entry.kind.layout.gathers) and entry.weight > HEAVY:
                entry.dirty_at = float("-inf")
            self._schedule(entry)
        return True

    def _open(self, model: Model, registration: Registration) -> None:
        name = model.registry_key()
        records = self._records_at(name)
        # Nobody leaves a record while another thread comes to hold it.
        with records.lock:
            if self._merge(model, registration):
                return
            if len(self._entries) >= 2 * self.max_entries:
                raise RegistryFull(f"{len(self._entries)} records wait to be folded into Redis")
            entry = Entry(type(model), model.id, name, records, monotonic())
            try:
                records.hold(entry.keys)
            except CONNECTION_ERRORS:
                self._start()  # if it was done after all, that is undone
                raise
            with self._wake:
                entry.add(model, registration, monotonic())
                self._entries[name] = entry
                self._schedule(entry)
                if len(self._entries) > self.max_entries:
                    oldest = next(e for e in self._entries.values() if not e.leaving)
                    oldest.leaving = True
                    self._schedule(oldest)
        self._start()


_all: weakref.WeakSet[Registry] = weakref.WeakSet()


def _after_fork() -> None:
    # What the parent holds is the parent's.
    for one in list(_all):
        one._reset()


os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _at_exit() -> None:
    for one in list(_all):
        try:
            one.close(EXIT_SECONDS)
        except CONNECTION_ERRORS as error:  # TimeoutError is one of them
            logger.error("Values that were not folded are lost with this process: %r", error)


def registration_of(model: Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Registration:
    """What is to be remembered of a registration."""
    if not isinstance(model, Model):
        raise ConfigurationError(f"{model!r} is no record: register what a model makes")
    registration = Registration(args, kwargs, running_loop())
    if registration:
        message = model.message_id(*args, **kwargs)
        if message:
            registration.message = message.encode() if isinstance(message, str) else message
    return registration


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that this is called in."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


#: The registry of this process.
registry = Registry()


def configure(max_entries: int = 10_000, connections: Connections | None = None) -> Registry:
    """Replace the registry of this process by another, which is returned; the old one is closed."""
    global registry
    before, registry = registry, Registry(max_entries, connections)
    before.close()
    return registry


def register(model: Model, *args: Any, **kwargs: Any) -> None:
    """As :meth:`Registry.register`, of the registry of this process."""
    registry.register(model, *args, **kwargs)


async def register_async(model: Model, *args: Any, **kwargs: Any) -> None:
    """As :meth:`Registry.register_async`, of the registry of this process."""
    await registry.register_async(model, *args, **kwargs)


def flush(timeout_seconds: float = 30.0) -> None:
    """As :meth:`Registry.flush`, of the registry of this process."""
    registry.flush(timeout_seconds)


def close(timeout_seconds: float = 30.0) -> None:
    """As :meth:`Registry.close`, of the registry of this process."""
    registry.close(timeout_seconds)
