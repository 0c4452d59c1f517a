"""Aggregating chords: folded in Redis, each part once, one aggregate for the body."""

from __future__ import annotations

from typing import Any

import pytest
from celery import chain, chord, group, states
from celery.exceptions import ChordError

from phonon_kombu import aggregate, chord_progress
from phonon_kombu.errors import ConfigurationError
from phonon_kombu.phonon.fields import (
    Count,
    CountDistinct,
    Histogram,
    Layout,
    ListAppend,
    Max,
    Mean,
    Min,
    SetAppend,
    Sum,
    TopN,
)
from tests.backend.conftest import BackendExam
from tests.backend.test_arrivals import request

pytestmark = pytest.mark.usefixtures("unwatched")


def sig(exam: BackendExam, name: str, *args: Any, **kwargs: Any) -> Any:
    return exam.app.signature(name, args, kwargs)


def body(exam: BackendExam, tag: str = "body", **kwargs: Any) -> Any:
    return sig(exam, "body", tag=tag, **kwargs)


def measures(exam: BackendExam, values: list[Any], tag: str = "measure") -> list[Any]:
    return [sig(exam, "measure", tag, value) for value in values]


class Pretended:
    """An aggregating chord whose header tasks are only pretended."""

    def __init__(self, exam: BackendExam, fields: Any, size: int) -> None:
        self.exam, self.backend = exam, exam.app.backend
        self.body = aggregate([], fields)._body(body(exam).set(queue="bodies"), {})
        self.body.freeze("the-body")
        self.backend.apply_chord(("g", [exam.app.AsyncResult("0")]), self.body)
        self.backend.set_chord_size("g", size)

    def arrive(self, index: int, value: Any) -> None:
        part = request("g", f"id-{index}", index, self.body)
        part.ignore_result = True
        self.backend.mark_as_done(f"id-{index}", value, part)

    @property
    def so_far(self) -> Any:
        return chord_progress("g", self.exam.app).aggregate


def test_every_kind_of_field(exam: BackendExam) -> None:
    fields = {
        "lines": Sum(),
        "smallest": Min(),
        "largest": Max(),
        "mean": Mean(),
        "files": Count(),
        "authors": SetAppend(),
        "people": CountDistinct(),
        "names": ListAppend(),
        "slowest": TopN(2),
        "sizes": Histogram([10, 20]),
    }
    values = [
        {
            "lines": n, "smallest": n, "largest": n, "mean": n, "files": n,
            "authors": ["ann", f"a{n % 3}"], "people": f"p{n % 7}", "names": f"n{n}",
            "slowest": (n, f"f{n}"), "sizes": n,
        }
        for n in range(30)
    ]  # fmt: skip
    with exam.worker(pool="threads", concurrency=4):
        found = aggregate(measures(exam, values), fields)(body(exam)).get(timeout=60)
    assert sorted(found.pop("names")) == sorted(f"n{n}" for n in range(30))
    assert found == {
        "lines": sum(range(30)),
        "smallest": 0,
        "largest": 29,
        "mean": 14.5,
        "files": 30,
        "authors": ["a0", "a1", "a2", "ann"],
        "people": 7,
        "slowest": [[29, "f29"], [28, "f28"]],
        "sizes": [10, 10, 10],
    }


def test_chains_chords_and_generators(exam: BackendExam) -> None:
    inner = chord([sig(exam, "add", 1, 1), sig(exam, "add", 2, 2)], sig(exam, "total"))
    header = (one for one in (chain(sig(exam, "add", 1, 1), sig(exam, "add", 3)), inner,
                              sig(exam, "add", 5, 5)))  # fmt: skip
    with exam.worker(pool="threads", concurrency=2):
        result = aggregate(header, {"n": Sum()})(body(exam))
        assert result.get(timeout=60) == {"n": 5 + 6 + 10}
        # The parts' results are not kept.
        assert not any(result.parent[n].ready() for n in range(3))


def test_in_a_chain_and_with_results_kept(exam: BackendExam) -> None:
    header = [sig(exam, "add", n) for n in range(3)]
    with exam.worker(pool="threads"):
        work = aggregate(header, {"n": Sum()}, keep_results=True).signature(body(exam))
        result = chain(sig(exam, "add", 1, 1), work).delay()
        assert result.get(timeout=60) == {"n": 2 + 3 + 4}
        assert [part.get(timeout=10) for part in result.parent] == [2, 3, 4]


@pytest.mark.parametrize("kind", [list, iter], ids=["list", "generator"])
def test_a_single_part(exam: BackendExam, kind: Any) -> None:
    fields = {"n": Sum(), "s": SetAppend(), "t": TopN(1)}
    with exam.worker(pool="solo"):
        for value in ({"n": [1, 2], "s": ["b", "a"]}, {"n": 3}):
            result = aggregate(kind(measures(exam, [value])), fields)(body(exam))
            found = result.get(timeout=60)
            assert found == {"n": 3, "s": sorted(value.get("s", [])), "t": []}


@pytest.mark.parametrize("empty", [[], iter(())], ids=["list", "generator"])
def test_an_empty_header(exam: BackendExam, empty: Any) -> None:
    with exam.worker(pool="solo"):
        result = aggregate(empty, {"n": Sum(), "s": SetAppend()})(body(exam))
        assert result.get(timeout=60) == {"n": 0, "s": []}


