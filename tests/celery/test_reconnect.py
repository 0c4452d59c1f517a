"""The broker goes away and comes back: the worker stays, and nothing is lost.

The broker has a server of its own here; results and records are kept on another one,
so that only the broker's faults are seen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.celery.exam import Exam, until
from tests.servers import RedisServer, free_port, start_server, wait_for

AOF = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
def broker_server() -> Iterator[RedisServer]:
    """A server that keeps what it has acknowledged, whatever happens to it."""
    server = start_server(*AOF)
    yield server
    server.stop()


@pytest.fixture
def exam(redis_server: RedisServer, broker_server: RedisServer, scheme: str) -> Iterator[Exam]:
    with Exam(redis_server, scheme, broker_server=broker_server) as exam:
        yield exam


def nothing_parked(exam: Exam) -> None:
    """Assert that the broker holds no message any more, waiting or taken."""
    until(
        lambda: exam.queue_size() == 0 and not parked(exam),
        lambda: f"{exam.queue_size()} wait, taken: {parked(exam)}",
        timeout_seconds=30,
    )


def parked(exam: Exam) -> int:
    """Return how many messages the broker counts as delivered and not acknowledged."""
    client = exam.broker_server.client(exam.broker_db)
    key = "unacked" if exam.scheme == "redis" else "feed.items:{exam}"
    return int(client.hlen(key))


@pytest.mark.beyond_stock("its worker ends with an AttributeError, or parks messages for an hour")
@pytest.mark.parametrize(
    ("pool", "late"),
    [("prefork", False), ("prefork", True), ("threads", True), ("gevent", False)],
)
def test_server_restarted(exam: Exam, broker_server: RedisServer, pool: str, late: bool) -> None:
    tag, count = f"restart-{pool}", 200
    task = exam.task("record_late" if late else "record")
    ids = {task.delay(tag, number, 0.02).id for number in range(count)}
    with exam.worker(pool=pool, concurrency=2) as worker:
        exam.wait_ended(tag, 40)
        broker_server.shut_down()
        worker.wait_for_log("Trying again in")
        broker_server.start()
        ended = exam.wait_ended(tag, count)
        assert set(ended) == ids
        # What ran while the connection was down could not be acknowledged: at most that
        # much runs twice.
        assert sum(exam.counts(tag).values()) <= count + 2 * 4 * 2
        nothing_parked(exam)
        assert worker.running
        assert exam.ask(worker, "ping") == {"ok": "pong"}


def test_server_killed_while_idle(exam: Exam, broker_server: RedisServer) -> None:
    with exam.worker(pool="prefork") as worker:
        exam.task("record").delay("idle", 1).get(timeout=30)
        broker_server.kill()
        worker.wait_for_log("Trying again in")
        broker_server.start()
        for number in range(5):
            assert exam.task("record").delay("idle", number).get(timeout=60) == number
        nothing_parked(exam)


@pytest.mark.beyond_stock("its worker ends with an AttributeError")
@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_server_gone_while_messages_are_unacknowledged(
    exam: Exam, broker_server: RedisServer, pool: str
) -> None:
    """Stock's worker ends here, with an AttributeError from closing its channel."""
    tag, slots = f"unacked-{pool}", 1 if pool == "solo" else 2
    gates = [exam.task("gate_late").delay(tag) for _ in range(slots)]
    rest = [exam.task("record_late").delay(tag, number) for number in range(30)]
    with exam.worker(pool=pool, concurrency=2) as worker:
        exam.wait_started(tag, slots)
        broker_server.kill()
        if pool == "solo":
            exam.open_gate(tag)
        worker.wait_for_log("Trying again in")
        broker_server.start()
        exam.open_gate(tag)
        ended = exam.wait_ended(tag, len(gates) + len(rest))
        assert set(ended) == {result.id for result in [*gates, *rest]}
        nothing_parked(exam)
        assert worker.running
        # A task that was running through it all may run again, the others may not; only that
        # a pool of threads cannot be told to forget what it has been given.
        again = sum(exam.counts(tag)[result.id] - 1 for result in rest)
        assert again <= (8 if pool == "threads" else 0)
        # The worker is its old self: it ends warmly when told to.
        assert worker.stop() == 0


@pytest.mark.beyond_stock("messages stay in unacked until the visibility timeout")
@pytest.mark.parametrize("pool", ["prefork", "gevent"])
def test_connections_killed_again_and_again(exam: Exam, pool: str) -> None:
    tag, count = f"kills-{pool}", 300
    admin = exam.broker_server.client()
    with exam.worker(pool=pool, concurrency=4) as worker:
        ids = {exam.task("record_late").delay(tag, number, 0.05).id for number in range(count)}
        exam.wait_ended(tag, 10)
        kills, end = 0, time.monotonic() + 5
        while time.monotonic() < end:
            kills += admin.client_kill_filter(_type="normal", skipme=True)
            kills += admin.client_kill_filter(_type="pubsub", skipme=True)
            time.sleep(0.5)  # the fault's own rhythm, not a wait for anything
        assert kills > 10
        ended = exam.wait_ended(tag, count)
        assert set(ended) == ids
        nothing_parked(exam)
        assert worker.running
        assert exam.ask(worker, "ping") == {"ok": "pong"}
        fresh = exam.task("record").delay(tag, "fresh")
        assert fresh.get(timeout=30) == "fresh"


