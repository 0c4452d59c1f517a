"""Fields: values that many processes aggregate in Redis without a lock.

::

    from phonon_kombu.phonon.fields import Layout, SetAppend, Sum, TopN

    layout = Layout({"lines": Sum(), "authors": SetAppend(), "slowest": TopN(10)})
    keys = layout.keys("report:2024-05")
    delta = layout.encode_delta({"lines": 120, "authors": ["ann", "bob"], "slowest": (1.5, "a.py")})
    layout.fold(link, keys, delta)
    layout.read(link, keys)     # {"lines": 120, "authors": {...}, "slowest": [(1.5, "a.py")]}

Models (:mod:`phonon_kombu.phonon.model`) declare them as attributes.

**In a script of your own.** The keys of a record are ``keys.row`` (a HASH with all numbers) and
``keys.collections`` (one key for each list, set, window, ranking and HyperLogLog), all of one slot.
``layout.encode_delta(values)`` (or :meth:`Layout.encode` of partials) is the tail of the script's
ARGV. In Lua::

    --- @include fold
    local row, collections, delta = KEYS[1], {}, {}     -- above the include
    local refusal = unfoldable(delta)                   -- guard: OVERFLOW, FIELDFULL, MISMATCH
    if refusal then return refusal end
    fold(delta)

``layout.read(link, keys)`` returns the aggregate, ``layout.read_call(keys)`` and
``layout.decode(reply)`` are its halves, for a pipeline; ``layout.drop_call(keys)`` deletes it.
``layout.spec()`` describes the layout in JSON, ``Layout.of_spec`` makes it again elsewhere.
"""

from __future__ import annotations

from .base import ID, Field
from .counted import Count, Diff, Histogram, Max, Mean, Min, Sum
from .gathered import CountDistinct, ListAppend, SetAppend, TopN, WindowedList
from .layout import KINDS, LARGEST_DELTA, Layout

# The names that phonon's own example has.
SumField = Sum
DiffField = Diff
ListAppendField = ListAppend
SetAppendField = SetAppend
WindowedListField = WindowedList
MinField = Min
MaxField = Max
MeanField = Mean
CountField = Count
CountDistinctField = CountDistinct
TopNField = TopN
HistogramField = Histogram

#: All fields by name.
Fields = KINDS

__all__ = [
    "Field",
    "Fields",
    "Layout",
    "LARGEST_DELTA",
    "ID",
    "Sum",
    "Diff",
    "ListAppend",
    "SetAppend",
    "WindowedList",
    "Min",
    "Max",
    "Mean",
    "Count",
    "CountDistinct",
    "TopN",
    "Histogram",
    "SumField",
    "DiffField",
    "ListAppendField",
    "SetAppendField",
    "WindowedListField",
    "MinField",
    "MaxField",
    "MeanField",
    "CountField",
    "CountDistinctField",
    "TopNField",
    "HistogramField",
]
