"""How a registry's records get into Redis: when, in which batches, and what comes back."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable
from time import monotonic, sleep

from ..errors import Closing, FieldError, NotHeld
from .callbacks import Callbacks
from .completion import Completions
from .connections import Connections, Host, current
from .entries import Entry, Registration, Sent, calls_of
from .heart import PASSING_ERRORS
from .model import Model
from .node import new_owner
from .orphans import SLICE
from .records import Records

logger = logging.getLogger("phonon_kombu.phonon")

#: Seconds until what failed is tried again: a lost connection; a record being completed.
RETRY_SECONDS = 0.5
CLOSING_SECONDS = 0.1

#: Seconds between two looks for records that died with their holders.
ORPHAN_SECONDS = 5.0


class Sender:
    """The records in memory and the thread that sends them. Part of :class:`.registry.Registry`.

    Of its locks `_sending` is taken first, then a :attr:`.Records.lock`, then `_wake`, which
    guards what is in memory and is never held while Redis is asked.
    """

    def __init__(self, connections: Connections | None) -> None:
        self._given = connections
        self._reset()

    def _reset(self) -> None:
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._heap: list[tuple[float, int, str]] = []
        self._counter = itertools.count(1)
        self._records: dict[Host, Records] = {}
        self._wake = threading.Condition()
        self._sending = threading.RLock()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._callbacks = Callbacks()
        self._completions = Completions(self._callbacks, self._is_held, self._wake_up)
        self._orphans_at = 0.0

    def _records_at(self, name: str) -> Records:
        host = (self._given or current()).host_of(name)
        with self._wake:
            if host not in self._records:
                self._records[host] = Records(host, new_owner(host.identity))
            return self._records[host]

    def _is_held(self, name: str) -> bool:
        with self._wake:
            return name in self._entries

    def _wake_up(self) -> None:
        with self._wake:
            self._wake.notify_all()

    # The thread ----------------------------------------------------------------------------

    def _schedule(self, entry: Entry) -> None:
        at = entry.due_at()
        if at < entry.scheduled_at:
            entry.scheduled_at = at
            heapq.heappush(self._heap, (at, next(self._counter), entry.name))
            if self._heap[0][2] == entry.name:
                self._wake.notify_all()

    def _start(self) -> None:
        with self._wake:
            self._stopped = False
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="phonon-registry", daemon=True
                )
                self._thread.start()

    def _stop(self) -> None:
        with self._wake:
            # Unless something was registered meanwhile.
            self._stopped = not self._entries
            self._wake.notify_all()

    def _run(self) -> None:
        while True:
            with self._wake:
                if self._stopped and self._completions.none:
                    self._thread = None
                    return
                due = self._take_due()
                if not due:
                    until = min(
                        self._heap[0][0] if self._heap else float("inf"),
                        self._orphans_at, self._completions.due_at(),
                    )  # fmt: skip
                    if until > monotonic():
                        self._wake.wait(max(0.001, until - monotonic()))
            try:
                self._send(due)
                self._completions.retry()
                if monotonic() >= self._orphans_at:
                    self._orphans_at = monotonic() + ORPHAN_SECONDS
                    self._adopt()
            except Exception as error:
                # Whatever it is: a registry without its thread would keep everything in memory.
                known = isinstance(error, PASSING_ERRORS)
                logger.warning("The registry tries again: %r", error, exc_info=not known)
                self._postpone(due, RETRY_SECONDS)
                sleep(RETRY_SECONDS)

    def _take_due(self) -> list[Entry]:
        now = monotonic()
        due: list[Entry] = []
        while self._heap and self._heap[0][0] <= now and len(due) < SLICE:
            at, _, name = heapq.heappop(self._heap)
            entry = self._entries.get(name)
            if entry is None or entry.scheduled_at != at:
                continue
            entry.scheduled_at = float("inf")
            if entry.due_at() <= now:
                due.append(entry)
            else:
                self._schedule(entry)
        return due

    def _adopt(self) -> None:
        for records in list(self._records.values()):
            self._completions.adopt(records)

    # Sending -------------------------------------------------------------------------------

    def _send(self, entries: Iterable[Entry], raising: bool = False) -> bool:
        """Send what these entries have; whether some of it must be sent again later.

        Connection errors are raised if `raising`, else noted for a later try.
        """
        by_host: dict[int, list[Entry]] = {}
        for entry in entries:
            by_host.setdefault(id(entry.records), []).append(entry)
        again = False
        for group in by_host.values():
            for at in range(0, len(group), SLICE):
                again |= self._send_slice(group[at : at + SLICE], raising)
        return again

    def _send_slice(self, group: list[Entry], raising: bool) -> bool:
        records = group[0].records
        with self._sending, records.lock:
            todo = self._prepare(group)
            try:
                replies = records.fold([(e.keys, e.written_id(), sent.delta) for e, sent in todo])
            except PASSING_ERRORS as error:
                self._postpone(group, RETRY_SECONDS)
                if raising:
                    raise
                logger.warning("Records stay in memory for now: %r", error)
                return True
            again = False
            try:
                for (entry, sent), reply in zip(todo, replies, strict=True):
                    if isinstance(reply, Exception):
                        again |= self._refused(entry, sent, reply)
                    elif isinstance(reply, list):
                        again |= self._repeated(entry, sent, reply)
                    else:
                        self._accepted(entry, sent, reply)
            finally:
                with self._wake:
                    for entry in group:
                        if self._entries.get(entry.name) is entry:
                            self._schedule(entry)
            return again

    def _prepare(self, group: list[Entry]) -> list[tuple[Entry, Sent]]:
        todo, now = [], monotonic()
        with self._wake:
            for entry in group:
                if self._entries.get(entry.name) is not entry:
                    continue
                try:
                    sent = entry.send(next(self._counter), now)
                except FieldError as error:
                    self._call(*entry.drop(), error)
                    continue
                if sent is not None:
                    todo.append((entry, sent))
        return todo

    def _accepted(self, entry: Entry, sent: Sent, last: int) -> None:
        records = entry.records
        with self._wake:
            entry.sent, entry.wait_until = None, 0.0
            entry.fresh = entry.fresh or sent.delta.fresh
            del entry.acknowledged[: len(sent.delta.acknowledged)]
            if last == 2 and sent.tail is not None:
                # Whoever completes it in our place has not seen what was only in our memory.
                entry.add(sent.tail, sent.tail_of, monotonic())
                sent.tail_of = Registration()
            left = sent.leaving and entry.empty
            if left:
                del self._entries[entry.name]
            entry.leaving = entry.leaving and not sent.leaving
        closing = sent.leaving and last == 1
        told = sent.registrations if closing else sent.everybody
        self._call(sent.record, told, acknowledged=entry.acknowledged)
        if closing:
            self._completions.begin(entry, sent)
        elif left:
            records.forget([entry.keys])
        if sent.leaving and not left:
            # Something was registered while the record was being left.
            records.hold(entry.keys)

    def _repeated(self, entry: Entry, sent: Sent, known: list[bytes]) -> bool:
        """Messages whose values somebody has folded, and then died before he acknowledged them:
        acknowledge them, and send the rest."""
        with self._wake:
            told = entry.without(known)
        self._call(sent.record, told, acknowledged=entry.acknowledged)
        self._postpone([entry], 0.0)
        return True

    def _refused(self, entry: Entry, sent: Sent, error: Exception) -> bool:
        if isinstance(error, Closing):
            self._postpone([entry], CLOSING_SECONDS)
            return True
        if isinstance(error, NotHeld):
            # Taken for dead, frozen as we were: nothing is lost, we come back.
            entry.records.hold(entry.keys)
            self._postpone([entry], 0.0)
            return True
        if isinstance(error, FieldError):
            with self._wake:
                entry.sent = None
            self._call(sent.record, sent.everybody, error)
            return sent.leaving
        logger.warning("%s stays in memory for now: %r", entry.name, error)
        self._postpone([entry], RETRY_SECONDS)
        return True

    def _postpone(self, group: list[Entry], seconds: float) -> None:
        with self._wake:
            for entry in group:
                if self._entries.get(entry.name) is entry:
                    entry.wait_until = monotonic() + seconds
                    self._schedule(entry)

    def _call(
        self,
        record: Model,
        registrations: list[Registration],
        error: Exception | None = None,
        acknowledged: list[bytes] | None = None,
    ) -> None:
        for loop, calls in calls_of(record, registrations, error, acknowledged).items():
            self._callbacks.call(loop, calls)
