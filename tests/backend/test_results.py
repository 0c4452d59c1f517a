"""Single results: the first success stands, and waiting costs what it must and no more."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from celery import states
from celery.exceptions import TimeoutError as CeleryTimeoutError

from phonon_kombu.backend import PhononBackend
from phonon_kombu.backend.consumer import LONGEST_WAIT_SECONDS
from tests.backend.conftest import BackendExam
from tests.servers import RedisServer, wait_for


def calls(exam: BackendExam, *commands: str) -> dict[str, int]:
    """How often the server has run these commands."""
    stats = exam.server.client().info("commandstats")
    return {name: stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in commands}


def subscribers(exam: BackendExam) -> set[str]:
    """Connections of the server that are subscribed to channels: by id, as those that earlier
    tests have left may end meanwhile."""
    clients = exam.server.client().client_list()
    return {client["id"] for client in clients if int(client["sub"]) > 0}


@pytest.mark.parametrize("serializer", ["json", "pickle"])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_the_first_success_stands(make_exam: Any, serializer: str, compression: str | None) -> None:
    settings = {
        "result_serializer": serializer,
        "result_compression": compression,
        "accept_content": ["json", "pickle"],
        "result_accept_content": ["json", "pickle", "yaml"],
    }
    backend = make_exam(settings=settings).app.backend
    backend.store_result("x", {}, states.STARTED)
    assert backend.get_state("x") == states.STARTED
    backend.store_result("x", ValueError("first"), states.FAILURE)
    assert backend.get_state("x") == states.FAILURE
    backend.store_result("x", 1, states.SUCCESS)
    for value, state in ((2, states.SUCCESS), (ValueError("no"), states.FAILURE), ({}, "STARTED")):
        backend.store_result("x", value, state)
    assert backend.get_task_meta("x", cache=False)["result"] == 1


def test_a_result_that_looks_like_a_success_is_none(backend: PhononBackend) -> None:
    backend.store_result("x", '"status": "SUCCESS"', "CUSTOM")
    backend.store_result("x", 1, states.SUCCESS)
    assert backend.get_result("x") == 1


@pytest.mark.parametrize(("expires", "ttl"), [(0, -1), (None, -1), (600, 600)])
def test_lifetimes(make_exam: Any, expires: int | None, ttl: int) -> None:
    exam = make_exam(settings={"result_expires": expires})
    exam.app.backend.store_result("x", 1, states.SUCCESS)
    found = exam.server.client(1).ttl("celery-task-meta-x")
    assert found == ttl or ttl - 5 <= found <= ttl


def test_stock_reads_ours_and_we_read_stock(make_exam: Any) -> None:
    ours, stock = make_exam().app, make_exam(backend="redis").app
    ours.backend.store_result("x", [1], states.SUCCESS)
    stock.backend.store_result("y", [2], states.SUCCESS)
    assert stock.AsyncResult("x").get(timeout=5) == [1]
    assert ours.AsyncResult("y").get(timeout=5) == [2]


def test_publishing_subscribes_to_nothing(exam: BackendExam) -> None:
    before = calls(exam, "subscribe", "unsubscribe", "psubscribe")
    results = [exam.task("add").delay(1, n) for n in range(20)]
    assert calls(exam, "subscribe", "unsubscribe", "psubscribe") == before
    del results


def test_a_finished_task_costs_one_look(exam: BackendExam) -> None:
    exam.app.backend.store_result("x", 1, states.SUCCESS)
    before = calls(exam, "subscribe", "get")
    assert exam.app.AsyncResult("x").get(timeout=5) == 1
    after = calls(exam, "subscribe", "get")
    assert after == {"subscribe": before["subscribe"], "get": before["get"] + 1}


def test_finished_tasks_are_not_waited_for(exam: BackendExam) -> None:
    """Each by itself, and as a group: nothing more is to come that would end a wait."""
    ids = [f"x{number}" for number in range(5)]
    for id in ids:
        exam.app.backend.store_result(id, 1, states.SUCCESS)
    began = time.monotonic()
    assert [exam.app.AsyncResult(id).get(timeout=20) for id in ids] == [1] * 5
    group = exam.app.GroupResult("g", [exam.app.AsyncResult(id) for id in ids])
    assert group.join_native(timeout=20) == [1] * 5
    assert time.monotonic() - began < LONGEST_WAIT_SECONDS


def test_waiting_ends_with_the_result(exam: BackendExam) -> None:
    backend = exam.app.backend
    timer = threading.Timer(0.3, backend.store_result, ("x", 7, states.SUCCESS))
    timer.start()
    assert exam.app.AsyncResult("x").get(timeout=20) == 7
    timer.join()
    # Nobody waits for it any more.
    backend.result_consumer.drain_events(timeout=0.01)
    assert not backend.result_consumer.subscribed_to


def test_waiting_times_out(exam: BackendExam) -> None:
    began = time.monotonic()
    with pytest.raises(CeleryTimeoutError):
        exam.app.AsyncResult("never").get(timeout=0.5)
    assert 0.4 < time.monotonic() - began < 10


def test_what_comes_while_we_subscribe_is_found(
    exam: BackendExam, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result is stored between the first look and the server's confirmation."""
    backend = exam.app.backend
    consumer = backend.result_consumer
    subscribe = consumer._subscribe

    def late(keys: set[bytes]) -> None:
        backend.store_result("x", 7, states.SUCCESS)
        subscribe(keys)

    monkeypatch.setattr(consumer, "_subscribe", late)
    assert exam.app.AsyncResult("x").get(timeout=10) == 7


