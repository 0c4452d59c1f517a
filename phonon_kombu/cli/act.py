"""``stall``, ``retry``, ``cancel``, ``retract``, ``pause``, ``resume``: the commands that act."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import click

from . import frame
from . import printing as out

if TYPE_CHECKING:
    from ..control import Operator, Outcome

#: Jobs that are counted before a question; of more it is said that there are more.
COUNTED = 10_000

F = TypeVar("F", bound=Callable[..., Any])


def _chosen(function: F) -> F:
    """Jobs by their ids, or by what they are."""
    wrapped = frame.which(frame.as_json(function))
    return click.argument("ids", nargs=-1, metavar="[ID]...")(wrapped)


def _sure(function: F) -> F:
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(function)


@click.command()
@_chosen
@click.option("-r", "--reason", default="stalled by an operator", help="Why; it is kept and shown.")
@click.pass_context
def stall(
    ctx: click.Context, /, ids: tuple[str, ...], reason: str, as_json: bool, **where: Any
) -> None:
    """Set jobs aside: no worker takes them until `retry`.

    One that is stalled already keeps its reason. A task that runs already runs to its end; its job
    stays. Without IDs and --state claimed jobs are left alone.
    """
    with frame.operating(ctx) as operator:
        outcome = operator.stall(*ids, reason=reason, **_where(where))
    _tell(outcome, "stalled", as_json)


@click.command()
@_chosen
@click.pass_context
def retry(ctx: click.Context, /, ids: tuple[str, ...], as_json: bool, **where: Any) -> None:
    """Let stalled jobs run again, as if they had never failed."""
    with frame.operating(ctx) as operator:
        outcome = operator.retry(*ids, **_where(where))
    _tell(outcome, "ready again", as_json)


@click.command()
@_chosen
@click.option("--delay", callback=frame.duration, metavar="TIME", help="Not before so long.")
@_sure
@click.pass_context
def cancel(
    ctx: click.Context,
    /,
    ids: tuple[str, ...],
    delay: float | None,
    yes: bool,
    as_json: bool,
    **where: Any,
) -> None:
    """Take claimed jobs from their workers and put them back in front.

    The worker is not stopped: a task that it runs runs twice. For workers that hang; the jobs of
    dead ones come back by themselves.
    """
    with frame.operating(ctx) as operator:
        if not yes:
            claimed, warning = ("claimed",), "Those that run will run twice."
            _ask(operator, ids, where, claimed, claimed, "Put back", warning)
        outcome = operator.cancel(*ids, delay_seconds=delay, **_where(where))
    _tell(outcome, "put back", as_json)


@click.command()
@_chosen
@_sure
@click.pass_context
def retract(
    ctx: click.Context, /, ids: tuple[str, ...], yes: bool, as_json: bool, **where: Any
) -> None:
    """Delete jobs for good: they never run.

    A task that runs already runs to its end. Without IDs and --state claimed jobs are left alone.
    No result is stored: whoever waits for one waits on. (app.control.revoke tells them.)
    """
    with frame.operating(ctx) as operator:
        if not yes:
            usual = ("ready", "scheduled", "stalled")
            _ask(operator, ids, where, frame.STATES, usual, "Delete", "This cannot be undone.")
        outcome = operator.retract(*ids, **_where(where))
    _tell(outcome, "deleted", as_json)


@click.command()
@click.argument("queues", nargs=-1, required=True, metavar="QUEUE...")
@frame.as_json
@click.pass_context
def pause(ctx: click.Context, queues: tuple[str, ...], as_json: bool) -> None:
    """Let no worker take jobs of a queue until `resume`. What runs, runs to its end."""
    _switch(ctx, queues, as_json, "pause", "is paused", "was paused already")


@click.command()
@click.argument("queues", nargs=-1, required=True, metavar="QUEUE...")
@frame.as_json
@click.pass_context
def resume(ctx: click.Context, queues: tuple[str, ...], as_json: bool) -> None:
    """Let workers take jobs of a paused queue again."""
    _switch(ctx, queues, as_json, "resume", "goes on", "was not paused")


def _switch(
    ctx: click.Context, queues: tuple[str, ...], as_json: bool, act: str, done: str, no_need: str
) -> None:
    with frame.operating(ctx) as operator:
        operator.status(*queues)  # all or none
        changed = {name: getattr(operator, act)(name) for name in dict.fromkeys(queues)}
    if as_json:
        out.as_json([{"queue": name, "changed": new} for name, new in changed.items()])
        return
    for name, new in changed.items():
        click.echo(f"Queue {out.printable(name)} {done if new else no_need}.")


def _where(options: dict[str, Any]) -> dict[str, Any]:
    """The options of :func:`.frame.which` as an operator's arguments."""
    return {
        "queue": options["queue"],
        "state": options["state"],
        "task": options["task"],
        "older_than_seconds": options["older_than"],
    }


def _ask(
    operator: Operator,
    ids: tuple[str, ...],
    options: dict[str, Any],
    named: tuple[str, ...],
    usual: tuple[str, ...],
    verb: str,
    warning: str,
) -> None:
    """Say how many jobs it is about, and let the user decide. Aborts if not.

    Arguments:
        named: in which states it is about jobs that are named by their ids.
        usual: about which states it is where neither ids nor a state are given.
    """
    where = _where(options)
    if ids:
        found = itertools.chain.from_iterable(operator.find_many(ids, where["queue"]).values())
        count = len({(job.queue, job.id) for job in found if job.state in named})
        if not count:
            return  # the operation says what is wrong
    elif not any(value is not None for value in where.values()):
        return
    else:
        states = [where.pop("state")] if where["state"] else usual
        if where["older_than_seconds"] is not None:
            states = [one for one in states if one != "stalled"]
        where.pop("state", None)
        fit = itertools.chain.from_iterable(operator.jobs(state=one, **where) for one in states)
        count = sum(1 for _ in itertools.islice(fit, COUNTED + 1))
        if not count:
            return
    number = f"more than {COUNTED:,} jobs" if count > COUNTED else out.plural(count, "job")
    frame.confirm(f"{verb} {number}? {warning}")


def _tell(outcome: Outcome, done: str, as_json: bool) -> None:
    """Print what became of it; exit status 1 if some jobs refused."""
    if as_json:
        out.as_json(asdict(outcome))
    else:
        if outcome.done == 1:
            queue, job_id = outcome.jobs[0]
            click.echo(f"Job {out.printable(job_id)} of queue {out.printable(queue)} is {done}.")
        elif outcome.done:
            click.echo(f"{outcome.done:,} jobs are {done}.")
        elif not outcome.refused and not outcome.already:
            click.echo("There are no such jobs.")
        if outcome.already == 1:
            queue, job_id = outcome.already_jobs[0]
            name = f"{out.printable(job_id)} of queue {out.printable(queue)}"
            click.echo(f"Job {name} was {done} already.")
        elif outcome.already:
            click.echo(f"{outcome.already:,} jobs were {done} already.")
        for refusal in outcome.refusals[:20]:
            click.echo(f"Refused: {out.printable(refusal.text)}", err=True)
        if outcome.refused > 20:
            click.echo(f"Refused: {outcome.refused - 20:,} more", err=True)
    if outcome.refused:
        sys.exit(frame.Refused.exit_code)
