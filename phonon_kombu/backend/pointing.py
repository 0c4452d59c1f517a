"""The parts of a chord that have arrived: as they came, or where their results are kept.

A small part is written into the chord. A large one is kept only once, as the task's result, and
the chord points at that, so that it takes the server's memory once. Such a result does not expire
before the chord (:meth:`Pointing.prolong`), and when it is forgotten the chord keeps it for itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from celery import states
from celery.exceptions import ChordError

from ..store.phonon_keys import ChordKeys
from ..store.scripts import load
from .storing import Storing

#: A part of which the result takes at least so many bytes is pointed at. Below that, looking it
#: up would cost more than it saves.
POINT_BYTES = 2048

#: Parts read at once when a chord is closed, and results that are pointed at.
SLICE = 200
RESULTS_SLICE = 40

#: Seconds for which results are prolonged beyond their chord.
SPARE_SECONDS = 60

#: What the chord keeps of one part: its place, then one of these and the part itself, or the id of
#: the task whose result it is. A forgotten result: the length of the id, the id and the part.
COPY, POINTER, KEPT = b":", b">", b"="


class Arrived(NamedTuple):
    """A part that has arrived."""

    #: In the header; infinite where it has none.
    place: float
    #: What it takes as it is stored, bytes.
    size: int
    #: Gives the value, or raises :exc:`~celery.exceptions.ChordError` for a part that has failed.
    value: Callable[[], Any]


class Pointing(Storing):
    """What a :class:`~.backend.PhononBackend` knows of the parts of a chord."""

    def chord_keys(self, group_id: str) -> ChordKeys:
        """The keys of the chord on this group."""
        raise NotImplementedError

    def _part(self, task_id: str, state: str, result: Any) -> Any:
        """One part as the chord keeps it: what Celery's Redis backend calls so."""
        return self.encode([1, task_id, state, self.encode_result(result, state)])

    def _entries(self, key: bytes) -> Iterator[list[tuple[bytes, bytes, bytes]]]:
        """What the chord keeps, in slices, in the order in which it came: place, kind, the rest."""
        start = 0
        while True:
            found = self.ensure(
                self.link.command, (b"LRANGE", key, b"%d" % start, b"%d" % (start + SLICE - 1))
            )
            yield [split(entry) for entry in found]
            start += SLICE
            if len(found) < SLICE:
                return

    def _arrived(self, group_id: str) -> Iterator[list[Arrived]]:
        """The parts in the order in which they came, in slices."""
        key = self.chord_keys(group_id).arrived
        for entries in self._entries(key):
            results = self._results(
                [rest.decode() for _, kind, rest in entries if kind == POINTER], key
            )
            found = []
            for place, kind, rest in entries:
                at = int(place) if place else math.inf
                if kind == POINTER:
                    size, result = results[rest.decode()]
                    found.append(Arrived(at, size, partial(_itself, result)))
                elif kind == COPY:
                    found.append(Arrived(at, len(rest), partial(self._value, rest)))
            yield found

    def _value(self, part: bytes) -> Any:
        return self._unpack_chord_result(part, self.decode)

    def _results(self, task_ids: list[str], arrived: bytes) -> dict[str, tuple[int, Any]]:
        """What tasks have returned whose results the chord points at, and how large that is."""
        found: dict[str, tuple[int, Any]] = {}
        for start in range(0, len(task_ids), RESULTS_SLICE):
            ids = task_ids[start : start + RESULTS_SLICE]
            stored = self.ensure(self.mget, ([self.get_key_for_task(id) for id in ids],))
            for id, value in zip(ids, stored, strict=True):
                meta = self.decode(value) if value else {}
                if meta.get("status") == states.SUCCESS:
                    found[id] = len(value), meta["result"]
        missing = set(task_ids) - found.keys()
        if missing:
            # Forgotten, before or since: what was deleted stands in the chord from that moment.
            found.update(self._kept(arrived, missing))
            for id in task_ids:
                if id not in found:
                    raise ChordError(f"The result of part {id} was deleted, and the chord needs it")
        return found

    def _kept(self, arrived: bytes, task_ids: set[str]) -> dict[str, tuple[int, Any]]:
        """What the chord has kept of these tasks, whose results were forgotten."""
        found = {}
        for entries in self._entries(arrived):
            for length, kind, rest in entries:
                id = rest[: int(length)].decode() if kind == KEPT else None
                if id in task_ids:
                    found[id] = len(rest), self._value(rest[int(length) :])
        return found

    def prolong(self, group_id: str, ttl_seconds: int, life_seconds: int) -> None:
        """Let the results that a chord points at live for their time again; then the chord."""
        keys = self.chord_keys(group_id)
        ttl = b"%d" % (max(ttl_seconds, life_seconds) + SPARE_SECONDS)
        for entries in self._entries(keys.arrived):
            calls = [
                (b"EXPIRE", self.get_key_for_task(rest.decode()), ttl)
                for _, kind, rest in entries
                if kind == POINTER
            ]
            if calls:
                self.ensure(self.link.send, (calls, True))
        life = b"%d" % life_seconds
        self.ensure(
            self.link.send,
            ([(b"EXPIRE", key, life)
              for key in (keys.chord, keys.arrived, keys.seen, keys.members)], True),
        )  # fmt: skip

    def _forget(self, task_id: str) -> None:
        """Delete a result. Where a chord points at it, the chord keeps it."""
        key = self.get_key_for_task(task_id)
        value = b""
        if self.link.command(b"STRLEN", key) >= POINT_BYTES:
            value = self.get(key) or b""
        meta = self.decode(value) if value else {}
        if meta.get("status") != states.SUCCESS or not meta.get("group_id"):
            super()._forget(task_id)
            return
        id = task_id.encode() if isinstance(task_id, str) else task_id
        part = self.encode([1, id.decode(), states.SUCCESS, meta["result"]])
        kept = b"%d%b%b%b" % (len(id), KEPT, id, part if isinstance(part, bytes) else part.encode())
        script = load("chord/forget").prepare(self.chord_keys(meta["group_id"]), result=key)
        self.run(script, kept)


def _itself(value: Any) -> Any:
    return value


def split(entry: bytes) -> tuple[bytes, bytes, bytes]:
    """Place (of a forgotten one: the length of its id), kind, the rest."""
    at = 0
    while entry[at : at + 1].isdigit():
        at += 1
    return entry[:at], entry[at : at + 1], entry[at + 1 :]
