"""What a registry has in memory of one record."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, takewhile
from typing import Any

from ..errors import FieldError
from ..store.phonon_keys import RecordKeys
from .callbacks import Call
from .fields.layout import LARGEST_DELTA
from .model import Model, written_id
from .records import Delta, Records

#: The most that is folded of a record at once, by :attr:`Entry.weight`: a value takes up to eight
#: arguments.
LARGEST_WEIGHT = LARGEST_DELTA // 8


@dataclass
class Registration:
    """The arguments that came with values, and the event loop that they came in."""

    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    loop: asyncio.AbstractEventLoop | None = None
    #: Which message it is, where the bus says so; else empty.
    message: bytes = b""
    #: The values of such a message: it may turn out that they have been folded before.
    record: Model | None = None

    def __bool__(self) -> bool:
        """Whether there is anything to be acknowledged."""
        return bool(self.args or self.kwargs)


@dataclass
class Sent:
    """Values on their way into Redis: those of a flush, or all there is of a record to be left."""

    delta: Delta
    record: Model
    #: What is in the record that came with no message of a name.
    base: Model | None
    registrations: list[Registration]
    #: Of a record to be left: the last registration and its values.
    tail: Model | None = None
    tail_of: Registration = field(default_factory=Registration)

    @property
    def leaving(self) -> bool:
        """Whether the record is left with it."""
        return self.delta.last is not None

    @property
    def everybody(self) -> list[Registration]:
        """All registrations that there is something to say to."""
        return [*self.registrations, *([self.tail_of] if self.tail_of else [])]


class Entry:
    """One record in this process's memory.

    The values of the last registration that has arguments, the *tail*, are kept apart from the
    others, the *head*: its message is not acknowledged before the record is completed, so that
    its values must not be in Redis before either, or a death would count them twice.

    What piles up while the server is silent may be more than one fold takes: before the head
    outgrows that it is put away as a *part*, to be folded before what comes after it.
    """

    def __init__(self, kind: type[Model], id: Any, name: str, records: Records, now: float) -> None:
        self.kind = kind
        self.id = id
        self.name = name
        self.records = records
        self.keys: RecordKeys = records.keys_of(kind.layout, name)
        self.last_at = now
        self.dirty_at: float | None = None
        #: The head: what came with no message of a name, merged, and all its registrations.
        self.head: Model | None = None
        self.heads: list[Registration] = []
        #: The weight of what came with messages of a name, and is merged when it is sent.
        self.named = 0
        self.parts: deque[tuple[Model | None, list[Registration]]] = deque()
        self.tail: Model | None = None
        self.tail_of = Registration()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.sent: Sent | None = None
        #: Messages that were folded and acknowledged since the last fold.
        self.acknowledged: list[bytes] = []
        #: Whether anything was folded by us that had not been folded before.
        self.fresh = False
        #: The time for which it is scheduled (monotonic).
        self.scheduled_at = float("inf")
        #: Not before this time (monotonic): it was refused for the moment.
        self.wait_until = 0.0
        #: To be left whatever its TTL says.
        self.leaving = False

    def add(self, record: Model, registration: Registration, now: float) -> None:
        """Take in what was registered."""
        if not registration:
            self._into_head(record)
        elif registration.message and registration.message == self.tail_of.message:
            # It has come again to us: the first one is out of date.
            self.tail, self.tail_of = record, registration
        else:
            self._swallow_tail()
            self.tail, self.tail_of = record, registration
        self.last_at, self.loop = now, registration.loop
        if self.dirty_at is None and self.has_head:
            self.dirty_at = now

    def _make_room(self, record: Model) -> int:
        """Put the head away if it would be too much with this record, whose weight it returns."""
        weight = self.kind.layout.weight(record._partials)
        if self._filled and self.weight + weight >= LARGEST_WEIGHT:
            self.parts.append((self.head, self.heads))
            self.head, self.heads, self.named = None, [], 0
        return weight

    def _into_head(self, record: Model) -> None:
        self._make_room(record)
        if self.head is None:
            # The caller's object stays the caller's.
            self.head = self.kind(id=self.id)
        self.head.merge(record)

    def _swallow_tail(self) -> None:
        if self.tail is None:
            return
        if self.tail_of.message:
            weight = self._make_room(self.tail)  # sets `named` anew
            self.named += weight
            self.tail_of.record = self.tail
        else:
            self._into_head(self.tail)
        self.heads.append(self.tail_of)
        self.tail, self.tail_of = None, Registration()

    @property
    def _filled(self) -> bool:
        return self.head is not None or bool(self.heads)

    @property
    def has_head(self) -> bool:
        """Whether there is anything that may be folded."""
        return self._filled or bool(self.parts)

    @property
    def weight(self) -> int:
        """How many values the head holds, roughly."""
        merged = 0 if self.head is None else self.kind.layout.weight(self.head._partials)
        return merged + self.named + len(self.heads)

    def due_at(self) -> float:
        """When something is to be done about it (monotonic)."""
        at = 0.0 if self.leaving else self.last_at + self.kind.TTL
        if self.sent is not None or self.parts:
            at = 0.0
        elif self.dirty_at is not None:
            at = min(at, self.dirty_at + self.kind.FLUSH_SECONDS)
        return max(at, self.wait_until)

    @property
    def empty(self) -> bool:
        """Whether nothing has been registered since the last values were sent."""
        return not self.has_head and self.tail is None

    def is_to_leave(self, now: float) -> bool:
        """Whether the record is to be let go of."""
        return self.leaving or now >= self.last_at + self.kind.TTL

    def send(self, number: int, now: float) -> Sent | None:
        """What is to be sent: what is under way already, else the first part, else all there is
        when the record is to be left, else the head. None: nothing.

        Raises :exc:`~phonon_kombu.errors.FieldError` if it is too large; then :meth:`drop` it.
        """
        if self.sent is None and self.parts:
            self.sent = self._make(number, False, *self.parts[0])
            self.parts.popleft()
            return self.sent
        if self.sent is None and self.is_to_leave(now):
            try:
                self.sent = self._make(number, True, self.head, self.heads, self.tail, self.tail_of)
            except FieldError:
                # Head and tail together are too much: one after the other.
                if not self.has_head:
                    raise
            else:
                self.tail, self.tail_of = None, Registration()
        if self.sent is None and self.has_head:
            self.sent = self._make(number, False, self.head, self.heads)
        if self.sent is not None and self.sent.delta.number == number:
            self._empty_head()
        return self.sent

    def _empty_head(self) -> None:
        self.head, self.heads, self.named, self.dirty_at = None, [], 0, None

    def _make(
        self,
        number: int,
        leaving: bool,
        base: Model | None,
        registrations: list[Registration],
        tail: Model | None = None,
        tail_of: Registration | None = None,
    ) -> Sent:
        layout, tail_of = self.kind.layout, tail_of or Registration()
        record = self.kind(id=self.id)
        if base is not None:
            record.merge(base)
        messages: dict[bytes, None] = {}
        for one in registrations:
            if one.message and one.message not in messages and one.record is not None:
                messages[one.message] = None
                record.merge(one.record)
        if tail_of.message in messages:  # it has come again to us: once is enough
            tail = None
        delta = Delta(number, layout.encode(record._partials))
        delta.fresh = self.fresh or base is not None or bool(registrations) or tail is not None
        if leaving:
            rest = (self.kind(id=self.id) if tail is None else tail)._partials
            partials = record._partials
            delta.delta = layout.encode(layout.merge(partials, rest))
            idempotent = layout.idempotent(rest) | {"id": self.id}
            delta.last = layout.encode(layout.merge(partials, idempotent))
            delta.tail = bool(tail is not None and tail_of.message)
            if delta.tail:
                messages[tail_of.message] = None
        delta.messages = list(messages)
        if not self.parts:  # else one of these messages, come again, may be among them
            again = {self.tail_of.message, *(one.message for one in registrations)}
            some = takewhile(lambda message: message not in again, self.acknowledged)
            delta.acknowledged = list(islice(some, LARGEST_DELTA))
        return Sent(delta, record, base, registrations, tail, tail_of)

    def without(self, known: list[bytes]) -> list[Registration]:
        """Take these messages out of what is under way: their values have been folded before.
        Returns their registrations."""
        sent, again = self.sent, set(known)
        assert sent is not None
        left = [one for one in sent.registrations if one.message not in again]
        told = [one for one in sent.registrations if one.message in again]
        tail, tail_of = sent.tail, sent.tail_of
        if tail_of.message in again:
            told.append(tail_of)
            tail, tail_of = None, Registration()
        self.sent = self._make(sent.delta.number, sent.leaving, sent.base, left, tail, tail_of)
        self.sent.delta.acknowledged = sent.delta.acknowledged
        return told

    def drop(self) -> tuple[Model, list[Registration]]:
        """Give up what could not be sent, the first of a part, the head and the tail that there
        is: its record, who gave it."""
        if self.parts:
            head, registrations = self.parts.popleft()
            record = head or self.kind(id=self.id)
        elif self.has_head:
            record, registrations = self.head or self.kind(id=self.id), self.heads
            self._empty_head()
        else:
            record = self.tail or self.kind(id=self.id)
            registrations = [self.tail_of] if self.tail_of else []
            self.tail, self.tail_of = None, Registration()
        return record, registrations

    def written_id(self) -> bytes:
        """The record's id as Redis keeps it."""
        return written_id(self.kind(id=self.id))


def calls_of(
    record: Model,
    registrations: list[Registration],
    error: Exception | None = None,
    acknowledged: list[bytes] | None = None,
) -> dict[Any, list[Call]]:
    """The calls of on_flush for these registrations, by the loop that they are to be made in; with
    an error those of on_error, one without arguments if there are none.

    Once on_flush has been called the names of the messages are added to `acknowledged`.
    """
    calls: dict[Any, list[Call]] = {}
    if error is not None and not registrations:
        registrations = [Registration()]
    for one in registrations:
        if error is None:
            call = partial(record.on_flush, *one.args, **one.kwargs)
        else:
            call = partial(record.on_error, error, *one.args, **one.kwargs)
        done = None
        if error is None and acknowledged is not None and one.message:
            done = partial(_noted, acknowledged, one.message)
        calls.setdefault(one.loop, []).append((call, done))
    return calls


def _noted(acknowledged: list[bytes], message: bytes, error: BaseException | None) -> None:
    if error is None:  # else it comes again
        acknowledged.append(message)
