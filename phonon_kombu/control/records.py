"""What an operator sees: queues, jobs, processes, and what became of an operation.

Times are seconds of the epoch by the server's clock. What a message says of itself, its task, its
arguments, was written by its publisher: text to be shown, and not to be trusted.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field, fields
from typing import Any, TypeGuard

from ..thoonk import Description
from ..transport import codec

#: How a task's further jobs are numbered while the first is there (``include/accept.lua``).
_NUMBERED = re.compile(r"~(?:[0-9]{1,2}|[0-9a-f]{40})\Z")


@dataclass(frozen=True)
class QueueStatus:
    """How many jobs of a queue are in each state."""

    name: str
    ready: int
    scheduled: int
    claimed: int
    stalled: int
    #: Age of the oldest job that is not stalled, seconds; None if there is none.
    oldest_seconds: float | None
    paused: bool
    #: How many were ever put and finished.
    publishes: int
    finishes: int


@dataclass(frozen=True)
class Node:
    """A process that takes jobs."""

    id: str
    host: str | None
    pid: int | None
    #: When it joined.
    since: float | None
    #: Seconds since its last beat; None for one that is dead: what it held is given back by those
    #: that live, or by the next one that starts.
    beat_seconds: float | None
    #: Queues of which it has taken jobs.
    queues: tuple[str, ...]


@dataclass(frozen=True)
class JobInfo:
    """A job of a queue."""

    #: The name of the job in its queue: the task's id, or that with a number.
    id: str
    #: The task's id.
    task_id: str
    queue: str
    #: ``ready``, ``scheduled``, ``claimed`` or ``stalled``.
    state: str
    #: The task's name; None if the message does not say.
    task: str | None
    #: The arguments as the publisher has shortened them; None if the message does not say.
    args: str | None
    kwargs: str | None
    #: When it was put into the queue; not known of a stalled one.
    put_at: float | None
    claimed_at: float | None
    due_at: float | None
    expires_at: float | None
    #: Seconds since it was put.
    age_seconds: float | None
    #: Failed deliveries: its worker died or gave it back. 0 of a stalled one, whose count begins
    #: anew with :meth:`Operator.retry`; its reason says how often it failed.
    failures: int
    #: Whether it was handed to a worker before.
    redelivered: bool
    #: Celery's count of its retries.
    retries: int
    #: 0 to 9: its level. 0 is taken first, unless ``priority_order`` says otherwise.
    priority: int
    #: Why it is stalled.
    reason: str | None
    #: Who holds it: a node and a number; None if it is not claimed or nobody says.
    owner: str | None
    #: Where the owner runs; None if that is not known.
    host: str | None
    pid: int | None
    #: Whether the owner lives; None if there is none, or nothing is known of it.
    owner_lives: bool | None
    size_bytes: int
    #: The message's headers; empty if they cannot be read.
    headers: dict[str, Any] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        # (Not `asdict`: it copies the headers, however deep they are.)
        return {one.name: getattr(self, one.name) for one in fields(self)}


@dataclass(frozen=True)
class Page:
    """Some jobs, and where the next page begins."""

    jobs: list[JobInfo]
    #: For the next call; None if this was the last page.
    cursor: str | None


@dataclass(frozen=True)
class Refusal:
    """An operation that was refused for one job."""

    id: str
    #: None where no queue has the job.
    queue: str | None
    #: The error's name and text: ``NotStalled``, ...
    error: str
    text: str


@dataclass
class Outcome:
    """What became of an operation on several jobs."""

    #: How many jobs it was done to.
    done: int = 0
    #: The first thousand of them: ``(queue, id)``.
    jobs: list[tuple[str, str]] = field(default_factory=list)
    #: How many refused it: they had changed their state, or were gone.
    refused: int = 0
    #: The first thousand of them.
    refusals: list[Refusal] = field(default_factory=list)
    #: How many were so already (stalled ones, told to stall: they keep their reason).
    already: int = 0
    #: The first thousand of them: ``(queue, id)``.
    already_jobs: list[tuple[str, str]] = field(default_factory=list)

    #: How many are kept by name.
    KEPT = 1000

    def add(self, queue: str, job_id: str) -> None:
        """It was done to this one."""
        self.done += 1
        if len(self.jobs) < self.KEPT:
            self.jobs.append((queue, job_id))

    def was(self, queue: str, job_id: str) -> None:
        """It was so with this one before."""
        self.already += 1
        if len(self.already_jobs) < self.KEPT:
            self.already_jobs.append((queue, job_id))

    def refuse(self, refusal: Refusal) -> None:
        """It was not done to this one."""
        self.refused += 1
        if len(self.refusals) < self.KEPT:
            self.refusals.append(refusal)


def job_info(
    queue: str, found: Description, now: float, node: Node | None, lives: bool | None
) -> JobInfo:
    """A described job as an operator sees it; `node` is its owner's process, if known."""
    headers = headers_of(found.head)
    task_id = headers.get("id")
    if not isinstance(task_id, str) or not found.id.startswith(job_name(task_id)):
        task_id = _NUMBERED.sub("", found.id)
    retries = headers.get("retries")
    return JobInfo(
        id=found.id,
        task_id=task_id,
        queue=queue,
        state=found.state,
        task=_text(headers.get("task")),
        args=_text(headers.get("argsrepr")),
        kwargs=_text(headers.get("kwargsrepr")),
        put_at=found.put_at,
        claimed_at=found.claimed_at,
        due_at=found.due_at,
        expires_at=found.expires_at,
        age_seconds=None if found.put_at is None else max(0.0, now - found.put_at),
        failures=found.failures or 0,
        redelivered=found.failures is not None,
        retries=retries if isinstance(retries, int) else 0,
        priority=found.level,
        reason=found.reason,
        owner=found.owner,
        host=node.host if node else None,
        pid=node.pid if node else None,
        owner_lives=lives,
        size_bytes=found.size_bytes,
        headers=headers,
    )


def job_name(task_id: str) -> str:
    """The id of a task's first job; of a task that is published again the others begin with it."""
    return task_id if len(task_id) <= codec.LONGEST_ID else codec.job_id_of(task_id).decode()


def headers_of(head: bytes) -> dict[str, Any]:
    """The headers in a message's envelope; none if it cannot be read."""
    try:
        envelope = json.loads(head)
    except (ValueError, RecursionError):
        return {}
    headers = envelope.get("headers") if isinstance(envelope, dict) else None
    return headers if isinstance(headers, dict) else {}


def node_of(
    node_id: str, about: bytes | None, beat_seconds: float | None, ttl_seconds: float
) -> Node:
    """A node from what it says about itself, and from how long ago it last beat.

    The last worker that dies is judged by nobody: its last beat stays, older than `ttl_seconds`, or
    than the ``node_ttl`` of its own, if it has said one.
    """
    try:
        said = json.loads(about or b"{}")
    except (ValueError, RecursionError):
        said = {}
    said = said if isinstance(said, dict) else {}
    pid, since = said.get("pid"), said.get("since")
    own = said.get("node_ttl")
    ttl_seconds = own if _is_time(own) else ttl_seconds
    if beat_seconds is not None and beat_seconds > ttl_seconds:
        beat_seconds = None
    return Node(
        node_id,
        _text(said.get("host")),
        pid if isinstance(pid, int) else None,
        float(since) if isinstance(since, int | float) else None,
        beat_seconds,
        (),
    )


def _is_time(value: Any) -> TypeGuard[float]:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value > 0
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
