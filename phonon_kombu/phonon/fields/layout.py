"""The fields of a record, in a fixed order: what goes where in Redis."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from ...errors import ConfigurationError, FieldError
from ...store.client import Link
from ...store.phonon_keys import RecordKeys
from ...store.scripts import load
from .base import ID, Field
from .counted import Count, Diff, Histogram, Max, Mean, Min, Sum
from .gathered import CountDistinct, ListAppend, SetAppend, TopN, WindowedList

#: All fields by name.
KINDS: dict[str, type[Field[Any]]] = {
    kind.__name__: kind
    for kind in (
        ID, Sum, Diff, ListAppend, SetAppend, WindowedList,
        Min, Max, Mean, Count, CountDistinct, TopN, Histogram,
    )
}  # fmt: skip

#: The most arguments of one fold: it keeps the server busy for a few milliseconds.
LARGEST_DELTA = 20_000

#: The most fields of one record.
MOST_FIELDS = 200

#: How many entries of a list or set come in one reply.
SLICE = 1000


class Layout:
    """Named fields, in their order. Immutable; safe between threads.

    Arguments:
        fields: name -> field. A name is a Python identifier.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """

    def __init__(self, fields: Mapping[str, Field[Any]]) -> None:
        self.fields: dict[str, Field[Any]] = {}
        for name, field in fields.items():
            if not isinstance(name, str) or not name.isidentifier() or not name.isascii():
                raise ConfigurationError(f"{name!r} is no name for a field: use an identifier")
            if not isinstance(field, Field):
                raise ConfigurationError(f"{name}={field!r}: it must be a field, such as Sum()")
            self.fields[name] = copy.copy(field)
            self.fields[name].name = name
        if len(self.fields) > MOST_FIELDS:
            raise ConfigurationError(f"a record has {MOST_FIELDS} fields at the most")
        #: The fields that are aggregated: all but an ID.
        self.aggregated = {n: f for n, f in self.fields.items() if not isinstance(f, ID)}
        held = [field for field in self.fields.values() if field.kind]
        #: Whether a partial may grow with what goes into it.
        self.gathers = bool(held)
        self._collections = [(field.kind, field.name) for field in held]
        self._slots = {
            field.name: f"{number}:{field.name}".encode() for number, field in enumerate(held, 1)
        }
        rows = [slot.encode() for field in self.fields.values() for slot in field.slots()]
        self._read_args = (b"%d" % SLICE, *rows, *(kind.encode() for kind, _ in self._collections))

    def spec(self) -> list[list[Any]]:
        """The layout as JSON can write it; :meth:`of_spec` reads it."""
        return [[f.name, type(f).__name__, f.options()] for f in self.fields.values()]

    @classmethod
    def of_spec(cls, spec: Iterable[Any]) -> Layout:
        """The layout that :meth:`spec` wrote.

        Raises :exc:`~phonon_kombu.errors.ConfigurationError` for anything else.
        """
        fields = {}
        try:
            for name, kind, options in spec:
                fields[name] = KINDS[kind](**options)
        except (TypeError, KeyError, ValueError) as error:
            raise ConfigurationError(f"no description of fields: {error!r}") from None
        return cls(fields)

    def keys(
        self, name: str, prefix: str = "", room: str = "model", tag: str | None = None
    ) -> RecordKeys:
        """The keys of the record `name`, as :class:`~phonon_kombu.store.phonon_keys.RecordKeys`."""
        return RecordKeys(name, self._collections, prefix, room, tag)

    # Partials ------------------------------------------------------------------------------

    def lift(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Partials of `values`, one for every field; of a missing one the partial of nothing.

        Raises :exc:`~phonon_kombu.errors.FieldError` for a value that its field refuses and for
        a name that is none of a field.
        """
        for name in values:
            if name not in self.fields:
                known = ", ".join(self.fields)
                raise FieldError(f"there is no field {name!r}; the fields are {known}")
        return {
            name: field.lift(values[name]) if name in values else field.zero()
            for name, field in self.fields.items()
        }

    def lift_result(self, value: Any) -> dict[str, Any]:
        """Partials of what a task returned: a mapping by field, or with one field its value.

        Raises :exc:`~phonon_kombu.errors.FieldError`.
        """
        if value is None:
            return self.lift({})
        if isinstance(value, Mapping):
            return self.lift(value)
        if len(self.aggregated) != 1:
            raise FieldError(
                f"there are {len(self.aggregated)} fields and one value that is no mapping: "
                f"{type(value).__name__}"
            )
        return self.lift({next(iter(self.aggregated)): value})

    def merge(self, a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
        """Partials of all that went into `a` and then into `b`."""
        return {name: field.merge(a[name], b[name]) for name, field in self.fields.items()}

    def idempotent(self, partials: Mapping[str, Any]) -> dict[str, Any]:
        """Those partials that may be folded twice; of the other fields the partial of nothing."""
        return {
            name: partials[name] if field.idempotent else field.zero()
            for name, field in self.fields.items()
        }

    def results(self, partials: Mapping[str, Any]) -> dict[str, Any]:
        """What partials amount to, by field."""
        return {name: field.result(partials[name]) for name, field in self.fields.items()}

    def weight(self, partials: Mapping[str, Any]) -> int:
        """How many entries partials hold, roughly."""
        return sum(field.weight(partials[name]) for name, field in self.fields.items())

    # In Redis ------------------------------------------------------------------------------

    def encode(self, partials: Mapping[str, Any]) -> list[bytes]:
        """The delta of partials: the arguments of a fold. Empty if there is nothing to fold.

        Raises :exc:`~phonon_kombu.errors.FieldError` if it is too large for one fold.
        """
        delta: list[bytes] = []
        for name, field in self.fields.items():
            for op, slot, args in field.ops(partials[name], self._slots.get(name, b"")):
                delta += (op, slot, b"%d" % len(args), *args)
            if len(delta) > LARGEST_DELTA:
                raise FieldError(
                    f"the field {name!r} has {field.weight(partials[name])} entries, too many for "
                    f"one fold, which takes {LARGEST_DELTA} arguments: give them in parts"
                )
        return delta

    def encode_delta(self, values: Mapping[str, Any]) -> list[bytes]:
        """:meth:`lift` and :meth:`encode` in one."""
        return self.encode(self.lift(values))

    def fold(
        self,
        link: Link,
        keys: RecordKeys,
        delta: Iterable[bytes],
        sender: bytes = b"",
        number: int = 0,
        ttl_ms: int | None = None,
    ) -> bool:
        """Fold a delta into the record, by the script ``model/fold``.

        With a `sender` and the growing `number` of its delta it is folded once however often it
        is sent; without, a fold whose connection breaks raises and may have been done. Returns
        whether it was folded now. Raises :exc:`~phonon_kombu.errors.FieldOverflow`,
        :exc:`~phonon_kombu.errors.FieldFull`, :exc:`~phonon_kombu.errors.FieldMismatch`.
        """
        lifetime = b"" if ttl_ms is None else b"%d" % ttl_ms
        args = (sender, b"%d" % number, lifetime, *delta)
        call = (load("model/fold").prepare(keys), args)
        return bool(link.send((call,), repeat=bool(sender))[0])

    def read(self, link: Link, keys: RecordKeys) -> dict[str, Any]:
        """The aggregate of the record, by field.

        A list or set of more than a thousand entries is read in several steps; what is folded
        meanwhile may be in it or not.
        """
        reply = link.run(load("model/read").prepare(keys), self._read_args)
        return self.decode(reply, link, keys)

    def read_call(self, keys: RecordKeys) -> Any:
        """The call that :meth:`decode` decodes, to be sent with others by :meth:`.Link.send`."""
        return load("model/read").prepare(keys), self._read_args

    def decode(
        self,
        reply: list[Any],
        link: Link | None = None,
        keys: RecordKeys | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The aggregate out of the reply of ``model/read``.

        `link` and `keys` are needed where a list or set may be longer than a slice: without
        them such a one is None. `more` are partials that have not been folded and are counted
        in; those of idempotent fields must have been folded.
        """

        def result(field: Field[Any], stored: Any) -> Any:
            if more is None or field.idempotent:
                return field.decode(stored)
            return field.result(field.merge(field.stored(stored), more[field.name]))

        row, held = list(reply[0]), list(reply[1:])
        found: dict[str, Any] = {}
        for name, field in self.fields.items():
            if isinstance(field, ID):
                continue
            if not field.kind:
                count = len(field.slots())
                found[name], row = result(field, row[:count]), row[count:]
                continue
            stored = held.pop(0)
            if field.kind in ("list", "set"):
                size, stored = stored
                if size > len(stored):
                    if link is None or keys is None:
                        found[name] = None
                        continue
                    stored = rest(link, field.kind, keys.collections[-len(held) - 1], size)
            found[name] = result(field, stored)
        return found

    def drop_call(self, keys: RecordKeys) -> Any:
        """The command that deletes the record."""
        return (b"UNLINK", *keys.all)


def rest(link: Link, kind: str, key: bytes, size: int) -> list[bytes]:
    """All entries of a long list or set, in slices."""
    found: list[bytes] = []
    if kind == "list":
        for at in range(0, size, SLICE):
            found += link.command(b"LRANGE", key, b"%d" % at, b"%d" % (at + SLICE - 1))
        return found
    cursor = b"0"
    while True:
        cursor, some = link.command(b"SSCAN", key, cursor, b"COUNT", b"%d" % SLICE)
        found += some
        if cursor == b"0":
            return found
