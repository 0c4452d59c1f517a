"""``celery phonon ...``: the commands that this package adds to Celery's.

None of them needs ``-A``. The modules that do the work are imported by the command that needs
them, as Celery loads this one for every ``celery`` command.
"""

from __future__ import annotations

import sys

import click

from .registration import prepare_workers

prepare_workers()

INTERRUPTED = 130


@click.group()
def phonon() -> None:
    """phonon_kombu: the Redis transport that loses no task."""


@phonon.command()
@click.option("--limit", type=click.IntRange(min=1), help="Send only the first N files.")
@click.option(
    "--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Celery workers."
)
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Processes in each worker's pool.",
)
@click.option(
    "--broker",
    default="phonon+embedded://",
    show_default=True,
    metavar="URL",
    help="Run on this server instead of an embedded one; redis:// runs kombu's own transport.",
)
@click.option("--json", "as_json", is_flag=True, help="Print only the result, as JSON.")
def demo(limit: int | None, workers: int, concurrency: int, broker: str, as_json: bool) -> None:
    """Parse the standard library with real workers and account for every task.

    Starts a private Redis and real Celery workers, sends one task per source file of this
    Python's standard library, and shows what came of them. Exit status 1 if a task was lost or
    ran twice.
    """
    from .demo.display import make_display
    from .demo.run import Options, run
    from .errors import PhononError

    display = make_display(quiet=as_json)
    try:
        report = run(Options(broker, limit, workers, concurrency), display)
    except PhononError as exc:
        raise click.ClickException(str(exc)) from exc
    except KeyboardInterrupt:
        click.echo("\nStopped. Nothing is left running.", err=True)
        sys.exit(INTERRUPTED)
    if as_json:
        click.echo(report.json())
    else:
        display.table(report.rows(), report.good)
        display.say(report.verdict())
    sys.exit(0 if report.good else 1)
