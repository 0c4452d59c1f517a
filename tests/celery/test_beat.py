"""Beat: periodic tasks, from a process of its own and from inside a worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.celery.exam import Exam

SETTINGS = {
    "beat_schedule": {
        "often": {"task": "record", "schedule": 0.5, "args": ["beat", "often"]},
        "expiring": {
            "task": "record",
            "schedule": 1.0,
            "args": ["beat", "expiring"],
            "options": {"expires": 30, "priority": 3},
        },
    },
    "beat_max_loop_interval": 1,
}


@pytest.mark.parametrize("embedded", [True, False], ids=["worker -B", "celery beat"])
def test_a_short_schedule(exam: Exam, tmp_path: Path, embedded: bool) -> None:
    schedule = ("-s", str(tmp_path / "schedule"))
    options = ("-B", *schedule) if embedded else ()
    with exam.worker(pool="prefork", options=options, settings=SETTINGS) as worker:
        if embedded:
            ended = exam.wait_ended("beat", 8)
            assert worker.stop() == 0
        else:
            with exam.worker(command="beat", options=schedule, settings=SETTINGS) as beat:
                ended = exam.wait_ended("beat", 8)
                assert beat.running and worker.running
    assert set(ended.values()) == {1}
    assert set(exam.counts("beat").values()) == {1}
    starts = {name: [] for name in ("often", "expiring")}
    for run in exam.log("beat", "start"):
        starts[run["value"]].append(run["at"])
    assert len(starts["often"]) > len(starts["expiring"]) >= 2
    # Eight runs at three in a second: far faster would mean that something doubles them.
    assert starts["often"][-1] - starts["often"][0] >= 0.4 * (len(starts["often"]) - 1)