def test_thousands_wait_over_one_connection(exam: BackendExam) -> None:
    backend = exam.app.backend
    ids = [f"id-{n}" for n in range(3000)]
    group = exam.app.GroupResult("g", [exam.app.AsyncResult(id) for id in ids])
    before = subscribers(exam)

    def store() -> None:
        wait_for(lambda: subscribers(exam) - before)
        for n, id in enumerate(ids):
            backend.store_result(id, n, states.SUCCESS)

    thread = threading.Thread(target=store)
    thread.start()
    assert group.get(timeout=60) == list(range(3000))
    assert len(subscribers(exam) - before) == 1
    thread.join()


def test_threads_wait_over_one_connection(exam: BackendExam) -> None:
    backend, found = exam.app.backend, {}
    before = subscribers(exam)

    def wait(n: int) -> None:
        found[n] = exam.app.AsyncResult(f"id-{n}").get(timeout=30)

    threads = [threading.Thread(target=wait, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    # One of the threads subscribes for all, a moment after they have said what they wait for.
    wait_for(
        lambda: len(backend.result_consumer.subscribed_to) == 20 and subscribers(exam) - before, 20
    )
    assert len(subscribers(exam) - before) == 1
    for n in reversed(range(20)):
        backend.store_result(f"id-{n}", n, states.SUCCESS)
    for thread in threads:
        thread.join(30)
    assert found == {n: n for n in range(20)}
    assert len(subscribers(exam) - before) == 1


def test_waiting_survives_the_loss_of_the_connection(exam: BackendExam) -> None:
    """All connections are cut, and the result comes while nobody listens."""
    backend = exam.app.backend

    def cut_and_store() -> None:
        wait_for(lambda: b"celery-task-meta-x" in backend.result_consumer.subscribed_to)
        time.sleep(0.2)
        exam.server.client(1).client_kill_filter(_type="pubsub")
        exam.server.client(1).client_kill_filter(_type="normal", skipme=True)
        backend.store_result("x", 7, states.SUCCESS)

    thread = threading.Thread(target=cut_and_store)
    thread.start()
    assert exam.app.AsyncResult("x").get(timeout=30) == 7
    thread.join()


def test_waiting_survives_a_restart_of_the_server() -> None:
    with RedisServer() as server:
        exam = BackendExam(server, "phonon", backend_scheme="phonon")
        backend = exam.app.backend

        def restart() -> None:
            wait_for(lambda: b"celery-task-meta-x" in backend.result_consumer.subscribed_to)
            server.restart()
            backend.store_result("x", 7, states.SUCCESS)

        thread = threading.Thread(target=restart)
        thread.start()
        assert exam.app.AsyncResult("x").get(timeout=60) == 7
        thread.join()
        exam.__exit__(None, None, None)


def test_then_is_called_for_what_was_ready_before(exam: BackendExam) -> None:
    backend, called = exam.app.backend, []
    backend.store_result("x", 7, states.SUCCESS)
    result = exam.app.AsyncResult("x")
    result.then(lambda one: called.append(one.result))
    wait_for(lambda: backend.result_consumer.drain_events(timeout=0.1) or called)
    assert called == [7]


def test_forgetting(exam: BackendExam) -> None:
    exam.app.backend.store_result("x", 7, states.SUCCESS)
    exam.app.AsyncResult("x").forget()
    assert not exam.server.client(1).exists("celery-task-meta-x")


@pytest.mark.parametrize("pool", ["solo", "prefork", "threads", "gevent", "eventlet"])
def test_every_pool_stores_results(exam: BackendExam, pool: str) -> None:
    with exam.worker(pool=pool):
        results = [exam.task("add").delay(1, n) for n in range(20)]
        assert [result.get(timeout=60) for result in results] == list(range(1, 21))
        with pytest.raises(ValueError, match="oh no"):
            exam.task("fail").delay("oh no").get(timeout=60)


GEVENT_PROGRAM = """
from gevent import monkey
monkey.patch_all()
import gevent, sys
from tests.celery.app import make_app
app = make_app(*sys.argv[1:3])
def wait(n):
    return app.AsyncResult(f"id-{n}").get(timeout=30)
app.AsyncResult("other").then(lambda _: 1 / 0)  # its drainer goes on
waiters = [gevent.spawn(wait, n) for n in range(50)]
gevent.sleep(0.2)
app.backend.store_result("other", 7, "SUCCESS")
for n in range(50):
    app.backend.store_result(f"id-{n}", n, "SUCCESS")
gevent.joinall(waiters, raise_error=True)
assert [one.value for one in waiters] == list(range(50))
print("all came")
"""


def test_greenlets_wait(exam: BackendExam) -> None:
    import subprocess
    import sys

    from tests.celery.workers import ROOT

    done = subprocess.run(
        [sys.executable, "-c", GEVENT_PROGRAM, exam.broker, exam.backend],
        cwd=ROOT, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "all came", done.stderr


@pytest.mark.timeout(60)
def test_a_server_out_of_memory_is_asked_again() -> None:
    """A result is not lost because the server was full for a moment."""
    with RedisServer("--maxmemory", "1gb", "--maxmemory-policy", "noeviction") as server:
        exam = BackendExam(server, "phonon", backend_scheme="phonon")
        backend = exam.app.backend
        backend.store_result("warm", 1, states.SUCCESS)
        server.client().config_set("maxmemory", 1)
        timer = threading.Timer(1.5, server.client().config_set, ("maxmemory", "1gb"))
        timer.start()
        backend.store_result("x", 7, states.SUCCESS)
        timer.join()
        assert backend.get_result("x") == 7
        exam.__exit__(None, None, None)
