"""``celery phonon ...``: the commands that this package adds to Celery's.

The modules that do the work are imported by the command that needs them, as Celery loads this one
for every ``celery`` command.
"""

from __future__ import annotations

import sys

import click

from ..registration import prepare_workers
from .act import cancel, pause, resume, retract, retry, stall
from .frame import INTERRUPTED, Phonon
from .look import jobs, show, status

prepare_workers()


@click.group(cls=Phonon, options_metavar="")
def phonon() -> None:
    """Look at the jobs of a phonon:// broker, and act on them.

    \b
      celery -A proj phonon status
      celery -A proj phonon jobs --state stalled
      celery -A proj phonon retry --task proj.tasks.mail
      celery -b phonon://localhost:6379/0 phonon show TASK_ID

    A job is a message in its queue: ready, scheduled (it waits for its time), claimed (a worker has
    it) or stalled (set aside). Jobs are named by their task ids.

    Exit status: 0 done; 1 some or all of it was refused, or declined; 2 the command line, the
    application or its broker makes no sense; 69 the server cannot be reached.
    """


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
@click.option(
    "--kill/--no-kill",
    default=True,
    show_default=True,
    help="Kill one of the workers in the middle, and the one that closes the chord.",
)
@click.option("--json", "as_json", is_flag=True, help="Print only the result, as JSON.")
def demo(
    limit: int | None, workers: int, concurrency: int, broker: str, kill: bool, as_json: bool
) -> None:
    """Run real workers and account for every task.

    Starts a private Redis and real Celery workers, sends one task per source file of this
    Python's standard library, kills one of the workers in the middle (SIGKILL, as a crash or the
    kernel's memory killer would), and shows what came of the tasks. In the end it sends them as
    one aggregating chord, and kills the worker that has brought the last part and is about to
    publish the body. Exit status 1 if a task was lost, or ran twice though nobody who held it was
    killed, or if the chord's body did not run, ran twice or got another aggregate than there is.
    """
    from ..demo.display import make_display
    from ..demo.report import Options
    from ..demo.run import run
    from ..errors import PhononError

    display = make_display(quiet=as_json)
    try:
        report = run(Options(broker, limit, workers, concurrency, kill), display)
    except PhononError as exc:
        raise click.ClickException(str(exc)) from exc
    except KeyboardInterrupt:
        click.echo("\nStopped. Nothing is left running.", err=True)
        sys.exit(INTERRUPTED)
    if as_json:
        click.echo(report.json())
    else:
        display.table(report.rows(), report.tasks_good)
        display.say(report.verdict())
        if report.chord is not None:
            display.table(report.chord.rows(), report.chord.good)
            display.say(report.chord.verdict())
    sys.exit(0 if report.good else 1)


for command in (status, jobs, show, stall, retry, cancel, retract, pause, resume):
    phonon.add_command(command)
