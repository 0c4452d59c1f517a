"""Chords with real workers: what Celery's Redis backend does, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError

from phonon_kombu.backend import takeover
from phonon_kombu.testing import worker_in_a_thread
from tests.backend.conftest import BackendExam
from tests.celery.exam import until
from tests.servers import RedisServer


@pytest.fixture(scope="module", params=["solo", "prefork", "threads"])
def running(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[BackendExam]:
    """An exam with a worker of each pool in turn."""
    with (
        BackendExam(redis_server, "phonon", backend_scheme="phonon", first_db=4) as exam,
        exam.worker(pool=request.param, concurrency=3),
    ):
        yield exam


def sig(exam: BackendExam, name: str, *args: Any, **kwargs: Any) -> Any:
    return exam.app.signature(name, args, kwargs)


def parts(exam: BackendExam, tag: str, size: int, name: str = "part") -> list[Any]:
    return [sig(exam, name, tag, number) for number in range(size)]


def test_results_in_the_order_of_the_header(running: BackendExam) -> None:
    result = chord(parts(running, "order", 30))(sig(running, "body", tag="order"))
    assert result.get(timeout=60) == list(range(30))
    assert running.counts("order", "body") == {result.id: 1}


def test_a_header_from_a_generator(running: BackendExam) -> None:
    header = (sig(running, "part", "lazy", number) for number in range(10))
    assert chord(header)(sig(running, "body", tag="lazy")).get(timeout=60) == list(range(10))


def test_an_empty_header(running: BackendExam) -> None:
    assert chord([])(sig(running, "body", tag="empty")).get(timeout=60) == []


def test_one_part(running: BackendExam) -> None:
    result = chord([sig(running, "part", "one", 5)])(sig(running, "body", tag="one"))
    assert result.get(timeout=60) == [5]


def test_chains_and_chords_inside(running: BackendExam) -> None:
    inner = chord([sig(running, "add", 1, 1), sig(running, "add", 2, 2)], sig(running, "total"))
    header = [
        chain(sig(running, "add", 1, 1), sig(running, "add", 3)),
        inner,
        sig(running, "add", 5, 5),
    ]
    assert chord(header)(sig(running, "body", tag="inside")).get(timeout=60) == [5, 6, 10]


@pytest.mark.since57("that group's size becomes the chord's, whose body comes too early")
def test_a_group_at_the_end_of_a_chain_keeps_its_shape(running: BackendExam) -> None:
    header = [
        chain(sig(running, "add", 1, 1), group(sig(running, "add", 2), sig(running, "add", 3))),
        sig(running, "add", 3, 3),
    ]
    assert chord(header)(sig(running, "body", tag="nested")).get(timeout=60) == [[4, 5], 6]


def test_chords_in_a_chain(running: BackendExam) -> None:
    work = chain(
        group(sig(running, "add", n, n) for n in range(3)),
        sig(running, "total"),
        group(sig(running, "add", n) for n in range(3)),
        sig(running, "total"),
    )
    assert work.delay().get(timeout=60) == 6 + 7 + 8


def test_a_body_that_is_a_chord(running: BackendExam) -> None:
    body = chord([sig(running, "total"), sig(running, "total")], sig(running, "total"))
    assert chord([sig(running, "add", 1, 1)])(body).get(timeout=60) == 4


def test_a_body_that_is_a_group(running: BackendExam) -> None:
    body = group(sig(running, "total"), sig(running, "body", tag="group body"))
    assert chord(parts(running, "group body", 3))(body).get(timeout=60) == [3, [0, 1, 2]]


@pytest.mark.parametrize("by", ["chain", "group", "chord"])
def test_a_part_that_is_replaced(running: BackendExam, by: str) -> None:
    header = [sig(running, "replaced", by, by), sig(running, "part", by, 9)]
    expected = {"chain": 2, "group": [1, 2], "chord": 3}[by]
    assert chord(header)(sig(running, "body", tag=by)).get(timeout=60) == [expected, 9]


def test_a_body_that_is_replaced_by_a_chord(running: BackendExam) -> None:
    """The body of that chord has the same task id: it is not taken for the first one again."""
    result = chord(parts(running, "over", 3))(sig(running, "handing_over", tag="over"))
    assert result.get(timeout=30) == [1, 2, 3]
    assert running.counts("over", "body") == {result.id: 1}


@pytest.mark.parametrize("kind", ["task", "chord"])
def test_a_frozen_chord_that_is_applied_again(running: BackendExam, kind: str) -> None:
    body = sig(running, "body", tag=f"again {kind}")
    if kind == "chord":
        body = chord([sig(running, "total"), sig(running, "total")], body)
    frozen = chord(parts(running, "again", 2), body)
    frozen.freeze()
    for runs in (1, 2):
        frozen.delay()
        until(
            lambda runs=runs: sum(running.counts(f"again {kind}", "body").values()) == runs,
            lambda: f"{kind}: {running.counts(f'again {kind}', 'body')}",
        )


def test_parts_added_later(running: BackendExam) -> None:
    header = [sig(running, "adding", "added", 3), sig(running, "part", "added", 9)]
    found = chord(header)(sig(running, "body", tag="added")).get(timeout=60)
    assert sorted(found) == [-1, 0, 1, 2, 9]


def test_a_failed_part_fails_the_body(running: BackendExam) -> None:
    body = sig(running, "body", tag="failed").on_error(sig(running, "errback", tag="failed"))
    result = chord([*parts(running, "failed", 2), sig(running, "part_failing", "failed")])(body)
    # The client that waits learns what the part has failed with; of the body, where that has failed
    # between his look at the parts and that at the body.
    with pytest.raises((ValueError, ChordError), match="failed"):
        result.get(timeout=60)
    until(lambda: running.app.AsyncResult(result.id).ready(), lambda: "the body has no result")
    with pytest.raises(ChordError, match="raised ValueError"):
        running.app.AsyncResult(result.id).get(timeout=60)
    until(lambda: running.counts("failed", "errback"), lambda: "no errback")
    assert not running.counts("failed", "body")


def test_a_body_that_cannot_run_fails_for_all_who_were_to_follow(running: BackendExam) -> None:
    """It is a part of a chord around it, or a chord itself, which is not open yet."""

    def header(tag: str) -> list[Any]:
        return [sig(running, "part", tag), sig(running, "part_failing", tag)]

    def body(tag: str) -> Any:
        return sig(running, "body", tag=tag).on_error(sig(running, "errback", tag=tag))

    total = sig(running, "total")
    inner = {
        "a task": total,
        "a group": group(total, total),
        "a chain": chain(total, sig(running, "add", 1)),
        "a chord": chord([total, total], total),
    }
    work = {
        **{f"in {tag}": chord([chord(header(tag), one), *header(tag)[:1]], body(f"in {tag}"))
           for tag, one in inner.items()},
        "a chord": chord(header("a chord"), chord([total, total], body("a chord"))),
        "groups": chain(group(header("groups")), group(total, total), body("groups")),
    }  # fmt: skip
    results = {tag: one.apply_async() for tag, one in work.items()}
    for tag, result in results.items():
        until(
            lambda tag=tag, id=result.id: (
                running.counts(tag, "errback") and running.app.backend.get_state(id) == "FAILURE"
            ),
            lambda tag=tag, id=result.id: f"{tag}: {running.app.backend.get_state(id)}",
        )
        assert sum(running.counts(tag, "errback").values()) == 1
        assert not running.counts(tag, "body")


def test_an_error_callback_that_reaches_chords_in_the_header_is_called_once(
    running: BackendExam,
) -> None:
    """Celery links it to their bodies, too. It is called when the chord fails that it was given."""

    def total() -> Any:
        return sig(running, "total")  # anew each time: who links to one links to all its places

    bodies = {
        "a task": total(),
        "a group": group(total(), total()),
        "a chain": chain(total(), sig(running, "add", 1)),
        "a chord around": total(),
        "a chord": chord([total(), total()], total()),
    }
    results = {}
    for name, body in bodies.items():
        tag = f"once {name}"
        inner = chord([sig(running, "part", tag), sig(running, "part_failing", tag)], body)
        if name == "a chord around":
            inner = chord([inner, sig(running, "part", tag)], total())
        work = chord([inner, sig(running, "part", tag)], sig(running, "body", tag=tag))
        work.link_error(sig(running, "errback", tag=tag))
        results[tag] = work.apply_async()
    for tag, result in results.items():
        until(
            lambda tag=tag, id=result.id: (
                running.counts(tag, "errback") and running.app.backend.get_state(id) == "FAILURE"
            ),
            lambda tag=tag, id=result.id: f"{tag}: {running.app.backend.get_state(id)}",
        )
    # Whatever else was to be called has been called by the time that this is done.
    assert chord(parts(running, "then", 2))(sig(running, "body", tag="then")).get(timeout=60)
    for tag in results:
        assert sum(running.counts(tag, "errback").values()) == 1, tag
        assert not running.counts(tag, "body")


def test_stamps_reach_the_parts(running: BackendExam) -> None:
    work = chord(parts(running, "stamped", 3), sig(running, "body", tag="stamped"))
    work.stamp(shift="night")
    assert work.delay().get(timeout=60) == [0, 1, 2]


def test_two_hundred_at_once(running: BackendExam) -> None:
    results = [chord(parts(running, f"many {n}", 5))(sig(running, "total")) for n in range(200)]
    assert [result.get(timeout=90) for result in results] == [10] * 200


def test_nothing_is_left(running: BackendExam) -> None:
    """Of a closed chord one small key remains for a while."""
    tag = "left"
    result = chord(parts(running, tag, 10))(sig(running, "body", tag=tag))
    result.get(timeout=60)
    keys = running.app.backend.chord_keys(result.parent.id)
    client = running.server.client(running.broker_db + 1)
    until(lambda: client.hget(keys.chord, "state") == b"closed", lambda: "not closed")
    assert not client.exists(keys.arrived, keys.seen, keys.members)
    assert client.zscore(keys.opened, result.parent.id) is None
    assert client.zscore(keys.closing, result.parent.id) is None
    assert 0 < client.ttl(keys.chord) <= 3600
    assert client.hget(keys.chord, "body") is None


@pytest.mark.timeout(300)
def test_ten_thousand_parts(exam: BackendExam) -> None:
    with exam.worker(pool="prefork", concurrency=2, options=["--prefetch-multiplier", "64"]):
        header = (sig(exam, "add", number, 0) for number in range(10_000))
        assert chord(header)(sig(exam, "total")).get(timeout=240) == sum(range(10_000))


@pytest.mark.parametrize(
    "settings",
    [
        {"result_expires": 0},
        {"result_chord_join_timeout": None},
        {"result_backend_transport_options": {"result_chord_ordered": False}},
        {"result_backend_transport_options": {"global_keyprefix": "mine"}},
        {"result_compression": "gzip"},
        {"task_ignore_result": False, "result_serializer": "pickle", "task_serializer": "pickle",
         "accept_content": ["pickle", "json"], "result_accept_content": ["pickle", "json"]},
        {"result_extended": True},
        {"task_track_started": True},
    ],
    ids=str,
)  # fmt: skip
def test_settings(
    make_exam: Any, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("C_FORCE_ROOT", "1")  # Celery's say about pickle as root
    exam = make_exam(settings=settings)
    with exam.worker(pool="threads"):
        header = [chain(sig(exam, "add", n, 0), sig(exam, "add", 1)) for n in range(4)]
        result = chord(header)(sig(exam, "body", tag="settings"))
        assert sorted(result.get(timeout=60)) == [1, 2, 3, 4]
        keys = exam.server.client(1).keys()
        assert keys
        prefix = settings.get("result_backend_transport_options", {}).get("global_keyprefix", "")
        assert all(key.startswith(prefix.encode()) for key in keys)


def test_a_client_that_decodes_what_it_reads(make_exam: Any) -> None:
    """As on stock ``backend.client`` gives text then; what the backend reads itself is bytes."""
    exam = make_exam()
    exam.backend += "?decode_responses=true"
    exam.app = exam.make_app()
    with exam.worker(pool="threads"):
        result = chord(parts(exam, "decoded", 3))(sig(exam, "body", tag="decoded"))
        assert sorted(result.get(timeout=60)) == [0, 1, 2]
        assert result.parent.results[0].get(timeout=10) == 0
        key = exam.app.backend.get_key_for_task(result.id)
        assert isinstance(exam.app.backend.client.get(key), str)


@pytest.mark.parametrize("ignored", ["part", "body"])
def test_results_that_are_ignored(exam: BackendExam, ignored: str) -> None:
    """A part's value reaches the body also where nobody keeps it."""
    exam.app.tasks[ignored].ignore_result = True
    with exam.worker(pool="threads"):
        header = [one.set(ignore_result=ignored == "part") for one in parts(exam, "ignored", 3)]
        body = sig(exam, "body", tag="ignored")
        chord(header)(body.set(ignore_result=ignored == "body"))
        until(lambda: exam.counts("ignored", "body"), lambda: "the body has not run")


