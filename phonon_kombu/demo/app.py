"""The Celery application of the demo, on both sides: the command sends, its workers run."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import Any

from celery import Celery, signals

from .ledger import Ledger
from .sources import count_file, measure_file

BROKER_VARIABLE = "PHONON_DEMO_BROKER"
RUN_VARIABLE = "PHONON_DEMO_RUN"
NAME_VARIABLE = "PHONON_DEMO_WORKER"
LIFELINE_VARIABLE = "PHONON_DEMO_LIFELINE"
TASK = "phonon_kombu.demo.count"
PART = "phonon_kombu.demo.measure"
BODY = "phonon_kombu.demo.report"
LAST_WORDS_SECONDS = 5.0

_ledgers: dict[int, Ledger] = {}


def make_app(broker: str, run: str) -> Celery:
    """An application whose tasks travel through a queue of this run's own."""
    # Kombu's own transport comes without a result backend: nothing there is of ours.
    backend = broker if broker.startswith("phonon") else None
    app = Celery("phonon-demo", broker=broker, backend=backend, set_as_current=False)
    app.conf.update(
        task_default_queue=f"phonon-demo-{run}",
        # One exchange for all runs: something of an exchange stays in Redis when it is deleted.
        task_default_exchange="phonon-demo",
        task_default_routing_key=f"phonon-demo-{run}",
        task_ignore_result=True,
        # A task counts as done when it has run, not when it was fetched.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        broker_connection_retry_on_startup=True,
        worker_hijack_root_logger=False,
    )

    @app.task(name=TASK, bind=True, shared=False)
    def count(self: Any, path: str) -> None:
        found = count_file(path)
        _ledger(broker, run).record(self.request.id, found)

    @app.task(name=PART, shared=False)
    def measure(path: str) -> dict[str, Any]:
        return measure_file(path)

    @app.task(name=BODY, bind=True, shared=False)
    def report(self: Any, aggregate: dict[str, Any]) -> None:
        _ledger(broker, run).record_body(self.request.hostname, aggregate)

    return app


def _ledger(broker: str, run: str) -> Ledger:
    """This process's connection to the ledger: one for the worker, one for each of its children."""
    pid = os.getpid()
    if pid not in _ledgers:
        _ledgers[pid] = Ledger(broker, run)
    return _ledgers[pid]


def _end_with_the_demo(fd: int) -> None:
    """End this worker when the other end of the pipe closes: the demo was killed outright."""
    os.read(fd, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST_WORDS_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(0, signal.SIGKILL)


def _die_closing(app: Celery, broker: str, run: str, worker: str) -> None:
    """Have this worker killed, pool and all, as soon as one of its processes begins to close the
    chord, and has not published anything yet: if the demo wants that, and only once."""
    close_chord = app.backend.close_chord

    def dying(*args: Any) -> None:
        if _ledger(broker, run).is_doomed(worker):
            os.killpg(0, signal.SIGKILL)
        close_chord(*args)

    app.backend.close_chord = dying


def _worker_app() -> Celery:
    broker, run = os.environ[BROKER_VARIABLE], os.environ[RUN_VARIABLE]
    app = make_app(broker, run)
    name, fd = os.environ[NAME_VARIABLE], int(os.environ[LIFELINE_VARIABLE])

    @signals.worker_init.connect(weak=False)
    def hold_the_lifeline(**_: Any) -> None:
        threading.Thread(target=_end_with_the_demo, args=(fd,), daemon=True).start()

    @signals.worker_ready.connect(weak=False)
    def sign_in(sender: Any, **_: Any) -> None:
        _ledger(broker, run).sign_in(sender.hostname)

    if app.conf.result_backend:
        # In the main process, too: it takes over from a child that the machine has kept waiting.
        @signals.worker_init.connect(weak=False)
        @signals.worker_process_init.connect(weak=False)
        def be_mortal(**_: Any) -> None:
            if "close_chord" not in vars(app.backend):
                _die_closing(app, broker, run, name)

    return app


# Only a worker that the demo started finds its broker in the environment.
if RUN_VARIABLE in os.environ:
    app = _worker_app()
