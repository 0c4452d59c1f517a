"""What other processes do in these tests."""

from __future__ import annotations

import os
import time
from typing import Any

from phonon_kombu.thoonk import Empty, Thoonk


def put_stamps(url: str, feed: str, kind: str, count: int, pause_seconds: float) -> None:
    """Put `count` items that say when they were put, with pauses between them."""
    with Thoonk(url) as session:
        target: Any = getattr(session, kind)(feed)
        for _ in range(count):
            time.sleep(pause_seconds)  # the consumer is to be waiting again
            target.put(repr(time.time()))


def put_many(url: str, feed: str, name: str, count: int) -> None:
    """Put `count` jobs with ids and items of their own."""
    with Thoonk(url) as session:
        job = session.job(feed)
        for number in range(count):
            job.put(f"item {name}.{number}", id=f"{name}.{number}")


def work(url: str, feed: str, until: int) -> list[tuple[str, str]]:
    """Claim and finish until the feed has finished `until` jobs; what was done, in order."""
    done = []
    with Thoonk(url) as session:
        job = session.job(feed)
        while True:
            try:
                claimed = job.get(timeout=0.5)
            except Empty:
                if job.stats().finishes >= until:
                    return done
                continue
            done.append((claimed.id, claimed.item))
            job.finish(claimed.id)


def answer(url: str, feed: str, result: str, pause_seconds: float) -> int:
    """Claim a job, work on it for so long and finish it with a result; this process's id."""
    with Thoonk(url) as session:
        job = session.job(feed)
        claimed = job.get(timeout=10)
        time.sleep(pause_seconds)
        job.finish(claimed.id, result, result=True)
    return os.getpid()


def wait_for_result(url: str, feed: str, job_id: str) -> tuple[str, str]:
    """What `get_result` gives in another process."""
    with Thoonk(url) as session:
        query, result = session.job(feed).get_result(job_id, timeout=10)
        return query, result


def take(url: str, feed: str, until: int) -> list[str]:
    """Take items of a queue until there are none and `until` have been put."""
    taken: list[str] = []
    with Thoonk(url) as session:
        queue = session.queue(feed)
        while True:
            try:
                taken.append(queue.get(timeout=0.5))
            except Empty:
                if int(session.link.command(b"GET", queue.keys.publishes) or 0) >= until:
                    return taken


def put_items(url: str, feed: str, name: str, count: int) -> None:
    """Put `count` items into a queue."""
    with Thoonk(url) as session:
        queue = session.queue(feed)
        for number in range(count):
            queue.put(f"{name}.{number}")


def claim_and_die(url: str, feed: str) -> None:
    """Claim a job and end at once, closing nothing."""
    Thoonk(url).job(feed).get(timeout=10)
    os._exit(9)
