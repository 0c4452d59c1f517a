"""Every operation on a job in every state, with refusals as exceptions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from phonon_kombu.errors import Exists, JobError, NotClaimed, NotFound, NotStalled
from phonon_kombu.thoonk import Job, Thoonk, inspection, states
from tests.servers import RedisServer


def ready(job: Job) -> None:
    job.put("item", id="j")


def scheduled(job: Job) -> None:
    job.put("item", id="j", delay_seconds=600)


def claimed(job: Job) -> None:
    job.put("item", id="j")
    job.get(timeout=0)


def stalled(job: Job) -> None:
    job.put("item", id="j")
    job.stall("j", "why")


STATES: dict[str, Callable[[Job], None]] = {
    "absent": lambda job: None,
    "ready": ready,
    "scheduled": scheduled,
    "claimed": claimed,
    "stalled": stalled,
}

OPERATIONS: dict[str, Callable[[Job], object]] = {
    "put the same": lambda job: job.put("item", id="j"),
    "put another": lambda job: job.put("other", id="j"),
    "finish": lambda job: job.finish("j"),
    "finish with a result": lambda job: job.finish("j", "r", result=True),
    "cancel": lambda job: job.cancel("j"),
    "cancel with a delay": lambda job: job.cancel("j", delay_seconds=600),
    "cancel once too often": lambda job: job.cancel("j", max_deliveries=1),
    "stall": lambda job: job.stall("j", "another reason"),
    "retry": lambda job: job.retry("j"),
    "retract": lambda job: job.retract("j"),
    "maintain": lambda job: job.maintenance(),
}

#: Operation -> what becomes of a job that is absent, ready, scheduled, claimed, stalled.
GRID: dict[str, tuple[str | type[JobError], ...]] = {
    "put the same": ("ready", "ready", "scheduled", "claimed", "stalled"),
    "put another": ("ready", Exists, Exists, Exists, Exists),
    "finish": (NotClaimed, NotClaimed, NotClaimed, "absent", NotClaimed),
    "finish with a result": (NotClaimed, NotClaimed, NotClaimed, "absent", NotClaimed),
    "cancel": (NotClaimed, NotClaimed, NotClaimed, "ready", NotClaimed),
    "cancel with a delay": (NotClaimed, NotClaimed, NotClaimed, "scheduled", NotClaimed),
    "cancel once too often": (NotClaimed, NotClaimed, NotClaimed, "stalled", NotClaimed),
    "stall": (NotFound, "stalled", "stalled", "stalled", "stalled"),
    "retry": (NotStalled, NotStalled, NotStalled, NotStalled, "ready"),
    "retract": (NotFound, "absent", "absent", "absent", "absent"),
    "maintain": ("absent", "ready", "scheduled", "claimed", "stalled"),
}


def state(job: Job) -> str:
    """The one state in which the job is, as three ways to ask say it."""
    listed = [name for name in inspection.STATES if "j" in job.get_ids(name)]
    counted = [name for name in inspection.STATES if getattr(job.stats(), name)]
    assert listed == counted and len(listed) <= 1
    assert job.get_ids() == (["j"] if listed else [])
    return listed[0] if listed else "absent"


@pytest.mark.parametrize("start", STATES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation(job: Job, operation: str, start: str) -> None:
    """The grid of DESIGN: each operation from each state."""
    STATES[start](job)
    assert state(job) == start
    wanted = GRID[operation][list(STATES).index(start)]

    if isinstance(wanted, str):
        OPERATIONS[operation](job)
        assert state(job) == wanted
    else:
        with pytest.raises(wanted):
            OPERATIONS[operation](job)
        assert state(job) == start


@pytest.mark.parametrize("start", STATES)
def test_get(job: Job, start: str) -> None:
    """Only a ready job is claimed."""
    STATES[start](job)
    if start == "ready":
        assert job.get(timeout=0) == ("j", "item", 0)
        assert state(job) == "claimed"
    else:
        with pytest.raises(Exception, match="nothing came"):
            job.get(timeout=0)
        assert state(job) == start


@pytest.mark.parametrize("start", STATES)
def test_questions(job: Job, start: str) -> None:
    """What is asked of a job that is not there is refused, else answered."""
    STATES[start](job)
    questions = (job.get_item, job.get_failure_count, job.get_reason)
    if start == "absent":
        for question in questions:
            with pytest.raises(NotFound):
                question("j")
    else:
        reason = "why" if start == "stalled" else None
        assert [question("j") for question in questions] == ["item", 0, reason]


def test_states_have_the_names_of_the_grid() -> None:
    assert tuple(states.STATES)[1:] == inspection.STATES


def test_a_claim_is_ended_by_its_holder(job: Job, other: Thoonk) -> None:
    """Another session's Job object is another owner, unless it insists."""
    theirs = other.job("jobs")
    claimed(job)
    for refused in (theirs.finish, theirs.cancel):
        with pytest.raises(NotClaimed):
            refused("j")
    with pytest.raises(NotClaimed):
        theirs.finish("j", "r", result=True)
    assert state(job) == "claimed"

    theirs.cancel("j", force=True)
    assert state(job) == "ready"
    assert job.get(timeout=0).cancelled == 1
    theirs.finish("j", "r", result=True, force=True)
    assert job.get_result("j") == ("item", "r")


