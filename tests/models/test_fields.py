"""What each field takes, what it refuses, and what comes out."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

import pytest

from phonon_kombu.errors import ConfigurationError, FieldError, FieldFull, FieldOverflow
from phonon_kombu.phonon import field, fields
from phonon_kombu.phonon.fields import (
    ID,
    Count,
    CountDistinct,
    Diff,
    Histogram,
    Layout,
    ListAppend,
    Max,
    Mean,
    Min,
    SetAppend,
    Sum,
    TopN,
    WindowedList,
)


def result(of: Any, *values: Any) -> Any:
    """What a field makes of these values, merged one after the other."""
    partial = of.zero()
    for value in values:
        partial = of.merge(partial, of.lift(value))
    return of.result(partial)


NOON = datetime(2024, 5, 1, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("of", "values", "wanted"),
    [
        (Sum(), [1, 2, True, [3, 4], None], 11),
        (Sum(float), [1, 0.5, Fraction(1, 4)], 1.75),
        (Diff(), [3, 1], -4),
        (Min(), [3, 1, 2], 1),
        (Min(), [], None),
        (Max(), [2**60, 2**60 + 1], 2**60 + 1),
        (Max(float), [1, 2.5], 2.5),
        (Mean(), [1, 2, 6], 3.0),
        (Mean(), [[]], None),
        (Count(), ["a", 0, None, False, ["b", "c"]], 5),
        (CountDistinct(), ["a", "b", "a", 1, 1.0], 3),
        (ListAppend(), [1, [2, "x"], [[3]], {"a": [None]}], [1, 2, "x", [3], {"a": [None]}]),
        (SetAppend(), [{1, 2}, "x", 2.0, True], {1, 2, "x"}),
        (WindowedList(2), [(1, "a"), [(3, "c"), (2, "b")]], [(2, "b"), (3, "c")]),
        (WindowedList(9, 1.0), [(1, "a"), (2.5, "b"), (3, "b")], [(2.5, "b"), (3, "b")]),
        (WindowedList(), [(NOON, "a")], [(NOON.timestamp(), "a")]),
        (TopN(2), [3, 1, 2], [3, 2]),
        (TopN(2, largest=False), [3, 1, 2], [1, 2]),
        (TopN(2), [(1.5, "a"), (3, "b"), [(2, "a")]], [(3, "b"), (2, "a")]),
        (Histogram([1, 10]), [0, 1, 9.5, [10, 11]], [1, 2, 2]),
    ],
)
def test_results(of: Any, values: list[Any], wanted: Any) -> None:
    found = result(of, *values)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("of", "value"),
    [
        (Sum(), 1.5),
        (Sum(), "1"),
        (Sum(), 2**63),
        (Sum(float), "1"),
        (Sum(float), float("nan")),
        (Sum(float), 10**400),
        (Min(), float("inf")),
        (Mean(), ["x"]),
        (ListAppend(), b"bytes"),
        (ListAppend(), float("nan")),
        (SetAppend(), [[1]]),
        (SetAppend(), {"a": 1}),
        (CountDistinct(), [("a",)]),
        (WindowedList(), 5),
        (WindowedList(), ("soon", 5)),
        (WindowedList(), (1, 2, 3)),
        (WindowedList(), (datetime(2024, 5, 1), 1)),
        (WindowedList(), (1, object())),
        (TopN(), "x"),
        (TopN(), ("x", 1)),
        (Histogram([1]), "x"),
        (ID(), None),
        (ID(), 1.5),
        (ID(), ""),
    ],
)
def test_a_refusal_names_the_field_and_the_value(of: Any, value: Any) -> None:
    with pytest.raises(FieldError, match="the field 'clicks' refuses") as refused:
        Layout({"clicks": of}).lift({"clicks": value})
    parts = value if isinstance(value, list | tuple) else [value]
    assert any(repr(part)[:40] in str(refused.value) for part in (value, *parts))
    assert isinstance(refused.value, ValueError)


def test_a_long_value_is_not_shown_at_length() -> None:
    with pytest.raises(FieldError) as refused:
        Sum().lift("secret" * 1000)
    assert len(str(refused.value)) < 200


def test_numbers_that_grow_too_large() -> None:
    assert result(Sum(), 2**63 - 1, -5, 5) == 2**63 - 1
    with pytest.raises(FieldOverflow, match="2\\*\\*63 - 1"):
        result(Sum(), 2**63 - 1, 1)
    with pytest.raises(FieldOverflow):
        result(Diff(), 2**63 - 1, 1)
    with pytest.raises(FieldOverflow, match="largest float"):
        result(Sum(float), 1.7e308, 1.7e308)


@pytest.mark.parametrize("of", [ListAppend(3), SetAppend(3)])
def test_a_bound_is_kept_loudly(of: Any) -> None:
    assert len(result(of, 1, 2, 3)) == 3
    with pytest.raises(FieldFull, match="max_size"):
        result(of, 1, 2, [3, 4])
    assert result(SetAppend(3), 1, 2, 3, 1) == {1, 2, 3}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sum(str),
        lambda: Sum("decimal"),
        lambda: ListAppend(0),
        lambda: SetAppend(True),
        lambda: TopN(10_001),
        lambda: WindowedList(-1),
        lambda: WindowedList(1, -1),
        lambda: Histogram([]),
        lambda: Histogram([2, 1]),
        lambda: Histogram(range(2000)),
        lambda: Histogram(["x"]),
        lambda: Layout({"not a name": Sum()}),
        lambda: Layout({"ü": Sum()}),
        lambda: Layout({"x": int}),
        lambda: Layout({f"f{n}": Sum() for n in range(201)}),
    ],
)
def test_what_cannot_be_declared(make: Any) -> None:
    with pytest.raises(ConfigurationError):
        make()


def test_a_merge_changes_neither_side() -> None:
    for of in (ListAppend(), SetAppend(), Histogram([1]), TopN(), WindowedList()):
        value = (1, 2) if isinstance(of, TopN | WindowedList) else 1
        a, b = of.lift(value), of.lift(value)
        before = repr((a, b))
        of.merge(a, b)
        assert repr((a, b)) == before


def test_an_unknown_name_is_an_error() -> None:
    layout = Layout({"lines": Sum(), "words": Sum()})
    with pytest.raises(FieldError, match="no field 'line'; the fields are lines, words"):
        layout.lift({"line": 1})


def test_what_a_task_returns() -> None:
    one, two = Layout({"n": Sum()}), Layout({"n": Sum(), "m": Max()})
    assert one.lift_result(3) == {"n": 3}
    assert one.lift_result({"n": 3}) == {"n": 3}
    assert two.lift_result({"m": 2}) == {"n": 0, "m": 2}
    assert two.lift_result(None) == {"n": 0, "m": None}
    with pytest.raises(FieldError, match="2 fields and one value"):
        two.lift_result(3)


def test_a_layout_travels_as_json() -> None:
    layout = Layout(
        {
            "a": Sum(float),
            "b": ListAppend(5),
            "c": WindowedList(3, window_seconds=1.5),
            "d": TopN(4, largest=False),
            "e": Histogram([1, 2]),
            "f": CountDistinct(),
            "g": SetAppend(None),
        }
    )
    made = Layout.of_spec(json.loads(json.dumps(layout.spec())))
    assert made.spec() == layout.spec()
    assert [repr(f) for f in made.fields.values()] == [repr(f) for f in layout.fields.values()]
    for wrong in ([["a", "Nothing", {}]], [["a", "Sum", {"x": 1}]], [["a"]], 5, [["a", "Sum", 5]]):
        with pytest.raises(ConfigurationError, match="no description"):
            Layout.of_spec(wrong)  # type: ignore[arg-type]


def test_one_field_object_under_two_names() -> None:
    shared = Sum()
    layout = Layout({"a": shared, "b": shared})
    with pytest.raises(FieldError, match="the field 'b' refuses"):
        layout.lift({"b": "x"})
    assert shared.name == ""


def test_the_names_of_the_seed() -> None:
    """Under both module names, with and without the word Field."""
    for name in set(fields.Fields) - {"ID"}:
        assert getattr(field, f"{name}Field") is getattr(fields, name) is getattr(field, name)
    assert field.Fields is fields.Fields
    assert field.ID is ID


def test_results_of_the_original() -> None:
    """What phonon's own tests expect of local merges, where it holds a law."""
    assert Sum().merge(1, 2) == 3
    assert ListAppend().merge([1, 2, 3], [3, 4, 5]) == [1, 2, 3, 3, 4, 5]
    assert SetAppend().merge({1, 2, 3}, {3, 4, 5}) == {1, 2, 3, 4, 5}
    assert WindowedList().merge([(1, 10)], [(2, 20)]) == [(1, 10), (2, 20)]


def test_times_need_a_zone_and_keep_their_order() -> None:
    later = NOON.astimezone(timezone(timedelta(hours=5))) + timedelta(seconds=1)
    times = [time for time, _ in result(WindowedList(), (later, "b"), (NOON, "a"))]
    assert times == [NOON.timestamp(), NOON.timestamp() + 1]
