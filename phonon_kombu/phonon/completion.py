"""Completing records: the aggregate of all processes, on_complete, and the end of the record."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from ..store.phonon_keys import RecordKeys
from .callbacks import Callbacks
from .entries import Entry, Registration, Sent
from .model import MODELS, Model, nothings
from .orphans import SLICE
from .records import Records

logger = logging.getLogger("phonon_kombu.phonon")

#: Seconds until a completion that failed is tried again.
RETRY_SECONDS = 5.0

#: Slices of orphans that are looked at in one go, for one with something to adopt.
SLICES_AT_ONCE = 10


class Completion:
    """One record that is ours to complete."""

    def __init__(
        self,
        kind: type[Model],
        id: Any,
        records: Records,
        keys: RecordKeys,
        registration: Registration,
        tail: Model | None,
    ) -> None:
        self.kind = kind
        self.id = id
        self.records = records
        self.keys = keys
        self.registration = registration
        self.tail = kind(id=id) if tail is None else tail
        self.completed = False
        self.retry_at = 0.0
        self.running = False

    def record(self) -> Model:
        """The record with the aggregate: what is in Redis, and what is only in memory yet."""
        layout, link = self.kind.layout, self.records.host.link
        reply = link.send((layout.read_call(self.keys),), repeat=True)[0]
        found = layout.decode(reply, link, self.keys, more=self.tail._partials)
        return self.kind.of_aggregate(self.id, found)


class Completions:
    """The records that are this registry's to complete.

    Arguments:
        callbacks: where on_complete is called.
        is_held: whether the registry holds a record of this name (again).
        wake: tells the registry's thread that :meth:`due_at` has changed.
    """

    def __init__(
        self, callbacks: Callbacks, is_held: Callable[[str], bool], wake: Callable[[], None]
    ) -> None:
        self._callbacks = callbacks
        self._is_held = is_held
        self._wake = wake
        self._all: dict[tuple[int, str], Completion] = {}
        self._changed = threading.Condition()

    def __str__(self) -> str:
        return f"{len(self._all)} completion(s)"

    def begin(self, entry: Entry, sent: Sent) -> None:
        """The record was left last by us."""
        registration = sent.tail_of or Registration(loop=entry.loop)
        self._begin(
            Completion(entry.kind, entry.id, entry.records, entry.keys, registration, sent.tail)
        )

    def adopt(self, records: Records) -> None:
        """Complete records whose holders have all died, as far as their models are known here."""
        records.undo(self._is_held)
        for _ in range(SLICES_AT_ONCE):
            names = records.orphans()
            if self._adopt(records, names) or len(names) < SLICE:
                return

    def _adopt(self, records: Records, names: list[str]) -> int:
        adopted = 0
        for name in names:
            kind = MODELS.get(name.partition(".")[0])
            if kind is None or (id(records), name) in self._all or self._is_held(name):
                continue
            keys = records.keys_of(kind.layout, name)
            with records.lock:
                found = records.adopt(keys)
                if found is None:
                    self._forget(records, keys)
                    continue
            record_id = json.loads(found)
            logger.warning("%s died with its holders: completing it", name)
            registration = Registration(nothings(kind(id=record_id)))
            self._begin(Completion(kind, record_id, records, keys, registration, None))
            adopted += 1
        return adopted

    @property
    def none(self) -> bool:
        """Whether there is nothing to be completed."""
        return not self._all

    def due_at(self) -> float:
        """When a completion is to be tried again (monotonic)."""
        with self._changed:
            return min(
                (c.retry_at for c in self._all.values() if not c.running), default=float("inf")
            )

    def retry(self) -> None:
        """Try again what failed some time ago, and what an event loop has taken to its end."""
        self._callbacks.take_back()
        with self._changed:
            now = monotonic()
            due = [c for c in self._all.values() if not c.running and c.retry_at <= now]
        for completion in due:
            self._try(completion)

    def wait(self, seconds: float) -> bool:
        """Wait until all are completed and all callbacks made; whether that came true in time."""
        until = monotonic() + seconds
        self._callbacks.take_back()
        with self._changed:
            done = self._changed.wait_for(lambda: not self._all, max(0.0, seconds))
        return done and self._callbacks.wait_idle(max(0.0, until - monotonic()))

    def _begin(self, completion: Completion) -> None:
        with self._changed:
            self._all[id(completion.records), completion.keys.name] = completion
        self._try(completion)

    def _try(self, completion: Completion) -> None:
        completion.running = True
        if completion.completed:
            self._called(completion, None)
            return
        try:
            record = completion.record()
        except BaseException as error:
            self._later(completion, error)
            if isinstance(error, Exception):
                return
            raise
        one = completion.registration
        call = partial(record.on_complete, *one.args, **one.kwargs)
        loop: asyncio.AbstractEventLoop | None = one.loop
        self._callbacks.call(loop, [(call, partial(self._called, completion))])

    def _called(self, completion: Completion, error: BaseException | None) -> None:
        """on_complete has returned, or raised."""
        name = completion.keys.name
        if error is not None:
            logger.error("%s: on_complete failed", name, exc_info=error)
            self._later(completion, None)
            return
        completion.completed = True
        records = completion.records
        try:
            with records.lock:
                if not records.close(completion.keys):
                    logger.warning("%s was completed, but had been given to others", name)
                with self._changed:
                    del self._all[id(records), name]
                    self._changed.notify_all()
                self._forget(records, completion.keys)
        except Exception as raised:
            self._later(completion, raised)

    def _later(self, completion: Completion, error: BaseException | None) -> None:
        if error is not None:
            logger.warning("%s is completed later: %r", completion.keys.name, error)
        with self._changed:
            completion.retry_at = monotonic() + RETRY_SECONDS
            completion.running = False
        self._wake()

    def _forget(self, records: Records, keys: RecordKeys) -> None:
        if not self._is_held(keys.name) and (id(records), keys.name) not in self._all:
            records.forget([keys])
