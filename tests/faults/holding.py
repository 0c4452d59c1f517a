"""Who holds what, and the state in which nobody holds anything."""

from __future__ import annotations

import json
from collections import Counter

from tests.celery.exam import Exam
from tests.celery.workers import Worker
from tests.servers import wait_for

__all__ = ["assert_none_lost", "held_by", "holders", "wait_settled"]


def holders(exam: Exam) -> dict[str, int]:
    """Return node -> how many jobs of the queue it holds."""
    owners = exam.broker_server.client(exam.broker_db).hvals("feed.owners:{exam}")
    nodes = [owner.decode().partition(".")[0] for owner in owners]
    return {node: nodes.count(node) for node in nodes}


def held_by(exam: Exam, worker: Worker) -> set[str]:
    """Return the ids of the jobs of the queue that `worker`'s main process holds."""
    client = exam.broker_server.client(exam.broker_db)
    about = client.hgetall("node.about:{nodes}")
    node = next(n for n, text in about.items() if json.loads(text)["pid"] == worker.pid)
    owners = client.hgetall("feed.owners:{exam}")
    return {job.decode() for job, owner in owners.items() if owner.startswith(node + b".")}


def wait_settled(exam: Exam) -> None:
    """Wait until no job of the queue is ready or held: the last acknowledgement was heard too."""
    wait_for(
        lambda: holders(exam) == {} and exam.queue_size() == 0,
        timeout_seconds=20,
        message="jobs are left over",
    )


def assert_none_lost(exam: Exam, tag: str, ids: list[str]) -> Counter[str]:
    """Assert that each of these tasks has run to its end, and that none ran again which was not
    delivered again; print the figures. Returns how often each ran to its end."""
    ended, started = exam.counts(tag, "end"), exam.log(tag, "start")
    redelivered = {run["id"] for run in started if run["redelivered"]}
    twice = {job for job, runs in ended.items() if runs > 1}
    print(
        f"{len(ids)} tasks: lost {len(set(ids) - set(ended))}, redelivered {len(redelivered)}, "
        f"ran to the end more than once {len(twice)}"
    )
    assert set(ended) == set(ids)
    assert twice <= redelivered
    return ended
