"""Lines that break: cut, or silent without a word to either side."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.celery.exam import Exam
from tests.faults.holding import assert_none_lost, held_by, wait_settled
from tests.faults.proxy import Proxy
from tests.servers import RedisServer, wait_for

#: Soon to notice. What the bound is made of: docs/howto/tune-liveness.md.
OPTIONS = {"health_check_interval": 2, "polling_interval": 1, "socket_timeout": 2}
#: The interval of the looks (10 s), the two above and the time to connect again.
NOTICED_SECONDS = 10 + 2 + 1 + 2 + 5


@pytest.fixture
def line(redis_server: RedisServer) -> Iterator[Proxy]:
    """A line to the session's server."""
    with Proxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def far(exam: Exam, line: Proxy) -> Exam:
    """An exam whose workers are at the other end of the line."""
    exam.broker = exam.broker.replace(f":{exam.server.port}/", f":{line.port}/")
    exam.settings["broker_transport_options"] = OPTIONS
    return exam


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_an_idle_worker_on_a_silent_line(far: Exam, line: Proxy, pool: str) -> None:
    tag = "silent"
    with far.worker(pool=pool, concurrency=1) as worker:
        first = far.task("record_late").delay(tag, 1)
        far.wait_ended(tag, 1)
        line.fall_silent()
        silent_since = time.monotonic()
        second = far.task("record_late").delay(tag, 2)
        far.wait_ended(tag, 2, timeout_seconds=3 * NOTICED_SECONDS)
        took = time.monotonic() - silent_since
        wait_settled(far)
        assert "Unrecoverable" not in worker.log()
    print(f"{pool}: a new task ran {took:.1f} s after the line fell silent")
    assert took < NOTICED_SECONDS
    assert_none_lost(far, tag, [first.id, second.id])


def test_a_busy_worker_on_a_silent_line(far: Exam, line: Proxy) -> None:
    """What it held stays its own, as long as it shows itself within node_ttl."""
    tag = "silent-busy"
    with far.worker(concurrency=2), far.worker(concurrency=1, queues="other") as judge:
        ids = [far.task("record_late").delay(tag, n, 0.1).id for n in range(100)]
        far.wait_ended(tag, 20)
        line.fall_silent()
        far.wait_ended(tag, 100, timeout_seconds=90)
        wait_settled(far)
        assert "is dead" not in judge.log()
    assert_none_lost(far, tag, ids)


def test_a_heart_on_a_silent_line(far: Exam, line: Proxy) -> None:
    """It connects again long before node_ttl, though the server takes the old connection for
    open."""
    client = far.broker_server.client(far.broker_db)
    with far.worker(concurrency=1), far.worker(concurrency=1, queues="other"):
        far.task("record_late").delay("heart", 1)
        far.wait_ended("heart", 1)
        wait_for(lambda: client.hlen("node.presence:{nodes}") == 2, message="two hearts")
        before = client.hgetall("node.presence:{nodes}")
        line.fall_silent()
        silent_since = time.monotonic()

        def both_anew() -> bool:
            now = client.hgetall("node.presence:{nodes}")
            return set(now) == set(before) and all(now[node] != before[node] for node in now)

        wait_for(both_anew, 40, message="a heart did not connect again")
    print(f"both hearts connected again after {time.monotonic() - silent_since:.1f} s")


def test_a_lost_heartbeat_connection_is_no_death(exam: Exam) -> None:
    """It is cut every half second: each time the heart shows itself again within the grace."""
    tag = "cut"
    client = exam.broker_server.client(exam.broker_db)
    with exam.worker(concurrency=1) as one, exam.worker(concurrency=1) as two:
        exam.listening(one, two)
        ids = [exam.task("record_late").delay(tag, n, 1.0).id for n in range(10)]
        exam.wait_started(tag, 2)
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            for presence in client.hvals("node.presence:{nodes}"):
                client.execute_command("CLIENT", "KILL", "ID", presence.partition(b":")[2])
            time.sleep(0.5)
        exam.wait_ended(tag, 10)
        wait_settled(exam)
        assert "taken for dead" not in one.log() + two.log()
    assert set(assert_none_lost(exam, tag, ids).values()) == {1}
    assert not [run for run in exam.log(tag, "start") if run["redelivered"]]


def test_a_good_goodbye(exam: Exam) -> None:
    """A worker that is stopped gives back at once what it had not begun; nobody looks for it."""
    tag = "goodbye"
    # Before it comes: what it claims first may be all that was there.
    ids = [exam.task("record_late").delay(tag, n, 0.3).id for n in range(8)]
    with exam.worker(pool="solo") as one:
        exam.wait_started(tag, 2)
        assert len(held_by(exam, one)) > 1
        one.stop()
        client = exam.broker_server.client(exam.broker_db)
        assert client.zcard("node.beats:{nodes}") == client.zcard("node.dying:{nodes}") == 0
        assert client.hlen("feed.owners:{exam}") == 0
        with exam.worker(pool="solo"):
            exam.wait_ended(tag, 8)
            wait_settled(exam)
    assert set(assert_none_lost(exam, tag, ids).values()) == {1}
