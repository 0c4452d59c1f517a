"""Large parts are kept once, as the results that they are: the chord points at them."""

from __future__ import annotations

from typing import Any

import pytest
from celery import chord, states

from phonon_kombu.backend import PhononBackend
from phonon_kombu.backend.pointing import POINT_BYTES
from tests.backend.conftest import BackendExam
from tests.backend.test_arrivals import Chord, has_chord_expires, request

LARGE = "x" * POINT_BYTES
GROUP_LIFE = 600


@pytest.fixture
def pretended(make_exam: Any, unwatched: None) -> Chord:
    settings = {"result_expires": GROUP_LIFE}
    if has_chord_expires():
        settings["result_chord_expires"] = GROUP_LIFE
    return Chord(make_exam(settings=settings))


def entries(one: Chord) -> list[bytes]:
    """What the chord keeps of its parts."""
    found: list[bytes] = one.backend.link.command(
        b"LRANGE", one.backend.chord_keys(one.group).arrived, b"0", b"-1"
    )
    return found


def given(one: Chord) -> Any:
    """What the body that waits in its queue is called with."""
    with one.exam.app.connection() as connection, connection.SimpleQueue("bodies") as queue:
        message = queue.get(timeout=10)
        message.ack()
        return message.payload[0][0]


def ttls(one: Chord, *ids: str) -> list[int]:
    client = one.exam.server.client(1)
    return [client.ttl(one.backend.get_key_for_task(id)) for id in ids]


def test_a_large_part_is_kept_once(pretended: Chord) -> None:
    pretended.backend.set_chord_size("g", 3)
    pretended.arrive("a", LARGE, 0)
    pretended.arrive("b", 1, 1)
    assert [len(entry) < 100 for entry in entries(pretended)] == [True, True]
    assert pretended.backend.get_result("a") == LARGE
    pretended.arrive("c", LARGE + "c", 2)
    assert given(pretended) == [LARGE, 1, LARGE + "c"]
    assert pretended.known("state") == [b"closed"]


def test_more_parts_than_are_read_at_once(pretended: Chord) -> None:
    size = 120
    pretended.backend.set_chord_size("g", size)
    for n in reversed(range(size)):
        pretended.arrive(f"t{n}", n if n % 3 else f"{LARGE}{n}", n)
    assert given(pretended) == [n if n % 3 else f"{LARGE}{n}" for n in range(size)]


def test_a_large_part_whose_result_is_not_kept(pretended: Chord) -> None:
    pretended.backend.set_chord_size("g", 1)
    part = request("g", "a", 0, pretended.body)
    part.ignore_result = True
    pretended.backend.mark_as_done("a", LARGE, part)
    assert given(pretended) == [LARGE]
    assert pretended.backend.get_state("a") == states.PENDING


def test_what_the_part_has_returned_counts(pretended: Chord) -> None:
    """A task that has stored a success of its own before: that one stands, this one is the part."""
    pretended.backend.set_chord_size("g", 2)
    pretended.backend.store_result("a", LARGE + "before", states.SUCCESS)
    pretended.arrive("a", LARGE, 0)
    pretended.arrive("b", LARGE, 1)
    assert pretended.backend.get_result("a") == LARGE + "before"
    assert given(pretended) == [LARGE, LARGE]


def test_one_id_at_two_places(pretended: Chord) -> None:
    pretended.backend.set_chord_size("g", 2)
    pretended.arrive("a", LARGE + "0", 0)
    pretended.arrive("a", LARGE + "1", 1)
    assert given(pretended) == [LARGE + "0", LARGE + "1"]


def test_a_duplicate_of_a_large_part(pretended: Chord) -> None:
    pretended.backend.set_chord_size("g", 2)
    for value in ("first", "second"):
        pretended.arrive("a", LARGE + value, 0)
    assert pretended.known("arrived") == [b"1"]
    pretended.arrive("b", 1, 1)
    pretended.arrive("a", LARGE, 0)
    assert given(pretended) == [LARGE + "first", 1]


def test_a_part_that_is_forgotten_stays_with_its_chord(pretended: Chord) -> None:
    pretended.backend.set_chord_size("g", 3)
    pretended.arrive("a", LARGE + "a", 0)
    pretended.arrive("b", LARGE + "b", 1)
    pretended.exam.app.AsyncResult("a").forget()
    assert pretended.backend.get_state("a") == states.PENDING
    pretended.arrive("c", 3, 2)
    assert given(pretended) == [LARGE + "a", LARGE + "b", 3]


