"""Arrivals without workers: what counts, what does not, and who closes."""

from __future__ import annotations

from typing import Any

import pytest
from celery import states
from celery.app.task import Context
from kombu.exceptions import OperationalError

from phonon_kombu.backend import PhononBackend, takeover
from tests.backend.conftest import BackendExam
from tests.thoonk.test_processes import in_child

pytestmark = pytest.mark.usefixtures("unwatched")


def request(group: str, id: str, index: int | None, body: Any) -> Context:
    """The request of a header task."""
    return Context(id=id, group=group, group_index=index, chord=body, ignore_result=False)


class Chord:
    """A chord whose header tasks are only pretended."""

    def __init__(self, exam: BackendExam, group: str = "g", nested: bool = False) -> None:
        self.exam, self.group = exam, group
        self.backend: PhononBackend = exam.app.backend
        self.body = exam.app.signature("body", kwargs={"tag": "body"}, queue="bodies")
        self.body.freeze("the-body")
        results = [exam.app.AsyncResult("a")]
        if nested:
            results.append(exam.app.GroupResult("inner", [exam.app.AsyncResult("b")]))
        self.backend.apply_chord((group, results), self.body)

    def arrive(self, id: str, value: Any, index: int | None = None) -> None:
        self.backend.mark_as_done(id, value, request(self.group, id, index, self.body))

    def fail(self, id: str, index: int | None = None) -> None:
        self.backend.mark_as_failure(
            id, ValueError(id), request=request(self.group, id, index, self.body)
        )

    @property
    def published(self) -> int:
        """How many messages wait for a worker that would run the body."""
        return self.exam.queue_size("bodies")

    def known(self, *fields: str) -> list[bytes | None]:
        found: list[bytes | None] = self.backend.link.command(
            b"HMGET", self.backend.chord_keys(self.group).chord, *(f.encode() for f in fields)
        )
        return found


@pytest.fixture
def pretended(exam: BackendExam) -> Chord:
    return Chord(exam)


def test_a_duplicate_counts_once(pretended: Chord) -> None:
    pretended.backend.set_chord_size("g", 2)
    for value in (1, 2):
        pretended.arrive("a", value, 0)
    assert (pretended.known("arrived", "state"), pretended.published) == ([b"1", b"open"], 0)
    pretended.arrive("b", 3, 1)
    assert pretended.published == 1
    assert pretended.backend.get_result("a") == 1, "the first success stands"


def test_a_duplicate_after_the_close_changes_nothing(pretended: Chord) -> None:
    pretended.backend.set_chord_size("g", 1)
    pretended.arrive("a", 1, 0)
    for _ in range(3):
        pretended.arrive("a", 1, 0)
        pretended.fail("a", 0)
    assert pretended.published == 1
    assert pretended.known("state", "arrived") == [b"closed", b"1"]


def test_a_part_of_a_chord_that_is_gone_keeps_its_result(pretended: Chord) -> None:
    pretended.backend.link.command(b"FLUSHDB")
    pretended.arrive("a", 1, 0)
    assert pretended.backend.get_result("a") == 1
    assert pretended.published == 0


def test_one_signature_at_two_places(pretended: Chord) -> None:
    """A frozen signature that is used twice has one id: its places tell the parts apart."""
    pretended.backend.set_chord_size("g", 2)
    pretended.arrive("a", 1, 0)
    pretended.arrive("a", 1, 1)
    assert pretended.published == 1


def test_the_size_is_known_late(pretended: Chord) -> None:
    """All parts have arrived before anybody knew how many there are: a worker closes it."""
    pretended.arrive("a", 1, 0)
    pretended.arrive("b", 2, 1)
    pretended.backend.set_chord_size("g", 2)
    assert pretended.published == 0
    assert pretended.backend.take_over("g") == 0
    assert pretended.published == 1
    assert pretended.backend.take_over("g") == -1


