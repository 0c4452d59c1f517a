"""Who waits for a result beside others: in callbacks, in a forked child, when somebody raises."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from celery import states
from kombu.exceptions import DecodeError

from phonon_kombu.backend import consumer
from tests.backend.conftest import BackendExam
from tests.backend.test_results import subscribers
from tests.faults.proxy import Proxy
from tests.servers import wait_for

IDS = [f"id-{number}" for number in range(5)]


def listeners(exam: BackendExam, id: str) -> int:
    """How many connections are subscribed to a task's result."""
    ((_, count),) = exam.server.client(1).pubsub_numsub(f"celery-task-meta-{id}")
    return int(count)


def store(exam: BackendExam, *ids: str) -> None:
    for id in ids:
        exam.app.backend.store_result(id, 7, states.SUCCESS)


def drain_until(exam: BackendExam, condition: Any) -> None:
    wait_for(lambda: exam.app.backend.result_consumer.drain_events(timeout=0.1) or condition())


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize(
    "ids", [IDS, pytest.param(["x"] * 5, marks=pytest.mark.since57("one waiter for each task"))]
)
def test_a_callback_that_raises_takes_nothing_from_others(
    exam: BackendExam, ids: list[str], error: type[BaseException]
) -> None:
    """Of results that come together, and of waiters for the same one."""
    told: list[str] = []

    def tell(result: Any) -> None:
        told.append(result.id)
        if len(told) == 1:
            raise error("no")

    results = [exam.app.AsyncResult(id) for id in ids]
    for result in results:
        result.then(tell)
    store(exam, *ids)
    with pytest.raises(error, match="no"):
        drain_until(exam, lambda: False)
    drain_until(exam, lambda: len(told) == len(ids))
    assert sorted(told) == sorted(ids)


@pytest.mark.parametrize("what", ["on_message", "nonsense"])
def test_what_cannot_be_taken_in_takes_nothing_from_others(exam: BackendExam, what: str) -> None:
    """One who waits cannot bear a message, or something is stored that nobody can read."""
    told: list[str] = []
    results = [exam.app.AsyncResult(id) for id in IDS]
    for result in results:
        result.then(lambda one: told.append(one.id))
    store(exam, *IDS)
    on_message = None
    if what == "nonsense":
        exam.server.client(1).set(f"celery-task-meta-{IDS[2]}", b"\xff")
    else:

        def on_message(meta: Any) -> None:
            raise ValueError(meta["task_id"])

    with pytest.raises((ValueError, DecodeError)):
        exam.app.AsyncResult("another").get(timeout=5, on_message=on_message)
    drain_until(exam, lambda: len(told) >= len(IDS) - (what == "nonsense"))


