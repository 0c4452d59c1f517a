"""The Celery application of the benchmark: one task that does nothing but leave its mark.

Everything is Celery's default except what the environment names:

``PHONON_BENCH_BROKER``     broker URL
``PHONON_BENCH_ACKS_LATE``  ``1``: tasks are acknowledged after they ran
``PHONON_BENCH_MARKS``      path of the file of marks (see ``benchmarks.marks``)
``PHONON_BENCH_READY``      path of a file to create once the worker is ready
``PHONON_BENCH_CPROFILE``   path for a cProfile dump of the worker's main thread
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery, signals

from benchmarks.marks import Marks

TASK_NAME = "benchmarks.app.noop"

app = Celery("benchmarks", broker=os.environ.get("PHONON_BENCH_BROKER", "memory://"))
app.conf.task_acks_late = os.environ.get("PHONON_BENCH_ACKS_LATE") == "1"
app.conf.broker_connection_retry_on_startup = True

_marks_path = os.environ.get("PHONON_BENCH_MARKS")
# Mapped before the pool forks, so that all processes of the worker share one mapping.
_marks = Marks(_marks_path) if _marks_path else None


@app.task(name=TASK_NAME, ignore_result=True)
def noop(number: int, padding: str) -> None:
    """Record that task `number` ran; nothing else."""
    if _marks is not None:
        _marks.set(number)


@signals.worker_ready.connect
def _on_ready(**_: Any) -> None:
    path = os.environ.get("PHONON_BENCH_READY")
    if path:
        Path(path).touch()
    profile_path = os.environ.get("PHONON_BENCH_CPROFILE")
    if profile_path:
        import cProfile

        profile = cProfile.Profile()

        def dump(**_: Any) -> None:
            profile.disable()
            profile.dump_stats(profile_path)

        signals.worker_shutting_down.connect(dump, weak=False)
        profile.enable()
