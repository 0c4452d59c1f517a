"""What the commands share: the way to the broker, options, durations, errors and exit codes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from . import printing as out

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


class Failed(click.ClickException):
    """A command ends with a sentence; with ``--json`` also with an object, for programs."""

    exit_code = 1

    def __init__(self, message: str, error: str) -> None:
        super().__init__(message)
        #: The error's name, as of :class:`~phonon_kombu.control.Refusal`.
        self.error = error
        #: Whether a program reads. What is printed already must not be followed by more.
        self.as_json = False

    def format_message(self) -> str:
        """The sentence, and what may stand on a line below, for a terminal."""
        return "\n".join(map(out.printable, self.message.split("\n")))

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it."""
        if self.as_json:
            out.as_json({"error": self.error, "text": self.message})
        super().show(file)


class Refused(Failed):
    """The operation is not possible."""

    exit_code = 1


class Unusable(Failed):
    """The application or its broker is not of our kind."""

    exit_code = 2


class Unavailable(Failed):
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


def confirm(question: str) -> None:
    """Ask; aborts unless the answer is yes. What cannot be asked, or answered, is not."""
    try:
        click.confirm(question, abort=True, err=True)
    except (OSError, RuntimeError):  # a stream is closed, or full; click's Abort is one of these
        raise click.Abort from None


@contextmanager
def operating(ctx: click.Context) -> Iterator[Operator]:
    """An operator of the application's broker; what goes wrong is told in a sentence."""
    from ..control import Operator

    app = getattr(ctx.find_root().obj, "app", None)
    with telling(bool(ctx.params.get("as_json")), hint=app is None), Operator(app) as operator:
        yield operator


@contextmanager
def telling(as_json: bool, hint: bool = False) -> Iterator[None]:
    """What goes wrong is told in a sentence, and by the exit status.

    Arguments:
        as_json: whether a program reads it.
        hint: whether to say how an application or a broker is named.
    """
    try:
        with _sentences(hint):
            yield
    except Failed as failed:
        failed.as_json = as_json
        raise
    except click.Abort:
        if as_json:
            out.as_json({"error": "Declined", "text": "nothing was done"})
        raise


@contextmanager
def _sentences(hint: bool) -> Iterator[None]:
    from kombu.exceptions import OperationalError

    from ..errors import ConfigurationError, EmbeddedServerError, JobError, PhononError, ServerError
    from ..store.client import CONNECTION_ERRORS

    try:
        yield
    except ConfigurationError as error:
        text = str(error)
        if hint or "the broker is" in text:
            text += "\nName the application with -A or the broker with -b, before the word phonon."
        raise Unusable(text, type(error).__name__) from None
    except (ServerError, EmbeddedServerError) as error:
        raise Unavailable(str(error), type(error).__name__) from None
    except (*CONNECTION_ERRORS, OperationalError) as error:
        text = f"the server cannot be reached: {error}"
        raise Unavailable(text, "ConnectionError") from None
    except (JobError, PhononError) as error:
        raise Refused(str(error), type(error).__name__) from None
