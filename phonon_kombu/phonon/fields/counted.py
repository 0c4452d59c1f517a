"""Fields that keep a few numbers, whatever the number of values. All in the record's row."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from ...errors import ConfigurationError, FieldError, FieldOverflow
from .base import LARGEST_INT, Field, Op, as_number, checked, written

if TYPE_CHECKING:
    # A type checker knows of defaults whatever the Python; ours has them from 3.13.
    from typing_extensions import TypeVar as DefaultingTypeVar

    N = DefaultingTypeVar("N", int, float, default=int)
else:
    N = TypeVar("N", int, float)
R = TypeVar("R", covariant=True)

#: The most edges of a histogram.
MOST_EDGES = 1000


class _Number(Field[R], Generic[R, N]):
    """A field that makes one result of numbers of one type.

    Arguments:
        data_type: ``int`` (exact up to 2**63 - 1) or ``float`` (sums are rounded as every sum of
            floats is, so their last digits depend on the order).
    """

    data_type: type

    def __init__(self, data_type: type[N] = int) -> None:
        self.data_type = checked(data_type)

    def __set__(self, record: Any, value: N | Iterable[N] | None) -> None:
        super().__set__(record, value)

    def options(self) -> dict[str, Any]:
        return {"data_type": self.data_type.__name__}

    def one(self, value: Any) -> Any:
        return self.number(value)

    def number(self, value: Any) -> Any:
        """`value` as one of this field's numbers."""
        return self.whole(value) if self.data_type is int else self.real(value)

    def added(self, a: Any, b: Any) -> Any:
        """The sum of two of this field's numbers, within what Redis holds."""
        total = a + b
        if abs(total) > LARGEST_INT if self.data_type is int else math.isinf(total):
            raise FieldOverflow(
                f"the field {self.name or type(self).__name__!r} would grow beyond "
                + ("2**63 - 1" if self.data_type is int else "the largest float")
            )
        return total


class Sum(_Number[N, N]):
    """The sum of all values; 0 of none."""

    def zero(self) -> N:
        return self.data_type(0)  # type: ignore[no-any-return]

    def merge(self, a: Any, b: Any) -> Any:
        return self.added(a, b)

    def result(self, partial: Any) -> N:
        return partial  # type: ignore[no-any-return]

    def ops(self, partial: Any, slot: bytes) -> list[Op]:
        return add(self.name, self.data_type, partial)

    def stored(self, reply: Any) -> N:
        return self.data_type(as_number(reply[0] or b"0"))  # type: ignore[no-any-return]


class Diff(Sum[N]):
    """What is left when all values are taken away from 0."""

    def one(self, value: Any) -> Any:
        return 0 - self.number(value)


class Count(Field[int]):
    """How many values there were, whatever they are (but ``None``, which is no value)."""

    def zero(self) -> int:
        return 0

    def one(self, value: Any) -> int:
        return 1

    def merge(self, a: int, b: int) -> int:
        return a + b

    def result(self, partial: int) -> int:
        return partial

    def ops(self, partial: int, slot: bytes) -> list[Op]:
        return add(self.name, int, partial)

    def stored(self, reply: Any) -> int:
        return int(reply[0] or 0)


class _Extreme(_Number[N | None, N]):
    """The smallest or the largest value; None of none."""

    idempotent = True
    op: ClassVar[bytes]
    better: ClassVar[Any]

    def zero(self) -> Any:
        return None

    def merge(self, a: Any, b: Any) -> Any:
        if a is None or b is None:
            return b if a is None else a
        return self.better(a, b)

    def result(self, partial: Any) -> N | None:
        return partial  # type: ignore[no-any-return]

    def ops(self, partial: Any, slot: bytes) -> list[Op]:
        if partial is None:
            return []
        return [(self.op, self.name.encode(), [written(partial)])]

    def stored(self, reply: Any) -> Any:
        return self.data_type(as_number(reply[0])) if reply[0] is not None else None


class Min(_Extreme[N]):
    """The smallest value; None of none. Whole numbers are compared exactly."""

    op = b"min"
    better = staticmethod(min)


class Max(_Extreme[N]):
    """The largest value; None of none. Whole numbers are compared exactly."""

    op = b"max"
    better = staticmethod(max)


class Mean(_Number[float | None, N]):
    """The mean of all values, a float; None of none. It is kept as their sum and their number."""

    def zero(self) -> Any:
        return (self.data_type(0), 0)

    def one(self, value: Any) -> Any:
        return (self.number(value), 1)

    def merge(self, a: Any, b: Any) -> Any:
        return (self.added(a[0], b[0]), a[1] + b[1])

    def result(self, partial: Any) -> float | None:
        total, count = partial
        return total / count if count else None

    def slots(self) -> tuple[str, ...]:
        return (f"{self.name}.sum", f"{self.name}.count")

    def ops(self, partial: Any, slot: bytes) -> list[Op]:
        if not partial[1]:
            return []
        return [
            *add(f"{self.name}.sum", self.data_type, partial[0]),
            *add(f"{self.name}.count", int, partial[1]),
        ]

    def stored(self, reply: Any) -> Any:
        return (self.data_type(as_number(reply[0] or b"0")), int(reply[1] or 0))


class Histogram(Field[list[int]]):
    """How many values fell between given edges.

    The result is a list with one number more than there are edges: how many values lay below the
    first edge, from the first (included) to below the second, ..., from the last one on.

    Arguments:
        edges: the edges, ascending; at most 1,000.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError` for other edges.
    """

    def __init__(self, edges: Sequence[float]) -> None:
        try:
            self.edges = [self.real(edge) for edge in edges]
        except FieldError as error:
            raise ConfigurationError(f"edges of a histogram: {error}") from None
        if not 1 <= len(self.edges) <= MOST_EDGES:
            raise ConfigurationError(f"a histogram has 1 to {MOST_EDGES} edges")
        if any(a >= b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise ConfigurationError(f"edges={list(edges)!r}: they must ascend")

    def options(self) -> dict[str, Any]:
        return {"edges": self.edges}

    def zero(self) -> dict[int, int]:
        return {}

    def one(self, value: Any) -> dict[int, int]:
        return {bisect_right(self.edges, self.real(value)): 1}

    def merge(self, a: dict[int, int], b: dict[int, int]) -> dict[int, int]:
        return {bucket: a.get(bucket, 0) + b.get(bucket, 0) for bucket in {**a, **b}}

    def result(self, partial: dict[int, int]) -> list[int]:
        return [partial.get(bucket, 0) for bucket in range(len(self.edges) + 1)]

    def weight(self, partial: dict[int, int]) -> int:
        return len(partial)

    def slots(self) -> tuple[str, ...]:
        return tuple(f"{self.name}.{bucket}" for bucket in range(len(self.edges) + 1))

    def ops(self, partial: dict[int, int], slot: bytes) -> list[Op]:
        return [
            op
            for bucket, count in sorted(partial.items())
            for op in add(f"{self.name}.{bucket}", int, count)
        ]

    def stored(self, reply: Any) -> dict[int, int]:
        return {bucket: int(count) for bucket, count in enumerate(reply) if count}


def add(slot: str, data_type: type, amount: Any) -> list[Op]:
    """What adds to a number in the row; nothing for 0."""
    if not amount:
        return []
    return [(data_type.__name__.encode(), slot.encode(), [written(amount)])]
