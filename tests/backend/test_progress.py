"""How far a chord has come."""

from __future__ import annotations

import pytest
from celery import chord

from phonon_kombu import chord_progress
from phonon_kombu.errors import ConfigurationError
from phonon_kombu.store.scripts import load
from tests.backend.conftest import BackendExam
from tests.celery.exam import until


def test_from_the_first_part_to_the_end(exam: BackendExam) -> None:
    header = [exam.app.signature("gate", (f"gate {n}",)) for n in range(3)]
    result = chord(header)(exam.app.signature("body", kwargs={"tag": "p"}))
    found = chord_progress(result)
    assert (found.state, found.expected, found.arrived, found.failed) == ("open", 3, 0, 0)
    with exam.worker(pool="threads", concurrency=3):
        for n in range(2):
            exam.open_gate(f"gate {n}")
            until(lambda n=n: chord_progress(result).arrived == n + 1, lambda: "does not arrive")
        assert chord_progress(result.parent.id, exam.app).state == "open"
        exam.open_gate("gate 2")
        result.get(timeout=60)
        until(lambda: chord_progress(result).state == "closed", lambda: "not closed")


def test_stalled_and_failed_parts_show(exam: BackendExam) -> None:
    header = [exam.app.signature("part", ("p", n)) for n in range(3)]
    other = exam.app.signature("part", ("p", 9)).delay()
    result = chord(header)(exam.app.signature("body", kwargs={"tag": "p"}))
    stuck = result.parent[1].id
    with exam.app.connection_for_write() as connection:
        channel = connection.default_channel
        for id in (stuck, other.id):
            stall = load("job/stall").prepare(channel.keys("exam"))
            channel.link.run(stall, (id.encode(), b"out of order", b""))
        assert chord_progress(result).stalled == [stuck]
        with exam.worker(pool="solo"):
            until(lambda: chord_progress(result).arrived == 2, lambda: "two do not arrive")
            assert chord_progress(result).stalled == [stuck]
            channel.link.run(load("job/retry").prepare(channel.keys("exam")), (stuck.encode(),))
            assert result.get(timeout=60) == [0, 1, 2]
    assert chord_progress(result).stalled == []


def test_it_costs_few_commands(exam: BackendExam) -> None:
    header = [exam.app.signature("part", ("p", n)) for n in range(50)]
    result = chord(header)(exam.app.signature("body", kwargs={"tag": "p"}))
    chord_progress(result)
    before = exam.server.client().info("stats")["total_commands_processed"]
    chord_progress(result)
    assert exam.server.client().info("stats")["total_commands_processed"] - before <= 5


def test_what_is_no_chord(exam: BackendExam) -> None:
    assert chord_progress("nobody", exam.app).state == "unknown"
    for other in (exam.app.AsyncResult("x"), 5, None):
        with pytest.raises(ConfigurationError, match="no result of a chord"):
            chord_progress(other, exam.app)


def test_another_backend(make_exam) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigurationError, match="result_backend"):
        chord_progress("x", make_exam(backend="redis").app)
