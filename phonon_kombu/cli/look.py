"""``status``, ``jobs`` and ``show``: the commands that change nothing."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from kombu.compression import decompress

from . import frame
from . import printing as out

if TYPE_CHECKING:
    from ..control import JobInfo

#: How much of a message's body is printed, bytes.
BODY_BYTES = 10_000


@click.command()
@click.argument("queues", nargs=-1, metavar="[QUEUE]...")
@click.option(
    "--all", "internal", is_flag=True, help="Also the queues that workers use for control."
)
@frame.as_json
@click.pass_context
def status(ctx: click.Context, queues: tuple[str, ...], internal: bool, as_json: bool) -> None:
    """Count the jobs of each queue, and list the workers.

    OLDEST is the age of the oldest job that is not stalled.
    """
    from ..control.queues import is_internal

    with frame.operating(ctx) as operator:
        found = operator.status(*dict.fromkeys(queues), internal=internal)
        nodes = operator.nodes()
    if as_json:
        out.as_json(
            {"queues": [asdict(one) for one in found], "workers": [asdict(one) for one in nodes]}
        )
        return
    if found:
        out.table(
            [
                out.Column("queue"), out.Column("ready", True), out.Column("scheduled", True),
                out.Column("claimed", True), out.Column("stalled", True),
                out.Column("oldest", True), out.Column(""),
            ],
            [
                (
                    one.name, f"{one.ready:,}", f"{one.scheduled:,}", f"{one.claimed:,}",
                    f"{one.stalled:,}", out.duration(one.oldest_seconds),
                    "paused" if one.paused else "",
                )
                for one in found
            ],
        )  # fmt: skip
    else:
        click.echo("There are no queues.")
    click.echo()
    if nodes:
        out.table(
            [
                out.Column("worker"), out.Column("pid", True), out.Column("up", True),
                out.Column("last beat", True), out.Column("queues"),
            ],
            [
                (
                    one.host, one.pid,
                    out.duration(None if one.since is None else max(0.0, now - one.since)),
                    "dead" if one.beat_seconds is None else out.duration(one.beat_seconds),
                    ", ".join(q for q in one.queues if internal or not is_internal(q)),
                )
                for now in [_now()]
                for one in nodes
            ],
        )  # fmt: skip
    else:
        click.echo("No worker takes jobs.")


@click.command()
@frame.which
@click.option(
    "-n", "--limit", type=click.IntRange(1, 200), default=20, show_default=True,
    help="How many jobs at the most.",
)  # fmt: skip
@click.option("--cursor", help="Go on where the listing before has ended.")
@frame.as_json
@click.pass_context
def jobs(
    ctx: click.Context,
    queue: str | None,
    state: str | None,
    task: str | None,
    older_than: float | None,
    limit: int,
    cursor: str | None,
    as_json: bool,
) -> None:
    """List jobs by queue and state, the oldest first.

    Queue by queue, and of each the claimed ones before the ready, scheduled and stalled ones.
    Scheduled ones come in the order of their time, stalled ones in none. Jobs that were put in the
    same millisecond come in the order of their ids.
    """
    with frame.operating(ctx) as operator:
        page = operator.page(queue, state, task, older_than, limit, cursor)
        now = operator.clock()
    if as_json:
        out.as_json({"jobs": [job.as_dict() for job in page.jobs], "cursor": page.cursor})
        return
    if page.jobs:
        several = len({job.queue for job in page.jobs}) > 1
        out.table(
            [
                out.Column("id", whole=True), out.Column("state", whole=True),
                out.Column("age", True, True), out.Column("task"),
                *([out.Column("queue")] if several else []), out.Column("note"),
            ],
            [
                (
                    job.id, job.state, out.duration(job.age_seconds), job.task,
                    *([job.queue] if several else []), note(job, now),
                )
                for job in page.jobs
            ],
        )  # fmt: skip
    elif page.cursor is None:
        click.echo("There are no such jobs.")
    if page.cursor is not None:
        click.echo(f"There may be more: --cursor {page.cursor}", err=True)


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("-Q", "--queue", help="Look only into this queue.")
@click.option("--body", is_flag=True, help="Print the message's body too.")
@frame.as_json
@click.pass_context
def show(
    ctx: click.Context, ids: tuple[str, ...], queue: str | None, body: bool, as_json: bool
) -> None:
    """Tell all about the jobs of a task.

    Its queue, its state and since when, who has it, why it is stalled. There are several jobs if
    the task was published again while it was there, as a retry is.
    """
    from ..errors import NotFound

    missing = []
    shown: list[tuple[JobInfo, str | None]] = []
    with frame.operating(ctx) as operator:
        if queue is not None:
            operator.status(queue)
        for task_id, found in operator.find_many(ids, queue).items():
            before = len(shown)
            for job in found:
                with suppress(NotFound):  # it has gone since
                    shown.append((job, body_of(operator.item(job)) if body else None))
            if len(shown) == before:
                missing.append(task_id)
        now = operator.clock()
    if as_json:
        out.as_json(
            [job.as_dict() | ({} if text is None else {"body": text}) for job, text in shown]
        )
    else:
        for number, (job, text) in enumerate(shown):
            if number:
                click.echo()
            out.facts([*facts_of(job, now), ("body", text)])
    if missing:
        names = ", ".join(map(out.printable, missing))
        raise frame.Refused(
            f"no job of task {names} is there: it has not been published here, is done, was "
            "deleted or has expired",
            "NotFound",
        )


def note(job: JobInfo, now: float) -> str:
    """What is worth knowing of a job in its state."""
    words = []
    if job.state == "claimed":
        words.append(f"{holder(job)}, {out.duration(now - (job.claimed_at or now))}")
    elif job.state == "scheduled" and job.due_at is not None:
        words.append(f"due in {out.duration(job.due_at - now)}" if job.due_at > now else "due now")
    elif job.state == "stalled":
        words.append(job.reason or "")
    if job.failures:
        words.append(f"failed {job.failures}x")
    if job.priority:
        words.append(f"priority {job.priority}")
    return ", ".join(word for word in words if word)


def holder(job: JobInfo) -> str | None:
    """Who has a job."""
    if job.state != "claimed":
        return None
    if job.host is None:
        return job.owner or "unknown"
    gone = "" if job.owner_lives else " (dead)"
    return f"pid {job.pid} on {job.host}{gone}"


def facts_of(job: JobInfo, now: float) -> list[tuple[str, Any]]:
    """All that is known of a job, as names and values."""
    return [
        ("id", job.id),
        ("task", job.task),
        ("args", job.args),
        ("kwargs", job.kwargs if job.kwargs != "{}" else None),
        ("queue", job.queue),
        ("state", job.state),
        ("reason", job.reason),
        ("put", out.moment(job.put_at, now)),
        ("claimed", out.moment(job.claimed_at, now)),
        ("by", holder(job)),
        ("due", out.moment(job.due_at, now)),
        ("expires", out.moment(job.expires_at, now)),
        # Of a stalled one they are not kept: its reason says how many there were.
        ("failures", None if job.state == "stalled" else job.failures),
        ("retries", job.retries or None),
        ("priority", job.priority or None),
        ("published by", job.headers.get("origin")),
        ("parent", job.headers.get("parent_id")),
        ("group", job.headers.get("group")),
        ("size", f"{job.size_bytes:,} bytes"),
    ]


def body_of(item: bytes) -> str:
    """The body in a message, as text, decompressed if need be; cut if it is long."""
    head, newline, body = item.partition(b"\n")
    with suppress(Exception):  # what cannot be read is shown as it is
        how = json.loads(head)["headers"]["compression"]
        body = decompress(body, how)
    text = (body if newline else head)[:BODY_BYTES].decode("utf-8", "backslashreplace")
    return text + (" ..." if len(body) > BODY_BYTES else "")


def _now() -> float:
    import time

    return time.time()
