"""One run of the demo, from starting the server to stopping everything again."""

from __future__ import annotations

import contextlib
import platform
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from kombu.utils.url import maybe_sanitize_url

from ..errors import PhononError
from ..store.embedded import EmbeddedServer
from .app import TASK, make_app
from .chord import Stage, run_chord
from .display import Display, Progress
from .kill import MIDDLE, Reaper
from .ledger import Ledger
from .report import Options, Report
from .sources import library_files
from .workers import Worker, check_running, kill_all, stop_all

READY_SECONDS = 60.0
#: Tasks that have not run after so long without any other finishing either are lost.
PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.05
SENT_BETWEEN_LOOKS = 50


def run(options: Options, display: Display) -> Report:
    """Start server and workers, send the tasks, count what came of them, stop everything.

    Raises :class:`~phonon_kombu.errors.PhononError` if the server or a worker does not start.
    Leaves no process behind, whether it returns, raises or is interrupted.
    """
    files = library_files()[: options.limit]
    with contextlib.ExitStack() as stack:
        stack.enter_context(_terminated_like_ctrl_c())
        broker, server = stack.enter_context(_server(options.broker))
        run_id = uuid4().hex[:8]
        ledger = Ledger(broker, run_id)
        stack.callback(ledger.close)
        stack.callback(ledger.clear)
        app = make_app(broker, run_id)
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phonon-demo-")))
        display.say(
            f"{server}. Starting {_plural(options.workers, 'Celery worker')} "
            f"with {_plural(options.concurrency, 'process', 'processes')} each."
        )
        workers: list[Worker] = []
        try:

            def start_worker() -> Worker:
                name = f"demo{len(workers) + 1}@{run_id}"
                workers.append(Worker(name, broker, run_id, options.concurrency, logs))
                return workers[-1]

            alive = [start_worker() for _ in range(options.workers)]
            _wait_until_ready(alive, ledger)
            display.say(
                f"One task for each of {_plural(len(files), 'source file')} "
                f"of Python {platform.python_version()}."
            )
            started = time.monotonic()
            reaper = None
            if options.kill and options.workers > 1:
                ours = broker if broker.startswith("phonon") else None
                reaper = Reaper(ours, app.conf.task_default_queue, alive)
                stack.callback(reaper.close)
            with display.progress(len(files), "files") as progress:
                watch = Watch(alive, ledger, progress, display, reaper)
                sent = _send_and_watch(app, files, watch)
            seconds = time.monotonic() - started
            chord = None
            if app.conf.result_backend:
                while len(alive) < options.workers:
                    alive.append(start_worker())
                _wait_until_ready(alive, ledger)
                display.say("Now one chord of them all. Redis folds what its parts return.")
                kill = options.kill and options.workers > 1
                chord = run_chord(
                    Stage(app, broker, ledger, alive, display, kill, PATIENCE_SECONDS), files
                )
            stop_all(workers)
        except BaseException:
            if "+embedded://" in options.broker:
                kill_all(workers)
            else:  # the user's own server: leave no unacknowledged message in it
                stop_all(workers)
                _discard_queue(app)
            raise
        # Only now: what a worker took back at its end, or ran a second time, is there to be seen.
        accident = reaper.accident if reaper is not None else None
        in_hand = (accident.in_hand if accident is not None else None) or set()
        outcome = ledger.outcome(sent, in_hand)
        left = _discard_queue(app)
        return Report(outcome, left, seconds, options, server, accident, chord)


@dataclass(frozen=True)
class Watch:
    """What is watched while the tasks run, and where it is shown."""

    #: The workers that should be running.
    workers: list[Worker]
    ledger: Ledger
    progress: Progress
    display: Display
    reaper: Reaper | None

    def accident(self, done: int, total: int) -> None:
        """In the middle kill a worker; then say when its tasks are back."""
        if self.reaper is None:
            return
        if self.reaper.accident is None:
            if done >= total * MIDDLE:
                killed = self.reaper.strike()
                if killed is not None:
                    held = killed.in_hand
                    hand = "" if held is None else f" with {_plural(len(held), 'task')} in hand"
                    self.display.say(f"Killed worker {killed.worker}{hand} (SIGKILL).")
        elif self.reaper.look():
            seconds = self.reaper.accident.back_seconds
            self.display.say(f"Its tasks are back in the queue after {seconds:.1f} s.")


def _send_and_watch(app: Any, files: list[Path], watch: Watch) -> list[str]:
    """Send one task a file, wait until all have run or nothing moves; return the task ids."""
    sent: list[str] = []
    with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
        for path in files:
            task_id = uuid4().hex
            app.send_task(TASK, (str(path),), task_id=task_id, producer=producer)
            sent.append(task_id)
            if len(sent) % SENT_BETWEEN_LOOKS == 0:
                watch.progress.update(len(sent), watch.ledger.finished())
    done, moved_at = -1, time.monotonic()
    while done < len(sent) and time.monotonic() - moved_at < PATIENCE_SECONDS:
        now_done = watch.ledger.finished()
        watch.accident(now_done, len(sent))
        if now_done != done:
            done, moved_at = now_done, time.monotonic()
        else:
            check_running(watch.workers)
            time.sleep(POLL_SECONDS)
        watch.progress.update(len(sent), done)
    return sent


def _wait_until_ready(workers: list[Worker], ledger: Ledger) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while ledger.signed_in() < {worker.name for worker in workers}:
        check_running(workers)
        if time.monotonic() > deadline:
            missing = next(w for w in workers if w.name not in ledger.signed_in())
            raise PhononError(
                f"worker {missing.name} was not ready after {READY_SECONDS:.0f} seconds:\n"
                f"{missing.log_tail()}"
            )
        time.sleep(POLL_SECONDS)


def _discard_queue(app: Any) -> int:
    """Delete the demo's queue; return how many messages were still in it."""
    with app.connection_for_write() as connection:
        queue = app.amqp.queues[app.conf.task_default_queue](connection.default_channel)
        try:
            left = int(queue.queue_declare(passive=True).message_count)
        except connection.channel_errors:
            return 0  # with kombu's own transport an empty queue does not exist
        queue.delete()
    return left


@contextlib.contextmanager
def _server(broker: str) -> Iterator[tuple[str, str]]:
    """The broker's URL and a name for people; an embedded one is started here and stopped."""
    if "+embedded://" not in broker:
        yield broker, f"Server {maybe_sanitize_url(broker)}"
        return
    scheme, _, directory = broker.partition("+embedded://")
    # Without a directory, a server of its own: the demo must not meet a project's tasks.
    server = EmbeddedServer(directory or None, temporary=not directory)
    with server:
        yield server.address.url(scheme), f"Embedded {server.address.server}"


@contextlib.contextmanager
def _terminated_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the demo in the order in which Ctrl-C does."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {s: signal.signal(s, interrupt) for s in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _plural(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