def test_a_part_that_is_forgotten_while_the_closer_reads(
    pretended: Chord, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = pretended.backend
    backend.set_chord_size("g", 2)
    pretended.arrive("a", LARGE + "a", 0)
    real = backend.mget

    def mget(keys: Any) -> Any:
        monkeypatch.undo()
        pretended.exam.app.AsyncResult("a").forget()
        return real(keys)

    monkeypatch.setattr(backend, "mget", mget)
    pretended.arrive("b", LARGE + "b", 1)
    assert backend.get_state("a") == states.PENDING
    assert given(pretended) == [LARGE + "a", LARGE + "b"]


def test_what_is_forgotten_when_the_chord_is_closed_is_gone(pretended: Chord) -> None:
    pretended.backend.set_chord_size("g", 1)
    pretended.arrive("a", LARGE, 0)
    pretended.exam.app.AsyncResult("a").forget()
    assert pretended.backend.get_state("a") == states.PENDING
    assert not entries(pretended)


def test_a_result_that_somebody_deletes_by_hand_fails_the_body(pretended: Chord) -> None:
    """Nothing can bring it back, and the body does not run with less than all."""
    pretended.backend.set_chord_size("g", 2)
    pretended.arrive("a", LARGE, 0)
    pretended.backend.link.command(b"DEL", pretended.backend.get_key_for_task("a"))
    pretended.arrive("b", 1, 1)
    assert pretended.published == 0
    assert "result of part a was deleted" in str(pretended.backend.get_result("the-body"))


def test_results_live_as_long_as_a_chord_that_waits_for_long(pretended: Chord) -> None:
    """What is pointed at must not expire before the chord does, however long that lives."""
    backend, client = pretended.backend, pretended.exam.server.client(1)
    keys = backend.chord_keys("g")
    backend.set_chord_size("g", 4)
    pretended.arrive("a", LARGE, 0)
    pretended.arrive("b", LARGE, 1)
    for key in (keys.chord, keys.arrived, keys.members, backend.get_key_for_task("a")):
        client.expire(key, 30)
    pretended.arrive("c", 1, 2)  # a small one, much later
    chord_ttls = [client.ttl(key) for key in (keys.chord, keys.arrived, keys.members)]
    assert all(GROUP_LIFE - 10 < ttl <= GROUP_LIFE for ttl in chord_ttls), chord_ttls
    assert all(ttl >= max(chord_ttls) for ttl in ttls(pretended, "a", "b"))
    pretended.arrive("d", 1, 3)
    assert given(pretended) == [LARGE, LARGE, 1, 1]


def test_a_chord_lives_no_longer_than_what_it_points_at(
    pretended: Chord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is to see to it may die before: then the chord keeps the life that it has."""
    backend, client = pretended.backend, pretended.exam.server.client(1)
    keys = backend.chord_keys("g")
    backend.set_chord_size("g", 4)
    pretended.arrive("a", LARGE, 0)
    for key in (keys.chord, backend.get_key_for_task("a")):
        client.expire(key, 30)

    def dies(*args: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(backend, "prolong", dies)
        pretended.arrive("b", LARGE, 1)
    assert client.ttl(keys.chord) <= 30
    pretended.arrive("c", 1, 2)  # the next one sees to it
    assert client.ttl(keys.chord) > 500 and ttls(pretended, "a")[0] >= client.ttl(keys.chord)


@pytest.mark.parametrize(("chord_expires", "kept"), [(0, LARGE), (GROUP_LIFE, "")])
def test_a_chord_that_never_expires_keeps_its_parts(
    pretended: Chord, monkeypatch: pytest.MonkeyPatch, chord_expires: int, kept: str
) -> None:
    """Their results expire."""
    monkeypatch.setattr(PhononBackend, "_chord_life", chord_expires)
    pretended.arrive("a", LARGE, 0)
    (entry,) = entries(pretended)
    assert (kept in entry.decode()) and (len(entry) < 100) == (not kept)
    assert 0 < ttls(pretended, "a")[0] <= GROUP_LIFE


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"result_expires": 0},
        {"result_backend_transport_options": {"result_chord_ordered": False}},
        {"result_backend_transport_options": {"global_keyprefix": "mine"}},
        {"result_compression": "gzip"},
        {"result_serializer": "pickle", "result_accept_content": ["pickle", "json"]},
        {"result_extended": True},
        {"task_track_started": True},
    ],
    ids=str,
)
def test_with_workers(make_exam: Any, settings: dict[str, Any]) -> None:
    exam: BackendExam = make_exam(settings=settings)
    with exam.worker(pool="prefork", concurrency=2):
        header = [exam.app.signature("large", ("workers", n)) for n in range(7)]
        result = chord(header)(exam.app.signature("body", kwargs={"tag": "workers"}))
        found = result.get(timeout=60)
        assert sorted(found, key=len) == [LARGE + "x" * n for n in range(7)]
