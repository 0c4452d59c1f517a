"""``celery phonon demo`` from end to end: real server, real workers, and nothing left behind."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from celery.app.task import Context

from phonon_kombu.backend import takeover
from phonon_kombu.demo import chord as demo_chord
from phonon_kombu.demo import run as demo_run
from phonon_kombu.demo.chord import ChordOutcome
from phonon_kombu.demo.display import Plain, Quiet
from phonon_kombu.demo.kill import Accident
from phonon_kombu.demo.ledger import Closing, Ledger, Outcome
from phonon_kombu.demo.report import Options, Report
from phonon_kombu.demo.workers import Worker
from phonon_kombu.store.embedded import EmbeddedServer
from tests.servers import RedisServer, server_binaries, server_name, wait_for

COMMAND = [sys.executable, "-m", "celery", "phonon", "demo"]


class Place:
    """A temporary directory for the demo and all that it starts, by which they are found."""

    def __init__(self, path: Path) -> None:
        self.path = path
        name = server_name()
        self.environment = os.environ | {
            "TMPDIR": str(path),
            "PHONON_EMBEDDED_SERVER": server_binaries().get(name, name),
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def processes(self) -> list[psutil.Process]:
        """Everything that runs in or for this directory."""
        found = []
        for process in psutil.process_iter():
            try:
                words = [process.cwd(), *process.cmdline()]
            except psutil.Error:
                continue
            if any(str(self.path) in word for word in words):
                found.append(process)
        return found

    def wait_until_empty(self, timeout_seconds: float) -> None:
        wait_for(
            lambda: not self.processes(),
            timeout_seconds,
            message=f"left running: {[p.cmdline() for p in self.processes()]}",
        )
        assert list(self.path.iterdir()) == []


@pytest.fixture
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="phk-", ignore_cleanup_errors=True) as path:
        place = Place(Path(path))
        yield place
        for process in place.processes():
            process.kill()


@pytest.mark.parametrize("scheme", ["phonon", "redis"])
def test_demo_accounts_for_every_task(place: Place, scheme: str) -> None:
    outcome = place.run("--limit", "60", "--json", "--no-kill", "--broker", f"{scheme}+embedded://")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    result = json.loads(outcome.stdout)
    assert result["files"] == 60
    assert (result["lost"], result["run_twice"], result["still_queued"]) == (0, 0, 0)
    assert min(result["lines"], result["functions"], result["classes"]) > 60
    assert result["seconds"] > 0 < result["tasks_per_second"]
    assert result["killed"] is None
    chord = result["chord"]
    if scheme == "redis":
        assert chord is None
    else:
        assert (chord["parts"], chord["arrived"], chord["body_runs"]) == (60, 60, 1)
        assert chord["exact"] and chord["aggregate"]["lines"] == result["lines"]
        assert chord["closer_killed"] is None and chord["body_seconds"] is None
    place.wait_until_empty(2)


def test_a_killed_workers_tasks_run_elsewhere(place: Place) -> None:
    """One of two workers is killed in the middle: nothing is lost, and it does not take long."""
    outcome = place.run("--limit", "200", "--json")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    result = json.loads(outcome.stdout)
    assert (result["lost"], result["run_twice"], result["still_queued"]) == (0, 0, 0)
    killed = result["killed"]
    print(f"killed: {killed}, run again: {result['redelivered']}")
    assert 0 < killed["in_hand"] <= 8 and result["redelivered"] <= killed["in_hand"]
    assert 0 < killed["back_seconds"] < 15  # about 4 on a quiet machine
    chord = result["chord"]
    print(f"chord: {chord}")
    assert chord["closer_killed"].startswith("demo") and chord["body_runs"] == 1
    assert chord["exact"] and chord["arrived"] == chord["aggregate"]["files"] == 200
    assert chord["aggregate"]["lines"] == result["lines"]
    assert 0 < chord["body_seconds"] < 20  # about 4 on a quiet machine: when the lease has ended
    place.wait_until_empty(2)


@pytest.mark.parametrize(
    ("broker", "status", "error"),
    [
        ("phonon://:secret@127.0.0.1:1/0", 69, "ServerError"),
        ("redis://:secret@127.0.0.1:1/0", 69, "ServerError"),
        ("nonsense", 2, "ConfigurationError"),
        ("amqp://:secret@localhost", 2, "ConfigurationError"),
        ("phonon://:secret@localhost:port/0", 2, "ConfigurationError"),
        ("phonon://:secret@localhost:6379/name", 2, "ConfigurationError"),
        ("phonon://:secret@localhost:6379/0?bogus=1", 2, "ConfigurationError"),
    ],
)
def test_a_broker_that_is_none(place: Place, broker: str, status: int, error: str) -> None:
    outcome = place.run("--limit", "3", "--json", "--broker", broker)
    found = json.loads(outcome.stdout)
    assert (outcome.returncode, found["error"]) == (status, error)
    assert found["text"] in outcome.stderr and "Traceback" not in outcome.stderr
    assert "secret" not in outcome.stdout + outcome.stderr


def test_what_is_said_of_a_worker_that_was_killed() -> None:
    """Of what is not known nothing is claimed."""
    ran = Outcome(10, 0, 1, 1, 1, lost=0, run_twice=0)

    def report(accident: Accident, outcome: Outcome = ran) -> Report:
        return Report(outcome, 0, 1.0, Options("x", 10, 2, 2), "x", accident)

    stock = report(Accident("demo1", None))
    assert stock.rows()[-2:] == [("killed", "demo1"), ("  with tasks in hand", "not known")]
    assert stock.good and "so far" in stock.verdict() and "exactly" not in stock.verdict()
    lost = report(Accident("demo1", None), Outcome(10, 0, 1, 1, 1, lost=3, run_twice=0))
    assert lost.verdict() == "Not every task ran exactly once: 3 lost."

    over = report(Accident("demo1", {"t"}))
    assert ("  back in the queue after", "not waited for") in over.rows()
    assert over.verdict() == "Every task ran exactly once."
    never = report(Accident("demo1", {"t"}), Outcome(10, 0, 1, 1, 1, lost=1, run_twice=0))
    assert ("  back in the queue after", "never") in never.rows()
    back = report(Accident("demo1", {"t"}, back_seconds=3.25))
    assert ("  back in the queue after", "3.2 s") in back.rows()


def test_what_kombus_own_transport_loses_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would bring the killed worker's tasks back after an hour."""
    monkeypatch.setattr(demo_run, "PATIENCE_SECONDS", 3.0)
    options = Options("redis+embedded://", limit=200, workers=2, concurrency=2)
    report = demo_run.run(options, Quiet())
    assert report.accident is not None and report.accident.in_hand is None
    assert report.outcome.lost > 0 and not report.good
    assert report.chord is None


