"""Results of jobs: kept for their time, waited for by others, gone when they must be."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ProcessPoolExecutor

import pytest
import redis

from phonon_kombu.errors import NotFound
from phonon_kombu.thoonk import Job, Thoonk, results
from tests.servers import wait_for

from . import peers


def finished(job: Job, **result: object) -> None:
    """Put, claim and finish the job ``j``."""
    job.put("query", id="j")
    job.get(timeout=0)
    job.finish("j", **result)  # type: ignore[arg-type]


def test_asked_before_from_another_process(
    job: Job, url: str, processes: ProcessPoolExecutor, redis_client: redis.Redis
) -> None:
    """A process that waits learns of the result."""
    job.put("query", id="j")
    waiting = processes.submit(peers.wait_for_result, url, "jobs", "j")
    wait_for(lambda: redis_client.pubsub_numsub("job.finish:{jobs}")[0][1] == 1, 20)
    job.get(timeout=0)
    job.finish("j", "result", result=True)
    assert waiting.result(10) == ("query", "result")


def test_the_announcement_ends_the_wait(
    job: Job, other: Thoonk, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits need not look."""
    monkeypatch.setattr(results, "POLL_SECONDS", 60)
    job.put("query", id="j")
    found: list[tuple[str, str]] = []
    asking = threading.Thread(target=lambda: found.append(job.get_result("j")))
    asking.start()
    wait_for(lambda: redis_client.pubsub_numsub("job.finish:{jobs}")[0][1] == 1, 10)
    worker = other.job("jobs")
    worker.finish(worker.get(timeout=0).id, "result")
    asking.join(20)
    assert found == [("query", "result")]


def test_asked_after_from_another_process(
    job: Job, url: str, processes: ProcessPoolExecutor
) -> None:
    finished(job, item="result", result=True)
    assert processes.submit(peers.wait_for_result, url, "jobs", "j").result(20) == (
        "query",
        "result",
    )


def test_finished_by_another_process(job: Job, url: str, processes: ProcessPoolExecutor) -> None:
    job_id = job.put("query")
    worker = processes.submit(peers.answer, url, "jobs", "result", 0.3)
    assert job.get_result(job_id) == ("query", "result")
    worker.result(10)
    assert job.get_result(job_id, timeout=0) == ("query", "result")


def test_many_wait_for_results_of_their_own(job: Job, other: Thoonk) -> None:
    found: dict[str, tuple[str, str]] = {}

    def ask(name: str) -> None:
        found[name] = job.get_result(name, timeout=20)

    names = [f"j{number}" for number in range(8)]
    for name in names:
        job.put(f"query {name}", id=name)
    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    worker = other.job("jobs")
    for _ in names:
        claimed = worker.get(timeout=5)
        worker.finish(claimed.id, f"result {claimed.id}")
    for thread in threads:
        thread.join(20)
    assert found == {name: (f"query {name}", f"result {name}") for name in names}


def test_kept_for_its_time(job: Job) -> None:
    finished(job, item="result", result=True, timeout=0.2)
    assert job.get_result("j", timeout=0) == ("query", "result")

    def gone() -> bool:
        try:
            job.get_result("j", timeout=0)
        except NotFound:
            return True
        return False

    wait_for(gone, 5)


def test_kept_without_end(job: Job) -> None:
    finished(job, item="result")
    assert job.session.link.command(b"PTTL", job.keys.result("j")) == -1


@pytest.mark.parametrize(
    "result", [{"item": "", "result": True}, {"item": None, "result": True}, {"item": ""}]
)
def test_an_empty_result_is_a_result(job: Job, result: dict[str, object]) -> None:
    """None is kept as an empty one."""
    finished(job, **result)
    assert job.get_result("j", timeout=0) == ("query", "")


@pytest.mark.parametrize("result", [{}, {"item": "unwanted", "result": False}])
def test_no_result(job: Job, result: dict[str, object]) -> None:
    """A job that was only acknowledged has none, and nobody waits for it in vain."""
    finished(job, **result)
    with pytest.raises(NotFound, match="'j'"):
        job.get_result("j")


def test_of_a_job_that_never_was(job: Job) -> None:
    with pytest.raises(NotFound):
        job.get_result("never")


def test_not_in_time(job: Job) -> None:
    job.put("query", id="j")
    for timeout in (0, 0.3):
        started = time.monotonic()
        with pytest.raises(TimeoutError, match="'j'"):
            job.get_result("j", timeout=timeout)
        assert timeout <= time.monotonic() - started < timeout + 3


def test_of_a_job_that_is_retracted_meanwhile(job: Job, other: Thoonk) -> None:
    """The one who waits for ever learns that there is nothing to wait for."""
    job.put("query", id="j")
    refused: list[Exception] = []

    def ask() -> None:
        try:
            job.get_result("j")
        except Exception as error:
            refused.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    asking.join(0.2)
    other.job("jobs").retract("j")
    asking.join(10)
    assert [type(error) for error in refused] == [NotFound]


def test_a_new_job_of_the_same_id_makes_the_old_result_go(job: Job) -> None:
    finished(job, item="old")
    job.put("query again", id="j")
    with pytest.raises(TimeoutError):
        job.get_result("j", timeout=0)
    job.get(timeout=0)
    job.finish("j", "new")
    assert job.get_result("j", timeout=0) == ("query again", "new")


def test_announced_as_the_contract_says(job: Job, redis_client: redis.Redis) -> None:
    """To a peer that shares the keys, which calls this feed by its name with the braces."""
    with redis_client.pubsub(ignore_subscribe_messages=True) as listener:
        listener.subscribe("job.finish:{jobs}")
        assert listener.get_message(timeout=5) is None  # the confirmation
        finished(job, item="result")
        message = wait_for(lambda: listener.get_message(timeout=1), 10)
    assert message["data"] == b"j\0result"


def test_of_a_peer_that_only_announces_it(job: Job, redis_client: redis.Redis) -> None:
    """Another client of Thoonk's contract keeps no result."""
    job.put("query", id="j")
    found: list[tuple[str, str]] = []
    asking = threading.Thread(target=lambda: found.append(job.get_result("j", timeout=20)))
    asking.start()
    wait_for(lambda: redis_client.pubsub_numsub("job.finish:{jobs}")[0][1] == 1, 10)
    with redis_client.pipeline() as pipe:
        pipe.rpop("feed.ids:{jobs}")
        pipe.zrem("feed.published:{jobs}", "j")
        pipe.hdel("feed.items:{jobs}", "j")
        pipe.publish("job.finish:{jobs}", b"j\0theirs")
        pipe.execute()
    asking.join(20)
    assert found == [("query", "theirs")]