def test_what_cannot_be_a_header_or_fields(exam: BackendExam) -> None:
    one = sig(exam, "add", 1, 1)
    for header in ([group(one, one)], [chain(one, group(one, one))]):
        with pytest.raises(ConfigurationError, match="end in a task"):
            aggregate(header, {"n": Sum()})(body(exam))
    for fields in ({}, [Sum()], {"not a name": Sum()}, {"n": int}, object):
        with pytest.raises(ConfigurationError):
            aggregate([one], fields)


def test_a_layout_is_as_good(exam: BackendExam) -> None:
    pretended = Pretended(exam, Layout({"n": Sum()}), 2)
    pretended.arrive(0, 5)
    assert pretended.so_far == {"n": 5}


def test_a_duplicate_is_folded_once_also_after_the_close(exam: BackendExam) -> None:
    pretended = Pretended(exam, {"n": Sum(), "l": ListAppend()}, 2)
    for _ in range(3):
        pretended.arrive(0, {"n": 1, "l": "a"})
    assert pretended.so_far == {"n": 1, "l": ["a"]}
    pretended.arrive(1, {"n": 2})
    assert exam.queue_size("bodies") == 1
    for index in (0, 1):
        pretended.arrive(index, {"n": 1})
    assert exam.queue_size("bodies") == 1
    assert chord_progress("g", exam.app).state == "closed"
    keys = pretended.backend.chord_keys("g", Layout({"n": Sum(), "l": ListAppend()}))
    assert not exam.server.client(1).exists(*keys.fields, keys.seen)


@pytest.mark.parametrize(
    ("fields", "values", "why"),
    [
        ({"n": Sum()}, ["text"], "refuses"),
        ({"n": Sum()}, [{"m": 1}], "no field 'm'"),
        ({"n": Sum()}, [2**62, 2**62], "range"),
        ({"l": ListAppend(1)}, ["a", "b"], "full"),
        ({"n": Sum(), "m": Sum()}, [1], "no mapping"),
    ],
    ids=["type", "name", "overflow", "full", "no mapping"],
)
def test_a_refused_value_fails_its_part(
    exam: BackendExam, fields: Any, values: list[Any], why: str
) -> None:
    pretended = Pretended(exam, fields, len(values))
    for index, value in enumerate(values):
        pretended.arrive(index, value)
    found = exam.app.AsyncResult("the-body")
    assert found.state == states.FAILURE
    with pytest.raises(ChordError, match="Field") as caught:
        found.get(timeout=5)
    assert why in str(caught.value)
    assert exam.queue_size("bodies") == 0


def test_a_broken_layout_fails_the_part(exam: BackendExam) -> None:
    pretended = Pretended(exam, {"n": Sum()}, 1)
    pretended.body.options["headers"]["phonon_fields"] = '[["n", "System", {}]]'
    pretended.arrive(0, 1)
    assert exam.app.AsyncResult("the-body").state == states.FAILURE
    assert chord_progress("g", exam.app).state == "closed"


def test_a_failed_part_fails_the_body(exam: BackendExam) -> None:
    with exam.worker(pool="prefork"):
        header = [*measures(exam, [1, 2]), sig(exam, "part_failing", "no")]
        result = aggregate(header, {"n": Sum()})(body(exam))
        with pytest.raises((ChordError, ValueError), match="no"):
            result.get(timeout=60)


@pytest.mark.timeout(300)
def test_memory_stays_flat_over_100_000_parts(
    exam: BackendExam, capsys: pytest.CaptureFixture[str]
) -> None:
    """The parts are pretended: what real tasks leave in the queue is no matter of the backend."""
    client, parts = exam.server.client(), 100_000
    fields = {"lines": Sum(), "authors": SetAppend(), "slowest": TopN(10), "d": CountDistinct()}
    pretended = Pretended(exam, fields, parts)
    for index in range(1000):
        pretended.arrive(index, {"lines": 1, "authors": index % 20, "slowest": index, "d": index})
    client.memory_purge()
    before = client.info("memory")["used_memory"]
    # Straight through the script, as many in one write as the link takes.
    backend, calls = pretended.backend, []
    keys = backend.chord_keys("g", Layout(fields))
    from phonon_kombu.store.scripts import load

    layout, script = Layout(fields), load("chord/fold").prepare(keys)
    for index in range(1000, parts):
        delta = layout.encode_delta(
            {"lines": 1, "authors": index % 20, "slowest": index, "d": index}
        )
        fixed = (b"g", b"id-%d" % index, b"%d" % index, b"token", b"60000", b"600")
        calls.append((script, (*fixed, b"", b"", b"", b"", b"", *delta)))
        if len(calls) == 500 or index == parts - 1:
            replies = backend.link.send(calls)
            calls = []
    grown = client.info("memory")["used_memory"] - before
    assert replies[-1][0] == 1, "the last one is to close"
    assert pretended.so_far["lines"] == parts
    assert pretended.so_far["slowest"][0] == parts - 1
    with capsys.disabled():
        print(f"\n100,000 parts took {grown / 1024:.0f} KB more than 1,000")
    assert grown < 1024 * 1024, "a set of their names would take ten times as much"