def test_demo_on_the_users_own_server_leaves_nothing_in_it(
    place: Place, redis_server: RedisServer, redis_db: str
) -> None:
    before = set(redis_server.client().scan_iter())
    outcome = place.run(
        "--limit", "20", "--workers", "1", "--concurrency", "1", "--broker", f"phonon://{redis_db}"
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "Every task ran exactly once." in outcome.stdout
    assert outcome.stdout.endswith("The chord's body ran once.\n")
    left = set(redis_server.client().scan_iter()) - before
    own = (b"demo", b"chord", b"celery-task-meta")
    found = {key for key in left if any(word in key for word in own)}
    assert found <= {b"exchange.version:{phonon-demo}"}
    place.wait_until_empty(2)


def test_demo_on_a_terminal_draws_a_bar_and_a_table(place: Place) -> None:
    main_fd, terminal_fd = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "--limit", "30", "--workers", "1"],
        env=place.environment | {"COLUMNS": "80", "TERM": "xterm"},
        stdin=terminal_fd,
        stdout=terminal_fd,
        stderr=terminal_fd,
    ) as process:
        os.close(terminal_fd)
        shown = b""
        try:
            while chunk := os.read(main_fd, 4096):
                shown += chunk
        except OSError:  # how Linux says that nobody holds the terminal's other end any more
            pass
        assert process.wait(60) == 0, shown.decode()
    os.close(main_fd)
    text = shown.decode()
    assert "30/30" in text
    assert "run twice" in text
    assert "Every task ran exactly once." in text
    assert "30 of 30" in text and "runs of the body" in text
    assert "The chord's body ran once." in text


