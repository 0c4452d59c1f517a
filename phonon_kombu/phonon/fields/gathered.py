"""Fields that keep entries, each in a key of its own, and never more than they are told to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypeVar

from ...errors import ConfigurationError, FieldFull
from .base import LARGEST_RANKING, Field, Op, pairs, written

#: How many entries a list or a set keeps unless told otherwise.
DEFAULT_SIZE = 100_000

R = TypeVar("R", covariant=True)

#: A timestamp of a window: a number, or a time with its zone.
Time = float | datetime

#: What a set of distinct values takes.
Scalar = str | int | float

#: An entry with its rank: (score, JSON).
Ranked = tuple[float, bytes]


class _Gathered(Field[R]):
    """A list or set of JSON values.

    Arguments:
        max_size: how many entries it may hold; a value that would go beyond is refused (FieldFull),
            for nothing is dropped silently. None: as many as come.
    """

    def __init__(self, max_size: int | None = DEFAULT_SIZE) -> None:
        self.max_size = None if max_size is None else self.size("max_size", max_size)

    def options(self) -> dict[str, Any]:
        return {"max_size": self.max_size}

    def weight(self, partial: Any) -> int:
        return len(partial)

    def within(self, merged: Any) -> Any:
        """`merged`, if it is not too long."""
        if self.max_size is not None and len(merged) > self.max_size:
            raise FieldFull(
                f"the field {self.name or type(self).__name__!r} is full: it holds "
                f"{self.max_size} entries (max_size)"
            )
        return merged

    def ops(self, partial: Any, slot: bytes) -> list[Op]:
        if not partial:
            return []
        bound = b"" if self.max_size is None else b"%d" % self.max_size
        return [(self.kind.encode(), slot, [bound, *partial])]


class ListAppend(_Gathered[list[Any]]):
    """All values, in the order in which they came; those of different processes interleave as
    their folds did. A value is anything that can be written as JSON."""

    kind = "list"
    commutative = False

    def zero(self) -> list[bytes]:
        return []

    def lift(self, value: Any) -> list[bytes]:
        return self.merge([], [self.encoded(one) for one in self.values(value)])

    def merge(self, a: list[Any], b: list[Any]) -> list[Any]:
        merged: list[Any] = self.within([*a, *b])
        return merged

    def result(self, partial: list[bytes]) -> list[Any]:
        return [json.loads(entry) for entry in partial]

    def stored(self, reply: list[bytes]) -> list[bytes]:
        return list(reply)


class _Distinct(_Gathered[R]):
    """The distinct values, text and numbers."""

    idempotent = True

    def __set__(self, record: Any, value: Scalar | Iterable[Scalar] | None) -> None:
        super().__set__(record, value)

    def zero(self) -> frozenset[bytes]:
        return frozenset()

    def lift(self, value: Any) -> frozenset[bytes]:
        return frozenset(self.within({self.member(one) for one in self.values(value)}))

    def member(self, value: Any) -> bytes:
        """The JSON that stands for all values equal to this one."""
        if not isinstance(value, str | int | float):
            raise self.refuse(value, "it takes text and numbers")
        if isinstance(value, bool):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return self.encoded(value)

    def merge(self, a: Any, b: Any) -> Any:
        return self.within(a | b)


class SetAppend(_Distinct[set[Any]]):
    """The distinct values, text and numbers. As in a set, 1, 1.0 and True are one value (1)."""

    kind = "set"

    def result(self, partial: Iterable[bytes]) -> set[Any]:
        return {json.loads(entry) for entry in partial}

    def stored(self, reply: Iterable[bytes]) -> frozenset[bytes]:
        return frozenset(reply)


class CountDistinct(_Distinct[int]):
    """How many distinct values there were, an int.

    What one process gathers is counted exactly; what is folded is estimated, by a HyperLogLog of
    12 KB whatever the number, with a standard error of 0.8 %.
    """

    kind = "distinct"

    def __init__(self) -> None:
        super().__init__(None)

    def options(self) -> dict[str, Any]:
        return {}

    def result(self, partial: Any) -> int:
        return len(partial)

    def ops(self, partial: Any, slot: bytes) -> list[Op]:
        return [(b"distinct", slot, list(partial))] if partial else []

    def stored(self, reply: Any) -> Any:
        raise NotImplementedError("a HyperLogLog does not tell what it has seen")

    def decode(self, reply: Any) -> int:
        return int(reply or 0)


class _Ranking(Field[list[Any]]):
    """Entries by a score (a float: whole numbers are exact up to 2**53)."""

    idempotent = True

    def values(self, value: Any) -> Iterable[Any]:
        """A tuple is one entry; a list or set may hold many."""
        return (value,) if isinstance(value, tuple) else super().values(value)

    def zero(self) -> list[Ranked]:
        return []

    def weight(self, partial: list[Ranked]) -> int:
        return len(partial)

    def lift(self, value: Any) -> list[Ranked]:
        partial: list[Ranked] = self.merge([], [self.entry(one) for one in self.values(value)])
        return partial

    def entry(self, value: Any) -> Ranked:
        """The score and the member of one value."""
        raise NotImplementedError

    def score(self, value: Any) -> float:
        """A score that a user gave."""
        if isinstance(value, datetime):
            if value.tzinfo is None:
                raise self.refuse(value, "a time needs its time zone")
            value = value.timestamp()
        return self.real(value)

    def two(self, value: Any) -> tuple[Any, Any]:
        """The two halves of a value that must be a pair."""
        if not isinstance(value, tuple) or len(value) != 2:
            raise self.refuse(value, "an entry is a tuple of two")
        return value


class WindowedList(_Ranking):
    """The latest values: the entries with the highest timestamps, in the order of time.

    A value is ``(timestamp, value)``: a number or a datetime with its zone, and anything that can
    be written as JSON. The same value at the same time is one entry. The result is a list of
    these tuples; times are numbers.

    Arguments:
        window_length: how many entries are kept.
        window_seconds: leave out what is older than the newest entry by more than this, in the
            unit of the timestamps. None: time plays no part.
    """

    kind = "window"

    def __set__(
        self, record: Any, value: tuple[Time, Any] | Iterable[tuple[Time, Any]] | None
    ) -> None:
        super().__set__(record, value)

    def __init__(self, window_length: int = 10, window_seconds: float | None = None) -> None:
        self.window_length = self.size("window_length", window_length, LARGEST_RANKING)
        self.window_seconds = None if window_seconds is None else self.real(window_seconds)
        if self.window_seconds is not None and self.window_seconds < 0:
            raise ConfigurationError(f"window_seconds={window_seconds!r}: it cannot be negative")

    def options(self) -> dict[str, Any]:
        return {"window_length": self.window_length, "window_seconds": self.window_seconds}

    def entry(self, value: Any) -> Ranked:
        time, what = self.two(value)
        score = self.score(time)
        # The time is part of the member, or the same value at two times would be one entry.
        return score, b"%b %b" % (written(plain(score)), self.encoded(what))

    def merge(self, a: list[Any], b: list[Any]) -> list[Any]:
        kept = sorted({*a, *b})[-self.window_length :]
        if kept and self.window_seconds is not None:
            oldest = kept[-1][0] - self.window_seconds
            kept = [entry for entry in kept if entry[0] >= oldest]
        return kept

    def result(self, partial: list[Ranked]) -> list[tuple[Any, Any]]:
        return [(plain(score), json.loads(member.split(b" ", 1)[1])) for score, member in partial]

    def ops(self, partial: list[Ranked], slot: bytes) -> list[Op]:
        if not partial:
            return []
        span = b"" if self.window_seconds is None else written(self.window_seconds)
        return [(b"window", slot, [b"%d" % self.window_length, span, *ranked(partial)])]

    def stored(self, reply: Any) -> list[Ranked]:
        return [(float(score), member) for member, score in pairs(reply)]


class TopN(_Ranking):
    """The entries with the highest scores, the highest first.

    A value is a number, or ``(score, what)`` with anything that can be written as JSON. Of
    entries with the same `what` the one with the best score is kept (of bare numbers: each
    number once). The result is a list of ``(score, what)``, of bare numbers a list of them.

    Arguments:
        n: how many are kept.
        largest: False keeps those with the lowest scores, the lowest first.
    """

    kind = "top"

    def __set__(
        self,
        record: Any,
        value: float | tuple[float, Any] | Iterable[float | tuple[float, Any]] | None,
    ) -> None:
        super().__set__(record, value)

    def __init__(self, n: int = 10, largest: bool = True) -> None:
        self.n = self.size("n", n, LARGEST_RANKING)
        self.largest = bool(largest)

    def options(self) -> dict[str, Any]:
        return {"n": self.n, "largest": self.largest}

    def entry(self, value: Any) -> Ranked:
        if not isinstance(value, tuple):
            score = self.score(value)
            return score, b"=" + written(plain(score))
        number, what = self.two(value)
        return self.score(number), self.encoded(what)

    def merge(self, a: list[Any], b: list[Any]) -> list[Any]:
        better = max if self.largest else min
        best: dict[bytes, float] = {}
        for score, member in (*a, *b):
            best[member] = better(score, best.get(member, score))
        ordered = sorted(((score, member) for member, score in best.items()), reverse=self.largest)
        return ordered[: self.n]

    def result(self, partial: list[Ranked]) -> list[Any]:
        return [
            plain(score) if member.startswith(b"=") else (plain(score), json.loads(member))
            for score, member in partial
        ]

    def ops(self, partial: list[Ranked], slot: bytes) -> list[Op]:
        if not partial:
            return []
        keep = b"GT" if self.largest else b"LT"
        return [(b"top", slot, [b"%d" % self.n, keep, *ranked(partial)])]

    def stored(self, reply: Any) -> list[Ranked]:
        entries = [(float(score), member) for member, score in pairs(reply)]
        return entries[::-1] if self.largest else entries


def plain(score: float) -> float | int:
    """A score as people write it: a whole number where it is one, and exactly one."""
    return int(score) if score.is_integer() and abs(score) <= 2**53 else score


def ranked(partial: list[Ranked]) -> list[bytes]:
    """Scores and members in turn, as ZADD takes them."""
    return [word for score, member in partial for word in (written(score), member)]
