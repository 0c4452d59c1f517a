"""Every kind of field with values that it takes: Hypothesis strategies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from phonon_kombu.phonon import fields
from phonon_kombu.phonon.fields import Field

ints = st.integers(-(2**55), 2**55) | st.integers(-3, 3)
#: Floats whose sums are exact: multiples of 1/4 that are not too large.
quarters = st.integers(-(2**20), 2**20).map(lambda n: n / 4)
texts = st.text(max_size=3) | st.sampled_from("abc")
jsons = texts | ints | st.none() | st.booleans() | st.lists(st.integers(0, 2), max_size=2)
scalars = texts | st.integers(-2, 3) | st.sampled_from([1.0, 0.5, True, False, -0.0])
scores = st.integers(-4, 4) | quarters


@dataclass(frozen=True)
class Sample:
    """A field, one value for it at a time, and how results are compared."""

    name: str
    make: Callable[[], Field[Any]]
    values: st.SearchStrategy[Any]
    #: Whether the order of what is folded makes no difference.
    commutative: bool = True


SAMPLES = [
    Sample("Sum", fields.Sum, ints),
    Sample("Sum float", lambda: fields.Sum(float), quarters),
    Sample("Diff", fields.Diff, ints),
    Sample("Diff float", lambda: fields.Diff(float), quarters),
    Sample("ListAppend", fields.ListAppend, jsons, commutative=False),
    Sample("SetAppend", fields.SetAppend, scalars),
    Sample("CountDistinct", fields.CountDistinct, scalars),
    Sample("WindowedList", lambda: fields.WindowedList(3), st.tuples(scores, jsons)),
    Sample(
        "WindowedList seconds",
        lambda: fields.WindowedList(4, window_seconds=1.5),
        st.tuples(scores, jsons),
    ),
    Sample("Min", fields.Min, ints | st.integers(2**60, 2**60 + 3)),
    Sample("Max", fields.Max, ints | st.integers(-(2**60) - 3, -(2**60))),
    Sample("Min float", lambda: fields.Min(float), st.floats(-1e300, 1e300)),
    Sample("Max float", lambda: fields.Max(float), st.floats(-1e300, 1e300)),
    Sample("Mean", fields.Mean, ints),
    Sample("Mean float", lambda: fields.Mean(float), quarters),
    Sample("Count", fields.Count, jsons.filter(lambda v: v is not None)),
    Sample("TopN", lambda: fields.TopN(3), scores | st.tuples(scores, jsons)),
    Sample("TopN lowest", lambda: fields.TopN(3, False), scores | st.tuples(scores, jsons)),
    Sample("Histogram", lambda: fields.Histogram([-1, 0.5, 100]), quarters),
]
