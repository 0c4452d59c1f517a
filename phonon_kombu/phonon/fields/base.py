"""What all fields have in common."""

from __future__ import annotations

import json
import math
import numbers
import operator
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Generic, TypeVar, overload

from ...errors import ConfigurationError, FieldError

R = TypeVar("R", covariant=True)
F = TypeVar("F", bound="Field[Any]")

#: Whole numbers are exact from minus this to this; a fold that would leave them is refused.
LARGEST_INT = 2**63 - 1

#: The most entries that a list or a set can be told to keep, and a window or a ranking, which is
#: read as a whole.
LARGEST_SIZE = 10_000_000
LARGEST_RANKING = 10_000

#: One operation of a fold: its name in Lua, its slot, its arguments.
Op = tuple[bytes, bytes, list[bytes]]


class Field(Generic[R]):
    """One value of a record that is aggregated: declared on a model, or given to a layout.

    A field works on *partials*. :meth:`lift` makes one of a value that a user gives,
    :meth:`merge` makes one of two, :meth:`result` says what it amounts to. :meth:`ops` turns a
    partial into operations of the fold in Redis, and :meth:`decode` reads what was folded.

    The laws, which tests hold every field to: ``merge`` is associative, with :meth:`zero` as its
    neutral element, and commutative where :attr:`commutative` says so; and folding two partials
    one by one comes to the same as folding their merge.

    Every field takes one value, or a list (tuple, set) of values. ``None`` is no value.
    """

    #: Part of the key that the aggregate has to itself; empty: it lives in the record's row.
    kind: ClassVar[str] = ""
    commutative: ClassVar[bool] = True
    #: Whether folding the same partial twice comes to the same as folding it once.
    idempotent: ClassVar[bool] = False

    #: The field's name in its model or layout.
    name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self: F, record: None, owner: type) -> F: ...
    @overload
    def __get__(self, record: object, owner: type) -> R: ...
    def __get__(self, record: Any, owner: type) -> Any:
        if record is None:
            return self
        return record._value(self)

    def __set__(self, record: Any, value: Any) -> None:
        record._set(self, value)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options().items())
        return f"{type(self).__name__}({options})"

    def options(self) -> dict[str, Any]:
        """The arguments that make this field again; they can be written as JSON."""
        return {}

    # Partials ------------------------------------------------------------------------------

    def zero(self) -> Any:
        """The partial of nothing."""
        raise NotImplementedError

    def lift(self, value: Any) -> Any:
        """The partial of one value, or of a list of values.

        Raises :exc:`~phonon_kombu.errors.FieldError`, which names the field and the value.
        """
        if isinstance(value, int | float | str):  # most are
            return self.one(value)
        partial = self.zero()
        for one in self.values(value):
            partial = self.merge(partial, self.one(one))
        return partial

    def one(self, value: Any) -> Any:
        """The partial of exactly one value, which is not None. Raises as :meth:`lift` does."""
        raise NotImplementedError

    def merge(self, a: Any, b: Any) -> Any:
        """The partial of all that went into `a` and then into `b`; neither is changed."""
        raise NotImplementedError

    def result(self, partial: Any) -> R:
        """What a partial amounts to."""
        raise NotImplementedError

    def weight(self, partial: Any) -> int:
        """How many entries the partial holds in memory, roughly."""
        return 1

    # In Redis ------------------------------------------------------------------------------

    def slots(self) -> tuple[str, ...]:
        """The names under which this field keeps numbers in the record's row."""
        return () if self.kind else (self.name,)

    def ops(self, partial: Any, slot: bytes) -> list[Op]:
        """What folds this partial. `slot` is the slot of the field's own key, if it has one."""
        raise NotImplementedError

    def stored(self, reply: Any) -> Any:
        """The partial of what is stored.

        `reply` is a list with an entry (bytes or None) for each of :meth:`slots`; of a field
        with a key of its own, what the key holds.
        """
        raise NotImplementedError

    def decode(self, reply: Any) -> R:
        """The result of what is stored."""
        return self.result(self.stored(reply))

    @property
    def default_value(self) -> R:
        """What a record reads that has not been given a value."""
        return self.result(self.zero())

    # Helpers -------------------------------------------------------------------------------

    def values(self, value: Any) -> Iterable[Any]:
        """The single values in what a user gave."""
        if value is None:
            return ()
        if isinstance(value, list | tuple | set | frozenset):
            return value
        return (value,)

    def refuse(self, value: Any, why: str) -> FieldError:
        """The error to raise for `value`."""
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return FieldError(f"the field {self.name or type(self).__name__!r} refuses {shown}: {why}")

    def whole(self, value: Any) -> int:
        """`value` as a whole number that Redis holds exactly."""
        try:
            number = operator.index(value)
        except TypeError:
            raise self.refuse(value, "it takes whole numbers") from None
        if abs(number) > LARGEST_INT:
            raise self.refuse(value, "whole numbers go up to 2**63 - 1")
        return number

    def real(self, value: Any) -> float:
        """`value` as a finite float."""
        if not isinstance(value, numbers.Real):
            raise self.refuse(value, "it takes numbers")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self.refuse(value, "it takes finite numbers")
        return number + 0.0  # no minus zero

    def encoded(self, value: Any) -> bytes:
        """`value` as JSON, which keeps its type."""
        try:
            text = json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False)
            return text.encode()
        except (TypeError, ValueError, RecursionError):
            raise self.refuse(value, "it takes what can be written as JSON") from None

    def size(self, option: str, value: Any, largest: int = LARGEST_SIZE) -> int:
        """An option that says how much is kept, checked."""
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= largest:
            raise ConfigurationError(
                f"{option}={value!r}: it must be a whole number from 1 to {largest}"
            )
        return value


class ID(Field[Any]):
    """What names a record. It is not aggregated: records are merged that have the same."""

    def __set__(self, record: Any, value: str | int) -> None:
        super().__set__(record, value)

    def zero(self) -> Any:
        return None

    def lift(self, value: Any) -> Any:
        """An id is text or a whole number."""
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise self.refuse(value, "an id is text or a whole number")
        return value

    def merge(self, a: Any, b: Any) -> Any:
        if a != b:
            raise self.refuse(b, f"the record's id is {a!r}")
        return a

    def result(self, partial: Any) -> Any:
        return partial

    def slots(self) -> tuple[str, ...]:
        return ()

    def ops(self, partial: Any, slot: bytes) -> list[Op]:
        return []

    def stored(self, reply: Any) -> Any:
        return None


def as_number(data: bytes) -> float | int:
    """A number out of a row; whole where it is written as a whole number."""
    text = data.decode()
    try:
        return int(text)
    except ValueError:
        return float(text)


def written(number: float | int) -> bytes:
    """A number as text that is read back as the same number, here and in Lua."""
    return repr(number).encode()


def checked(data_type: Any) -> type:
    """The argument `data_type` of a field: int or float, or its name."""
    found = {"int": int, "float": float}.get(data_type, data_type)
    if found not in (int, float):
        raise ConfigurationError(f"data_type={data_type!r}: it must be int or float")
    return found  # type: ignore[no-any-return]


def pairs(reply: Sequence[Any]) -> Iterable[tuple[bytes, bytes]]:
    """Members and scores of a sorted set as the server returns them."""
    return zip(reply[::2], reply[1::2], strict=True)
