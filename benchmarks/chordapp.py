"""The Celery application of the chord benchmarks: broker and results on the same server.

``PHONON_BENCH_BROKER`` and ``PHONON_BENCH_BACKEND`` name them; with ``PHONON_BENCH_ACKS_LATE`` set
to ``1`` tasks are acknowledged after they ran.
"""

from __future__ import annotations

import os
import random
import string
from typing import Any

from celery import Celery

app = Celery(
    "benchmarks.chordapp",
    broker=os.environ.get("PHONON_BENCH_BROKER", "memory://"),
    backend=os.environ.get("PHONON_BENCH_BACKEND"),
)
app.conf.broker_connection_retry_on_startup = True
app.conf.task_acks_late = os.environ.get("PHONON_BENCH_ACKS_LATE") == "1"

BLOB_BYTES = 10_240


@app.task
def part(number: int) -> int:
    """A small part."""
    return number


@app.task
def blob(number: int) -> str:
    """A part of 10 KB, which no compression makes small."""
    return "".join(random.choices(string.ascii_letters, k=BLOB_BYTES))


@app.task
def blob_size(number: int) -> int:
    """The same work, of which only a number is wanted."""
    return len(blob(number))


@app.task
def total(values: Any) -> int:
    """A body: how many parts there were."""
    return len(values)
