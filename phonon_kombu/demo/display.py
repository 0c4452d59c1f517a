"""What the demo shows: a progress bar that lives, and a table at the end; with rich or without."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any, Protocol, TextIO

BAR_WIDTH = 40
#: How often the plain display prints a line where it cannot draw over the last one.
LINE_SECONDS = 2.0

Row = tuple[str, str]


class Display(Protocol):
    """Shows a run of the demo to a person."""

    def say(self, text: str) -> None:
        """Print a line."""

    def progress(self, total: int, what: str) -> contextlib.AbstractContextManager[Progress]:
        """Show a bar for ``total`` files (or ``what`` they are) until the context ends."""

    def table(self, rows: list[Row], good: bool) -> None:
        """Show the result."""


class Progress(Protocol):
    """A bar that can be moved."""

    def update(self, sent: int, done: int) -> None:
        """So many tasks have been sent, so many have run."""


class Quiet:
    """Shows nothing, for ``--json``."""

    def say(self, text: str) -> None:
        """Nothing."""

    @contextlib.contextmanager
    def progress(self, total: int, what: str) -> Iterator[Progress]:
        """Nothing."""
        yield self

    def update(self, sent: int, done: int) -> None:
        """Nothing."""

    def table(self, rows: list[Row], good: bool) -> None:
        """Nothing."""


class Plain:
    """Text only. On a terminal the bar is drawn in place, elsewhere it is a line now and then."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.total, self.what = 0, ""
        self.started = 0.0
        self.drawn_at = 0.0
        self.drawn_done = -1
        self.drawn = ""

    def say(self, text: str) -> None:
        """Print a line."""
        self._leave_the_bar()
        print(text, file=self.stream, flush=True)

    def _leave_the_bar(self) -> None:
        if self.drawn and self.stream.isatty():
            self.stream.write("\n")
            self.stream.flush()
        self.drawn = ""

    @contextlib.contextmanager
    def progress(self, total: int, what: str) -> Iterator[Progress]:
        """Show a bar for ``total`` files (or ``what`` they are) until the context ends."""
        self.total, self.what = total, what
        self.started, self.drawn_at = time.monotonic(), 0.0
        self.drawn_done, self.drawn = -1, ""
        try:
            yield self
        finally:
            self._leave_the_bar()

    def update(self, sent: int, done: int) -> None:
        """So many tasks have been sent, so many have run."""
        now = time.monotonic()
        line = f"{done:>6,} of {self.total:,} {self.what}, {now - self.started:5.1f} s"
        if self.stream.isatty():
            filled = BAR_WIDTH * done // self.total
            line = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {line}"
            if line != self.drawn:
                self.stream.write("\r" + line)
                self.stream.flush()
                self.drawn = line
        elif now - self.drawn_at >= LINE_SECONDS or self.drawn_done < done == self.total:
            self.drawn_at, self.drawn_done = now, done
            self.say(line)

    def table(self, rows: list[Row], good: bool) -> None:
        """Show the result."""
        names = max(len(name) for name, _ in rows)
        values = max(len(value) for _, value in rows)
        self.say("")
        for name, value in rows:
            self.say(f"  {name:<{names}}  {value:>{values}}")
        self.say("")


class Rich:
    """With colours and a smooth bar."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(highlight=False)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, markup=False)

    @contextlib.contextmanager
    def progress(self, total: int, what: str) -> Iterator[Progress]:
        """Show a bar for ``total`` files (or ``what`` they are) until the context ends."""
        from rich import progress as bars

        columns = [
            bars.TextColumn("{task.description}"),
            bars.BarColumn(bar_width=None),
            bars.MofNCompleteColumn(),
            bars.TextColumn(what),
            bars.TimeElapsedColumn(),
        ]
        with bars.Progress(*columns, console=self.console, expand=True) as shown:
            yield _RichBar(shown, shown.add_task("sending", total=total), total)

    def table(self, rows: list[Row], good: bool) -> None:
        """Show the result."""
        from rich import box
        from rich.table import Table

        table = Table(box=box.ROUNDED, show_header=False, border_style="green" if good else "red")
        table.add_column()
        table.add_column(justify="right", style="bold")
        for name, value in rows:
            table.add_row(name, value)
        self.console.print(table)


class _RichBar:
    def __init__(self, shown: Any, task: Any, total: int) -> None:
        self.shown, self.task, self.total = shown, task, total

    def update(self, sent: int, done: int) -> None:
        description = "sending" if sent < self.total else "working" if done < sent else "done"
        self.shown.update(self.task, completed=done, description=f"{description:<7}")


def make_display(quiet: bool) -> Display:
    """The best display for standard output."""
    if quiet:
        return Quiet()
    if sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            return Rich()
    return Plain(sys.stdout)