def test_a_living_closer_is_left_alone(pretended: Chord, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the lease lasts neither a duplicate nor a maintainer closes; after it either does."""
    backend = pretended.backend
    backend.set_chord_size("g", 1)
    real = backend.close_chord
    monkeypatch.setattr(backend, "close_chord", lambda *args: None)
    pretended.arrive("a", 1, 0)
    monkeypatch.setattr(backend, "close_chord", real)
    assert 0 < backend.take_over("g") <= 4000
    pretended.arrive("a", 1, 0)
    assert pretended.published == 0
    backend.link.command(b"HSET", backend.chord_keys("g").chord, b"until", b"1")
    pretended.arrive("a", 1, 0)
    assert pretended.published == 1
    assert pretended.known("state") == [b"closed"]


def test_a_broker_that_is_away_leaves_the_chord_to_others(
    pretended: Chord, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = pretended.backend
    backend.set_chord_size("g", 1)

    def away(*args: Any) -> None:
        raise OperationalError("away")

    with monkeypatch.context() as patch:
        patch.setattr(backend, "_publish_body", away)
        pretended.arrive("a", 1, 0)
    assert pretended.known("state") == [b"closing"]
    assert backend.get_result("a") == 1
    backend.link.command(b"HSET", backend.chord_keys("g").chord, b"until", b"1")
    assert backend.take_over("g") == 0
    assert pretended.published == 1


def test_a_failed_part_is_counted_and_fails_the_body(pretended: Chord) -> None:
    pretended.backend.set_chord_size("g", 2)
    pretended.fail("a", 0)
    assert pretended.known("arrived", "failed") == [b"1", b"1"]
    pretended.arrive("b", 1, 1)
    assert pretended.backend.get_state("the-body") == states.FAILURE
    assert pretended.published == 0


def test_applying_it_again_begins_anew(exam: BackendExam) -> None:
    for _ in range(2):
        again = Chord(exam)
        again.backend.set_chord_size("g", 2)
        again.arrive("a", 1, 0)
        assert again.known("arrived") == [b"1"]


def test_parts_expire_with_their_chord(make_exam: Any) -> None:
    exam = make_exam(settings={"result_chord_expires": 600} if has_chord_expires() else {})
    pretended = Chord(exam)
    pretended.backend.set_chord_size("g", 3)
    pretended.arrive("a", 1, 0)
    keys = pretended.backend.chord_keys("g")
    ttls = [exam.server.client(1).ttl(key) for key in (keys.chord, keys.arrived, keys.members)]
    assert all(590 <= ttl <= 600 for ttl in ttls), ttls


@pytest.mark.parametrize("known", [True, False])
def test_a_header_of_groups_keeps_its_structure(exam: BackendExam, known: bool) -> None:
    """It may go on for longer than Celery's record of it lives. A flat header would be wrong."""
    nested = Chord(exam, nested=True)
    nested.backend.set_chord_size("g", 2)
    nested.arrive("a", 1, 0)
    exam.server.client(1).delete(nested.backend.get_key_for_group("g"))
    if not known:  # as a release before this one has opened it
        exam.server.client(1).hdel(nested.backend.chord_keys("g").chord, "structure")
    nested.arrive("b", 2, 1)
    assert nested.published == known
    if known:
        with exam.app.connection_for_read() as connection:
            message = connection.default_channel.basic_get("bodies", no_ack=True)
        assert message.decode()[0] == [[1, [2]]]
    else:
        assert nested.backend.get_state("the-body") == states.FAILURE


def has_chord_expires() -> bool:
    """Celery 5.6 has no setting of its own for chords, and this exam's results expire in 600 s."""
    from celery.app.defaults import NAMESPACES

    return "chord_expires" in NAMESPACES["result"]


def test_an_index_from_nowhere_takes_no_memory(pretended: Chord) -> None:
    """An index is part of a message: a huge one must not make the server allocate a bit for it."""
    pretended.backend.set_chord_size("g", 2)
    pretended.backend.link.command(
        b"HSET", pretended.backend.chord_keys("g").chord, b"unique", b"1"
    )
    pretended.arrive("a", 1, 2**32 - 1)
    assert pretended.known("arrived") == [b"1"]
    assert not pretended.exam.server.client(1).exists(pretended.backend.chord_keys("g").seen)


def test_a_part_that_has_arrived_does_not_fail_any_more(pretended: Chord) -> None:
    """A pool child that is killed as closer has done its part: its parent must not say it failed.

    The part's own result is not kept here, so it cannot tell.
    """
    pretended.backend.set_chord_size("g", 2)
    part = request("g", "a", 0, pretended.body)
    part.ignore_result = True
    pretended.backend.mark_as_done("a", 1, part)
    pretended.fail("a", 0)
    assert pretended.backend.get_state("a") == states.PENDING
    assert pretended.known("arrived", "failed") == [b"1", None]
    pretended.fail("b", 1)
    assert pretended.backend.get_state("b") == states.FAILURE
    pretended.fail("a", 0)  # also when the chord is closed
    assert pretended.backend.get_state("a") == states.PENDING


def test_one_trip_for_result_and_arrival(pretended: Chord) -> None:
    pretended.backend.set_chord_size("g", 9)
    pretended.arrive("a", 1, 0)
    server = pretended.exam.server.client()
    before = server.info("commandstats")
    pretended.arrive("b", 2, 1)
    after = server.info("commandstats")
    ran = {name: after[name]["calls"] - before.get(name, {"calls": 0})["calls"] for name in after}
    assert ran["cmdstat_evalsha"] == 1
    assert ran["cmdstat_publish"] == 1
    assert sum(ran.values()) < 20, ran


def test_the_watch_of_a_process_that_is_no_worker_ends(
    exam: BackendExam, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that a test ran within its own process ends without a word."""
    monkeypatch.undo()  # of the fixture that keeps this module unwatched
    monkeypatch.setattr(takeover, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(takeover, "LINGER_SECONDS", 0.2)
    takeover.watch(exam.app.backend)
    watch = takeover._watches[id(exam.app)]
    watch._thread.join(20)
    assert not watch._thread.is_alive()
    assert id(exam.app) not in takeover._watches


def test_a_forked_child_watches_for_itself(
    exam: BackendExam, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may become a worker; the thread of its parent does not run in it."""
    monkeypatch.undo()  # of the fixture that keeps this module unwatched

    def watches() -> bool:
        takeover.watch(exam.app.backend)
        return takeover._watches[id(exam.app)]._thread.is_alive()

    assert watches()
    try:
        assert in_child(watches) == "True"
    finally:
        takeover.unwatch(exam.app)
