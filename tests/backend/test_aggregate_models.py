"""Aggregating chords of which a model says what is folded: real workers, every kind of field."""

from __future__ import annotations

from typing import Any

import pytest
from celery import states
from celery.exceptions import ChordError

from phonon_kombu import aggregate, chord_progress
from phonon_kombu.errors import ConfigurationError, FieldError, FieldFull
from phonon_kombu.phonon.fields import ID, Sum
from phonon_kombu.phonon.model import Model
from tests.backend.app import Hits, Visits
from tests.backend.conftest import BackendExam
from tests.celery.exam import until

pytestmark = pytest.mark.usefixtures("unwatched")


class Single(Model):
    """A model that aggregates one field."""

    id = ID()
    hits = Sum()


def body(exam: BackendExam) -> Any:
    return exam.app.signature("body", kwargs={"tag": "body"})


def visits(exam: BackendExam, parts: list[dict[str, Any]], by: str = "mapping") -> list[Any]:
    return [exam.app.signature("visit", ("visit", part, by)) for part in parts]


def failure(result: Any) -> Any:
    """What the body of a chord has failed with."""
    error = result.get(timeout=60, propagate=False)
    assert isinstance(error, ChordError), error
    return error


def outcome(exam: BackendExam, parts: list[dict[str, Any]], model: Any = Visits) -> Any:
    return aggregate(visits(exam, parts), model)(body(exam)).get(timeout=60)


#: What half of the parts give; the other half gives nothing.
PARTS = [
    {
        "id": f"day-{n % 2}", "hits": n, "seconds": n / 2, "left": n,
        "first": n, "last": n, "mean": n, "visits": ["a", "b"], "visitors": [n % 3, "x"],
        "pages": f"p{n}", "countries": ["de", "fr" if n % 4 else "it"], "recent": [n, f"p{n}"],
        "slowest": [n, f"p{n}"], "sizes": n * 2,
    }
    if n % 2
    else {}
    for n in range(20)
]  # fmt: skip
GIVEN = [part for part in PARTS if part]
AGGREGATE = {
    "hits": 100, "seconds": 50.0, "left": -100, "first": 1, "last": 19, "mean": 10.0,
    "visits": 20, "visitors": 4, "countries": ["de", "fr"],
    "recent": [[15, "p15"], [17, "p17"], [19, "p19"]], "slowest": [[19, "p19"], [17, "p17"]],
    "sizes": [2, 3, 5],
}  # fmt: skip
PAGES = [f"p{n}" for n in range(1, 20, 2)]
NOTHING = {
    "hits": 0, "seconds": 0.0, "left": 0, "first": None, "last": None, "mean": None, "visits": 0,
    "visitors": 0, "pages": [], "countries": [], "recent": [], "slowest": [], "sizes": [0, 0, 0],
}  # fmt: skip


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_every_kind_of_field(exam: BackendExam, pool: str) -> None:
    """The id is left out, an inherited field is a field, what a part does not give is nothing."""
    with exam.worker(pool=pool, concurrency=2):
        result = aggregate(iter(visits(exam, PARTS)), Visits)(body(exam))
        found = result.get(timeout=60)
        assert sorted(found.pop("pages")) == sorted(PAGES)
        assert found == AGGREGATE
        assert exam.counts("body", "body") == {result.id: 1}
        # It is closed after its body was published, which may have run by then.
        until(lambda: chord_progress(result).state == "closed", lambda: "it stays open")


def test_parts_that_return_records(exam: BackendExam) -> None:
    """A record's values are folded as they were given, a Diff and a Mean, too."""
    with exam.worker(pool="prefork", concurrency=2):
        result = aggregate(visits(exam, GIVEN, "record"), Visits)(body(exam))
        found = result.get(timeout=60)
        assert sorted(found.pop("pages")) == sorted(PAGES)
        assert found == AGGREGATE


def test_nothing_at_all(exam: BackendExam) -> None:
    with exam.worker(pool="solo"):
        assert outcome(exam, []) == NOTHING
        assert outcome(exam, [{}, {"id": 7}]) == NOTHING


def test_a_model_with_one_field_takes_bare_values(exam: BackendExam) -> None:
    with exam.worker(pool="solo"):
        header = [exam.app.signature("part", ("part", number)) for number in (1, 2)]
        assert aggregate(header, Single)(body(exam)).get(timeout=60) == {"hits": 3}


REFUSED = {
    "hits": ("many", "the field 'hits' refuses 'many': it takes whole numbers"),
    "seconds": ("long", "the field 'seconds' refuses 'long': it takes numbers"),
    "left": (1.5, "the field 'left' refuses 1.5"),
    "first": ([1, "x"], "the field 'first' refuses 'x'"),
    "last": (2**63, "the field 'last' refuses 9223372036854775808"),
    "mean": ({}, "the field 'mean' refuses {}"),
    "visitors": ([[1]], "the field 'visitors' refuses [1]"),
    "countries": (["a", "b", "c", "d"], "the field 'countries' is full"),
    "recent": (["now", 1], "the field 'recent' refuses 'now'"),
    "slowest": ([None, 1], "the field 'slowest' refuses None"),
    "sizes": ("big", "the field 'sizes' refuses 'big'"),
    "id": (True, "the field 'id' refuses True: an id is text or a whole number"),
    "clicks": (1, "there is no field 'clicks'"),
}


#: Which error it is, where it is not the plain one.
KINDS = {"countries": FieldFull}


def test_a_refused_value_fails_its_part_and_names_the_field(exam: BackendExam) -> None:
    with exam.worker(pool="prefork", concurrency=2):
        results = {
            name: aggregate(visits(exam, [{"hits": 1}, {name: value}]), Visits, keep_results=True)(
                body(exam)
            )
            for name, (value, _) in REFUSED.items()
        }
        for name, result in results.items():
            why = REFUSED[name][1]
            assert why in str(failure(result))
            part = result.parent[1]
            assert (part.state, type(part.result)) == (states.FAILURE, KINDS.get(name, FieldError))
            assert why in str(part.result)
        assert not exam.counts("body", "body")


def test_a_record_of_another_model_is_refused(exam: BackendExam) -> None:
    with exam.worker(pool="solo"):
        result = aggregate(visits(exam, [{"id": 1, "hits": 1}], "record"), Hits)(body(exam))
        found = str(failure(result))
        assert "FieldError" in found and "a record of Visits, whose fields are not those" in found


class Cents(Sum[int]):
    """A field of the application's own."""


class Priced(Model):
    """A model with a field that workers could not make again."""

    id = ID()
    price = Cents()


def test_a_field_of_ones_own_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"'price'.*Cents"):
        aggregate([], Priced)


def test_what_is_no_model() -> None:
    for wrong in (Model, Visits(id=1), int):
        with pytest.raises(ConfigurationError):
            aggregate([], wrong)