def test_a_late_finish_of_a_job_that_another_has_taken(job: Job, other: Thoonk) -> None:
    theirs = other.job("jobs")
    claimed(job)
    theirs.cancel("j", force=True)
    assert theirs.get(timeout=0).id == "j"

    with pytest.raises(NotClaimed):
        job.finish("j")
    theirs.finish("j")


def test_failures_are_counted_until_the_limit(job: Job) -> None:
    job.put("item", id="j")
    for failures in range(3):
        assert job.get(timeout=0).cancelled == failures
        assert job.get_failure_count("j") == failures
        job.cancel("j", max_deliveries=3)
    assert state(job) == "stalled"
    assert "3 times" in (job.get_reason("j") or "")

    job.retry("j")
    assert job.get(timeout=0).cancelled == 0


def test_a_cancelled_job_is_the_next(job: Job) -> None:
    for name in ("a", "b"):
        job.put(name, id=name)
    job.cancel(job.get().id)
    assert [job.get(timeout=0).id, job.get(timeout=0).id] == ["a", "b"]


def test_a_cancelled_job_with_a_delay_comes_when_it_is_due(job: Job) -> None:
    job.put("item", id="j")
    job.get()
    job.cancel("j", delay_seconds=0.3)
    assert state(job) == "scheduled"
    assert job.get(timeout=10) == ("j", "item", 1)


def test_stats(job: Job) -> None:
    assert job.stats().oldest_seconds is None
    for number in range(6):
        job.put("item", id=str(number), delay_seconds=600 if number == 5 else None)
    for _ in range(3):
        job.get(timeout=0)
    job.finish("0")
    job.stall("4")
    stats = job.stats()
    assert (stats.ready, stats.scheduled, stats.claimed, stats.stalled) == (1, 1, 2, 1)
    assert (stats.publishes, stats.finishes) == (6, 1)
    assert stats.oldest_seconds is not None and 0 <= stats.oldest_seconds < 60


def test_ids_come_oldest_first(job: Job, thoonk: Thoonk, redis_server: RedisServer) -> None:
    """Also when there are more than one slice of them."""
    count = 1500 if not redis_server.is_fake else 150
    for number in range(count):
        # A millisecond of their own each, as that is what the age is kept in.
        job.put("item", id=f"{number}")
        thoonk.link.command(b"ZADD", job.keys.published, b"%d" % number, b"%d" % number)
    job.stall("70")
    wanted = [str(number) for number in range(count) if number != 70]
    assert job.get_ids() == [*wanted, "70"]
    assert job.get_ids("ready") == wanted
    assert job.get_ids("stalled") == ["70"]