@pytest.mark.parametrize(("broker", "backend"), [("redis", "phonon"), ("phonon", "redis")])
def test_beside_stock(make_exam: Any, broker: str, backend: str) -> None:
    exam = make_exam(broker, backend)
    with exam.worker(pool="prefork"):
        result = chord(parts(exam, "beside", 5))(sig(exam, "body", tag="beside"))
        assert result.get(timeout=60) == [0, 1, 2, 3, 4]
        assert exam.counts("beside", "body") == {result.id: 1}


def test_a_memory_broker(redis_server: RedisServer) -> None:
    """The backend needs nothing of our transport."""
    from tests.celery.app import make_app

    redis_server.client(1).flushdb()
    app = make_app("memory://", redis_server.url("phonon", 1))
    with worker_in_a_thread(app, pool="solo"):
        work = chord([app.signature("add", (n, n)) for n in range(5)], app.signature("total"))
        # Client and worker are one process here, where Celery 5.6 may forget who waits.
        id = work.delay().id
        until(lambda: app.backend.get_state(id) == "SUCCESS", lambda: "no result", 60)
        assert app.backend.get_result(id) == 20
    app.backend.remove_pending_result = lambda result: result
    app.backend.result_consumer.stop()
    # It would take over the next tests' chords, and publish their bodies in its own memory.
    takeover.unwatch(app)