@pytest.mark.beyond_stock("READONLY is a channel error there: the worker ends")
def test_a_server_that_turns_read_only(exam: Exam, broker_server: RedisServer) -> None:
    """As in a failover: READONLY is an error that time heals, not the worker's end."""
    tag, count = "readonly", 100
    admin = broker_server.client()
    results = [exam.task("record_late").delay(tag, number, 0.02) for number in range(count)]
    with exam.worker(pool="prefork") as worker:
        exam.wait_ended(tag, 10)
        admin.replicaof("127.0.0.1", free_port())
        seen = len(exam.counts(tag, "end"))
        wait_for(
            lambda: "READONLY" in worker.log() or "read only" in worker.log().lower(),
            30,
            message=f"{seen} had ended; the worker does not notice",
        )
        admin.replicaof("NO", "ONE")
        assert set(exam.wait_ended(tag, count)) == {result.id for result in results}
        nothing_parked(exam)
        assert worker.running


def test_publishers_wait_for_the_server(exam: Exam, broker_server: RedisServer) -> None:
    tag = "publisher"
    task = exam.make_app(
        task_publish_retry_policy={"max_retries": 60, "interval_start": 0.1, "interval_max": 0.2}
    ).tasks["record"]
    first = task.delay(tag, 0)
    broker_server.kill()
    done: list[str] = []
    thread = threading.Thread(
        target=lambda: done.extend(task.delay(tag, n).id for n in range(5)), daemon=True
    )
    thread.start()
    thread.join(0.5)
    assert thread.is_alive() and not done
    broker_server.start()
    thread.join(30)
    assert len(done) == 5
    # Sent again after a lost reply or not: each is there once.
    assert exam.queue_size() == 6
    with exam.worker(pool="threads"):
        assert exam.wait_ended(tag, 6) == dict.fromkeys([first.id, *done], 1)


def test_publishing_fails_clearly_without_a_server(exam: Exam, broker_server: RedisServer) -> None:
    broker_server.kill()
    app = exam.make_app(task_publish_retry_policy={"max_retries": 1, "interval_start": 0.1})
    with pytest.raises(app.tasks["add"].OperationalError, match=r"refused|Connection"):
        app.tasks["add"].apply_async((1, 1), ignore_result=True)


def test_failover_to_the_second_server(exam: Exam, broker_server: RedisServer) -> None:
    dead = f"{exam.scheme}://127.0.0.1:{free_port()}/0"
    exam.broker = f"{dead};{exam.broker}"
    settings = {"broker_connection_timeout": 1}
    with exam.worker(pool="threads", settings=settings) as worker:
        assert "Will retry using next failover" in worker.log() or "Cannot connect" in worker.log()
        assert exam.task("record").delay("failover", 7).get(timeout=30) == 7


def test_a_frozen_server(exam: Exam, broker_server: RedisServer) -> None:
    tag = "frozen"
    results = [exam.task("record").delay(tag, number, 0.02) for number in range(150)]
    with exam.worker(pool="prefork") as worker:
        exam.wait_ended(tag, 20)
        broker_server.pause()
        try:
            time.sleep(3)  # the fault itself
        finally:
            broker_server.resume()
        ended = exam.wait_ended(tag, 150)
        assert ended == exam.counts(tag) == {result.id: 1 for result in results}
        nothing_parked(exam)
        assert worker.running


def test_a_worker_that_starts_before_its_server(
    redis_server: RedisServer, broker_server: RedisServer, scheme: str
) -> None:
    with Exam(redis_server, scheme, broker_server=broker_server) as exam:
        broker_server.kill()
        with exam.worker(pool="solo", wait=False) as worker:
            worker.wait_for_log("Trying again in")
            broker_server.start()
            worker.wait_for_log(f"{worker.name} ready.")
            assert exam.task("record").delay("early", 1).get(timeout=30) == 1


@pytest.mark.beyond_stock("OutOfMemory is a channel error there: the worker ends")
def test_out_of_memory(exam: Exam, broker_server: RedisServer) -> None:
    """maxmemory with noeviction: publishers are told, and workers go on taking away."""
    tag, admin = "oom", broker_server.client()
    with exam.worker(pool="prefork") as worker:
        gates = [exam.task("gate").delay(tag) for _ in range(2)]
        exam.wait_started(tag, 2)
        results = [exam.task("record").delay(tag, number) for number in range(50)]
        admin.config_set("maxmemory", 1)
        app = exam.make_app(task_publish_retry=False)
        with pytest.raises(Exception, match="maxmemory"):
            app.tasks["add"].apply_async((1, 1), ignore_result=True)
        exam.open_gate(tag)
        worker.wait_for_log("succeeded in", count=2)
        admin.config_set("maxmemory", 0)
        ended = exam.wait_ended(tag, 52)
        assert ended == exam.counts(tag) == {result.id: 1 for result in [*gates, *results]}
        nothing_parked(exam)
        assert worker.running