@pytest.mark.parametrize("name", ["mget", "decode_result"])
def test_an_interrupt_loses_nothing(
    exam: BackendExam, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whoever presses Ctrl-C between what was heard and what is told waits again later."""
    backend, told = exam.app.backend, []
    result = exam.app.AsyncResult("x")
    result.then(lambda one: told.append(one.result))
    store(exam, "x")

    def interrupted(*args: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(backend, name, interrupted)
        drain_until(exam, lambda: False)
    drain_until(exam, lambda: told == [7])


def test_a_callback_may_wait_itself(exam: BackendExam) -> None:
    """And while it does, it takes in what others wait for."""
    told: list[Any] = []
    first, second = exam.app.AsyncResult("first"), exam.app.AsyncResult("second")
    first.then(lambda one: told.append(exam.app.AsyncResult("inner").get(timeout=5)))
    second.then(lambda one: told.append(one.id))
    store(exam, "first")

    def go_on() -> None:
        wait_for(lambda: listeners(exam, "inner"))
        store(exam, "second", "inner")

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        drain_until(exam, lambda: len(told) == 2)
    finally:
        thread.join()
    assert told == ["second", 7]


def test_a_forked_child_waits_over_a_connection_of_its_own(exam: BackendExam) -> None:
    """Its parent, one of whose threads waits meanwhile, goes on over the one that it had."""
    before, found = subscribers(exam), []
    waiting = threading.Thread(
        target=lambda: found.append(exam.app.AsyncResult("parent").get(timeout=20))
    )
    waiting.start()
    wait_for(lambda: listeners(exam, "parent") and exam.app.backend.result_consumer._token.locked())
    ours = subscribers(exam) - before
    child = os.fork()
    if child == 0:  # pragma: no cover
        status = 1
        try:
            status = 0 if exam.app.AsyncResult("child").get(timeout=5) == 7 else 2
        finally:
            os._exit(status)
    try:
        wait_for(lambda: listeners(exam, "child"), 5)
        store(exam, "child")
    finally:
        status = os.waitpid(child, 0)[1]
        assert subscribers(exam) - before == ours
        store(exam, "parent")
        waiting.join()
    assert (status, found) == (0, [7])


@pytest.mark.parametrize("query", ["", "?decode_responses=true"])
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_what_comes_between_the_look_and_the_subscription(
    make_exam: Callable[..., BackendExam],
    monkeypatch: pytest.MonkeyPatch,
    query: str,
    serializer: str,
) -> None:
    """And what comes after it; a client that decodes what it reads makes no difference."""
    exam = make_exam(
        settings={"result_serializer": serializer, "accept_content": ["json", "pickle"]}
    )
    exam.backend += query
    exam.app = exam.make_app()
    waits = exam.app.backend.result_consumer
    want = waits.want

    def want_late(result: Any) -> None:
        store(exam, "between")
        want(result)

    monkeypatch.setattr(waits, "want", want_late)
    assert exam.app.AsyncResult("between").get(timeout=10) == 7
    monkeypatch.setattr(waits, "want", want)

    def store_late() -> None:
        wait_for(lambda: listeners(exam, "after"))
        store(exam, "after")

    thread = threading.Thread(target=store_late)
    thread.start()
    try:
        assert exam.app.AsyncResult("after").get(timeout=10) == 7
    finally:
        thread.join()


def test_who_begins_as_the_connection_breaks_waits_on_the_next(exam: BackendExam) -> None:
    """At once something is not wanted any more, something is wanted anew, and the line is dead."""
    waits = exam.app.backend.result_consumer
    busy, broken = threading.Event(), threading.Event()
    found: dict[str, Any] = {}

    def wait(id: str) -> None:
        found[id] = exam.app.AsyncResult(id).get(timeout=15)

    def callback(one: Any) -> None:
        busy.set()
        broken.wait(15)

    exam.app.AsyncResult("first").then(callback)
    threads = [threading.Thread(target=wait, args=(id,)) for id in ("reader", "new")]
    threads[0].start()
    try:
        wait_for(lambda: listeners(exam, "first") and listeners(exam, "reader"))
        store(exam, "first")
        assert busy.wait(15)  # he who reads calls it
        threads[1].start()
        wait_for(lambda: any(key.endswith(b"-new") for key, _ in list(waits._wishes)))
        waits._pubsub.connection._sock.shutdown(socket.SHUT_RDWR)
        broken.set()
        wait_for(lambda: listeners(exam, "new"))
    finally:
        broken.set()
        store(exam, "reader", "new")
        for thread in threads:
            thread.join()
    assert found == {"reader": 7, "new": 7}


@pytest.mark.parametrize("rules", ["+@all", "+@all -ping"])
def test_a_silent_line_is_found_out(
    make_exam: Callable[..., BackendExam], monkeypatch: pytest.MonkeyPatch, rules: str
) -> None:
    """The connection is lost without a word to this side: who waits asks, and connects anew.

    That he may not ask is an answer, too.
    """
    exam = make_exam()
    monkeypatch.setattr(consumer, "SILENCE_SECONDS", 0.15)
    monkeypatch.setattr(consumer, "LONGEST_WAIT_SECONDS", 0.05)
    words = f"reset on >word ~* &* {rules}".split()
    exam.server.client().execute_command("ACL", "SETUSER", "waiter", *words)
    with Proxy(exam.server.port) as line:
        exam.backend = f"phonon://waiter:word@127.0.0.1:{line.port}/1"
        far = exam.make_app()

        def go_silent() -> None:
            wait_for(lambda: listeners(exam, "x"))
            # As long as there is an answer, that is all.
            wait_for(lambda: [one.name for one in line.commands].count("PING") > 1)
            far.backend.link.close()  # the other connection is not what this is about
            line.fall_silent()
            store(exam, "x")

        thread = threading.Thread(target=go_silent)
        thread.start()
        try:
            assert far.AsyncResult("x").get(timeout=10) == 7
        finally:
            thread.join()
            far.backend.result_consumer.stop()
            exam.server.client().execute_command("ACL", "DELUSER", "waiter")
