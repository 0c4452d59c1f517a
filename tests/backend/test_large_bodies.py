"""A body that is called with much is sent compressed."""

from __future__ import annotations

from typing import Any

import pytest
from celery import chord, group

from phonon_kombu.backend.closer import COMPRESSED_BYTES
from phonon_kombu.backend.pointing import POINT_BYTES
from tests.backend.conftest import BackendExam
from tests.backend.test_arrivals import Chord

MUCH = "x" * (COMPRESSED_BYTES // 2)


def message(one: Chord) -> tuple[Any, Any, int]:
    """Of the body that waits in its queue: how it is compressed, its values, its size as sent."""
    with one.exam.app.connection() as connection, connection.SimpleQueue("bodies") as queue:
        (item,) = one.exam.server.client(one.exam.broker_db).hvals("feed.items:{bodies}")
        found = queue.get(timeout=10)
        found.ack()
        return found.headers.get("compression"), found.payload[0][0], len(item)


def closed(exam: BackendExam, *values: Any, **options: Any) -> Chord:
    """A chord to which these parts have come."""
    one = Chord(exam)
    one.body.set(**options)
    one.backend.apply_chord(("g", [exam.app.AsyncResult("a")]), one.body)
    one.backend.set_chord_size("g", len(values))
    for n, value in enumerate(values):
        one.arrive(f"t{n}", value, n)
    return one


@pytest.mark.usefixtures("unwatched")
def test_much_is_compressed(exam: BackendExam) -> None:
    how, values, size = message(closed(exam, MUCH, MUCH + "2", 3))
    assert (how, values) == ("application/x-gzip", [MUCH, MUCH + "2", 3])
    assert size < COMPRESSED_BYTES / 10


@pytest.mark.usefixtures("unwatched")
def test_little_is_not(exam: BackendExam) -> None:
    how, values, _ = message(closed(exam, MUCH, 3))
    assert (how, values) == (None, [MUCH, 3])


@pytest.mark.usefixtures("unwatched")
@pytest.mark.parametrize(
    ("settings", "options", "expected"),
    [
        ({}, {"compression": "bzip2"}, "application/x-bz2"),
        ({"task_compression": "bzip2"}, {}, "application/x-bz2"),
        ({"result_backend_transport_options": {"chord_body_compression": "lzma"}}, {},
         "application/x-lzma"),
        ({"result_backend_transport_options": {"chord_body_compression": ""}}, {}, None),
    ],
    ids=str,
)  # fmt: skip
def test_who_says_how_is_obeyed(
    make_exam: Any, settings: dict[str, Any], options: dict[str, Any], expected: str | None
) -> None:
    one = closed(make_exam(settings=settings), MUCH, MUCH, **options)
    how, values, _ = message(one)
    assert (how, values) == (expected, [MUCH, MUCH])


@pytest.mark.parametrize("broker", ["phonon", "redis"])
def test_workers_read_it(make_exam: Any, broker: str) -> None:
    """Bodies of all kinds, with either broker; a nested header, too."""
    exam: BackendExam = make_exam(broker)

    def sig(name: str, *args: Any, **kwargs: Any) -> Any:
        return exam.app.signature(name, args, kwargs)

    def header() -> list[Any]:
        return [sig("large", "much", COMPRESSED_BYTES + n) for n in range(2)]

    inner = group(one.set(immutable=True) for one in header())
    nested = [sig("add", 1, 1) | inner, sig("add", 1, 2)]
    bodies = [
        sig("lengths"),
        sig("lengths") | sig("total"),
        group(sig("lengths"), sig("lengths")),
        chord([sig("lengths")], sig("body", tag="much")),
    ]
    with exam.worker(pool="prefork", concurrency=2):
        results = [chord(header())(body) for body in bodies]
        sizes = [POINT_BYTES + COMPRESSED_BYTES + n for n in range(2)]
        found = [result.get(timeout=60) for result in results]
        assert found == [sizes, sum(sizes), [sizes, sizes], [sizes]]
        assert chord(nested)(sig("lengths")).get(timeout=60) == [sum(sizes), 3]