class Terminal(io.StringIO):
    """Takes what is written, and says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_without_rich_a_line_is_not_written_into_the_bar() -> None:
    terminal = Terminal()
    display = Plain(terminal)
    with display.progress(2, "parts") as progress:
        progress.update(2, 1)
        display.say("Killed.")
        display.say("It is back.")
        progress.update(2, 2)
    display.say("The end.")
    lines = [line.rpartition("\r")[2] for line in terminal.getvalue().rstrip().split("\n")]
    assert [line.partition("]")[2].partition(",")[0].strip() or line for line in lines] == [
        "1 of 2 parts", "Killed.", "It is back.", "2 of 2 parts", "The end."
    ]  # fmt: skip


def start(place: Place, *words: str, at: str = "files,") -> subprocess.Popen[str]:
    """Start the demo and return once its tasks are on their way, or those of its chord."""
    process = subprocess.Popen(
        [*COMMAND, *words],
        env=place.environment,
        stdout=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a shell, they and their children ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    seen = ""
    while at not in seen:
        line = process.stdout.readline()
        assert line, f"the demo ended early: {seen}"
        seen += line
    return process


@pytest.mark.parametrize(
    ("signum", "at"),
    [(signal.SIGINT, "files,"), (signal.SIGTERM, "files,"), (signal.SIGINT, "about to publish")],
)
def test_interrupted_demo_leaves_no_process(place: Place, signum: signal.Signals, at: str) -> None:
    process = start(place, "--limit", "200", at=at)
    process.send_signal(signum)
    process.communicate(timeout=30)
    assert process.returncode == 130
    place.wait_until_empty(2)


def test_killed_demo_leaves_no_process_for_long(place: Place) -> None:
    process = start(place)
    process.kill()
    process.communicate(timeout=30)
    wait_for(lambda: not place.processes(), 25, message="workers outlived the demo")


@pytest.mark.parametrize(
    ("copies", "fault"), [(0, "lost"), (2, "run_twice")], ids=["lost", "run twice"]
)
def test_a_fault_is_noticed(monkeypatch: pytest.MonkeyPatch, copies: int, fault: str) -> None:
    """One task is sent so many times instead of once: the demo must find out by itself."""
    make_app = demo_run.make_app

    def faulty_app(broker: str, run: str) -> Any:
        app = make_app(broker, run)
        send = app.send_task
        ids: list[str] = []

        def send_task(name: str, *args: Any, **options: Any) -> Any:
            ids.append(options["task_id"])
            sent = [send(name, *args, **options) for _ in range(copies if len(ids) == 3 else 1)]
            return sent[0] if sent else None

        app.send_task = send_task
        return app

    monkeypatch.setattr(demo_run, "make_app", faulty_app)
    monkeypatch.setattr(demo_run, "PATIENCE_SECONDS", 2.0)
    options = Options("redis+embedded://", limit=10, workers=1, concurrency=1)
    report = demo_run.run(options, Quiet())
    assert not report.good
    found = {"lost": report.outcome.lost, "run_twice": report.outcome.run_twice}
    assert found == {"lost": 0, "run_twice": 0} | {fault: 1}


def test_a_body_that_does_not_run_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_chord, "BODY", "a task that no worker knows")
    monkeypatch.setattr(demo_run, "PATIENCE_SECONDS", 2.0)
    options = Options("phonon+embedded://", limit=10, workers=1, concurrency=1)
    report = demo_run.run(options, Quiet())
    assert report.tasks_good and not report.good
    assert report.chord is not None and report.chord.arrived == 10
    assert report.chord.verdict() == "The chord's body should have run once: it ran 0 times."


def test_who_takes_a_chord_over_is_killed_as_its_closer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the machine keeps a closer waiting for longer than its lease, a worker's main process
    takes over, and is the one that is killed before it publishes."""
    monkeypatch.setattr(takeover, "watch", lambda backend: None)  # this process is no worker
    with EmbeddedServer(None, temporary=True) as server:
        broker = server.address.url("phonon")
        ledger, worker = Ledger(broker, "x"), Worker("demo1@x", broker, "x", 1, tmp_path)
        try:
            wait_for(ledger.signed_in, 60, message="the worker is not ready")
            ledger.doom_the_closer()
            app = demo_run.make_app(broker, "x")
            body = app.signature(demo_chord.BODY)
            body.freeze("the-body")
            app.backend.apply_chord(("g", [app.AsyncResult("0")]), body)
            part = Context(id="part", group="g", group_index=0, chord=body, ignore_result=False)
            app.backend.mark_as_done("part", {}, part)
            # All have arrived before it was known how many there are: any worker closes it.
            app.backend.set_chord_size("g", 1)
            wait_for(lambda: not worker.running, 30, message="the worker lives")
            closing = ledger.closing()
            assert (closing.killed, closing.body_runs) == ("demo1@x", 0)
            assert demo_chord.chord_progress("g", app, queues=[]).state == "closing"
            app.close()
        finally:
            worker.close()
            ledger.close()


FAULTS = {
    "it ran 0 times": {"body_runs": 0, "body_at": None, "aggregate": None},
    "it ran 2 times": {"body_runs": 2},
    "its aggregate is not what the files come to": {"aggregate": {"lines": 8}},
    "its closer was not killed": {"killed": None, "killed_at": None},
}


def test_what_is_shown_of_a_chord() -> None:
    fine: dict[str, Any] = {
        "killed": "demo2@x", "killed_at": 5.0,
        "body_runs": 1, "body_at": 9.25, "body_on": "demo1@x", "aggregate": {"lines": 7},
    }  # fmt: skip

    def outcome(arrived: int = 2, **changes: Any) -> ChordOutcome:
        closing = Closing(**{**fine, **changes})
        return ChordOutcome(2, arrived, {"lines": 7}, closing, kill=True, seconds=9.0)

    assert outcome().good and outcome().body_seconds == 4.25
    assert ("  body ran after", "4.2 s") in outcome().rows()
    assert ("runs of the body", "1") in outcome().rows()
    assert outcome().verdict().startswith("The chord's body ran once, though")
    for words, changes in FAULTS.items():
        found = outcome(**changes)
        assert not found.good and words in found.verdict(), words
    assert not outcome(arrived=1).good and "1 of 2 parts arrived" in outcome(arrived=1).verdict()


def test_a_worker_that_ends_by_itself_is_an_error_with_its_log(place: Place) -> None:
    process = start(place, "--workers", "1")
    workers = [p for p in place.processes() if "worker" in p.cmdline()]
    assert workers
    for worker in workers:
        worker.kill()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1, out
    place.wait_until_empty(2)
