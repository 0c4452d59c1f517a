"""What the commands share: the way to the broker, options, durations, errors and exit codes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from ..control import Operator

INTERRUPTED = 130

STATES = ("ready", "scheduled", "claimed", "stalled")

UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

F = TypeVar("F", bound=Callable[..., Any])


class Phonon(click.Group):
    """The group: its commands in the order of their use, and not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands, the demo last."""
        return sorted(self.commands, key=lambda name: name == "demo")


class Refused(click.ClickException):
    """The operation is not possible."""

    exit_code = 1


class Unusable(click.ClickException):
    """The application or its broker is not of our kind."""

    exit_code = 2


class Unavailable(click.ClickException):
    """The server cannot be reached, or cannot serve us."""

    exit_code = 69  # EX_UNAVAILABLE, as of Celery's own commands


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A callback of an option: ``90``, ``90s``, ``15m``, ``2h`` or ``1d``, in seconds."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhd]?)", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no duration: 90s, 15m, 2h or 1d")
    return float(match[1]) * UNITS[match[2]]


def which(function: F) -> F:
    """The options that choose jobs."""
    options = [
        click.option("-Q", "--queue", help="Only jobs of this queue."),
        click.option("-s", "--state", type=click.Choice(STATES), help="Only jobs in this state."),
        click.option("-t", "--task", help="Only jobs of the task of this name."),
        click.option(
            "--older-than",
            callback=duration,
            metavar="TIME",
            help="Only jobs that were put so long ago: 90s, 15m, 2h, 1d.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def as_json(function: F) -> F:
    """The option ``--json``."""
    option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
    return option(function)


@contextmanager
def operating(ctx: click.Context) -> Iterator[Operator]:
    """An operator of the application's broker; what goes wrong is told in a sentence."""
    from kombu.exceptions import OperationalError

    from ..control import Operator
    from ..errors import ConfigurationError, JobError, PhononError
    from ..store.client import CONNECTION_ERRORS

    app = getattr(ctx.find_root().obj, "app", None)
    try:
        with Operator(app) as operator:
            yield operator
    except ConfigurationError as error:
        hint = ""
        if "the broker is" in str(error) or app is None:
            hint = "\nName the application with -A or the broker with -b, before the word phonon."
        raise Unusable(f"{error}{hint}") from None
    except JobError as error:
        raise Refused(str(error)) from None
    except (*CONNECTION_ERRORS, OperationalError) as error:
        raise Unavailable(f"the server cannot be reached: {error}") from None
    except PhononError as error:
        raise Unavailable(str(error)) from None
