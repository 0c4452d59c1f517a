"""Declaring models, their values, their merges."""

from __future__ import annotations

from typing import Any

import pytest

from phonon_kombu.errors import ConfigurationError, FieldError, FieldOverflow
from phonon_kombu.phonon import field
from phonon_kombu.phonon.model import MODELS, NOTHING, Model, nothings


class Visit(Model):
    """All kinds of fields that need no option."""

    id = field.ID()
    pages = field.SumField()
    seconds = field.SumField(float)
    left = field.DiffField()
    fastest = field.MinField()
    slowest = field.MaxField(float)
    mean = field.MeanField()
    log = field.ListAppendField()
    tags = field.SetAppendField()
    people = field.CountDistinctField()
    recent = field.WindowedListField(2)
    top = field.TopNField(2)
    sizes = field.HistogramField([10])
    times = field.CountField()


def test_defaults_and_values() -> None:
    assert Visit(id=1).as_dict() == {
        "id": 1, "pages": 0, "seconds": 0.0, "left": 0, "fastest": None, "slowest": None,
        "mean": None, "log": [], "tags": set(), "people": 0, "recent": [], "top": [],
        "sizes": [0, 0], "times": 0,
    }  # fmt: skip
    visit = Visit(id=1, pages=3, seconds=1.5, left=2, log=["a", "b"], recent=(1, "x"), times="any")
    assert (visit.id, visit.pages, visit.seconds, visit.left) == (1, 3, 1.5, -2)
    assert (visit.log, visit.recent, visit.times) == (["a", "b"], [(1, "x")], 1)
    assert Visit.pages.default_value == 0 and Visit.log.default_value == []


def test_setting_a_value() -> None:
    visit = Visit(id=1, pages=3)
    visit.pages += 1
    visit.tags = ["a"]
    assert (visit.pages, visit.tags) == (4, {"a"})
    with pytest.raises(FieldError, match="the field 'pages' refuses 'x'"):
        visit.pages = "x"  # type: ignore[assignment]
    assert visit.pages == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pages": 1}, "id is a required field"),
        ({"id": 1, "pages": "many"}, "the field 'pages' refuses 'many': it takes whole numbers"),
        ({"id": 1, "seconds": None, "slowest": "x"}, "the field 'slowest' refuses 'x'"),
        ({"id": 1, "page": 1}, "no field 'page'"),
        ({"id": None}, "the field 'id' refuses None"),
    ],
)
def test_refusals_name_the_field(values: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        Visit(**values)


def test_merging() -> None:
    """phonon's own test."""

    class BizBar(Model):
        id = field.ID()
        a = field.SumField()

    a = BizBar(id=1, a=5)
    b = BizBar(id=1, a=3)
    a.merge(b)
    assert (a.id, a.a, b.a) == (1, 8, 3)
    with pytest.raises(FieldError, match="the field 'id' refuses 2: the record's id is 1"):
        a.merge(BizBar(id=2, a=1))
    a.a = 2**63 - 1
    with pytest.raises(FieldOverflow, match="'a'"):
        a.merge(b)
    assert a.a == 2**63 - 1


def test_models_have_a_name() -> None:
    class Named(Model):
        NAME = "named_otherwise"
        n = field.SumField()

    class NamedLikeItsClass(Model):
        n = field.SumField()

    assert MODELS["named_otherwise"] is Named
    assert MODELS["NamedLikeItsClass"] is NamedLikeItsClass
    assert Named(id="a.b").registry_key() == "named_otherwise.a.b"
    assert repr(Named(id=1, n=2)) == "Named(id=1, n=2)"

    class Below(Named):
        m = field.SumField()

    assert list(Below.layout.fields) == ["id", "n", "m"]
    assert Below(id=1).NAME == "Below"


def test_what_cannot_be_declared() -> None:
    with pytest.raises(ConfigurationError, match="id must be an ID"):
        type("Wrong", (Model,), {"id": field.SumField()})
    with pytest.raises(ConfigurationError, match="identifier"):
        type("Wrong", (Model,), {"NAME": "a.b"})


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"n": field.SumField}, r"Wrong\.n = Sum: a field is made by calling it, Sum\(\)"),
        ({"merge": field.SumField()}, r"Wrong\.merge: a model has something of this name"),
        ({"TTL": field.SumField()}, r"Wrong\.TTL: a model has something of this name"),
        ({"TTL": "30"}, r"Wrong\.TTL = '30': it must be a number of seconds"),
        ({"FLUSH_SECONDS": -1}, r"FLUSH_SECONDS = -1"),
    ],
)
def test_declarations_that_cannot_be_meant(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        type("Wrong", (Model,), attributes)


def test_arguments_that_died() -> None:
    """A process that completes a record for others has none of their messages."""

    class Wanting(Model):
        def on_complete(self, msg: Any, more: Any = 5, *rest: Any) -> None:
            msg.finish()
            msg.touch.by("nobody")

    wanting = Wanting(id=1)
    assert nothings(wanting) == (NOTHING,)
    wanting.on_complete(*nothings(wanting))
    assert NOTHING.anything.at_all is NOTHING
    assert not NOTHING and repr(NOTHING) == "NOTHING"
    assert nothings(Visit(id=1)) == ()
