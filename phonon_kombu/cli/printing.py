"""How things are printed: tables with rich where it is installed, aligned text elsewhere, JSON.

What a message says of itself was written by its publisher: it is made printable before it gets to
a terminal.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import click

COLOURS = {"ready": "green", "scheduled": "cyan", "claimed": "blue", "stalled": "yellow"}


#: How deep what is printed as JSON may be nested; what lies deeper is left out.
DEEPEST = 100


class Column(NamedTuple):
    """A column of a table."""

    title: str
    right: bool = False
    #: Whether it is never cut or wrapped.
    whole: bool = False


def table(columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout is not None and sys.stdout.isatty():
        try:
            return _rich(columns, cells)
        except ImportError:
            pass
    return _plain(columns, cells)


def _plain(columns: Sequence[Column], rows: list[list[str]]) -> None:
    titles = [column.title.upper() for column in columns]
    widths = [max(map(len, cells)) for cells in zip(titles, *rows, strict=True)]
    for row in [titles, *rows]:
        padded = (
            cell.rjust(width) if column.right else cell.ljust(width)
            for column, width, cell in zip(columns, widths, row, strict=True)
        )
        click.echo("  ".join(padded).rstrip())


def _rich(columns: Sequence[Column], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, no_color=_no_color() or None)
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        shown.add_column(
            column.title, justify="right" if column.right else "left", no_wrap=column.whole,
            overflow="fold",
        )  # fmt: skip
    for row in rows:
        shown.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    console.print(shown)


def facts(rows: Sequence[tuple[str, Any]]) -> None:
    """Print names and values, one a line; those without a value are left out."""
    known = [(name, value) for name, value in rows if value is not None and value != ""]
    width = max(len(name) for name, _ in known)
    for name, value in known:
        label = click.style(f"{name:>{width}}", dim=True)
        text = printable(value)
        click.echo(f"{label}  {click.style(text, fg=COLOURS.get(text))}", color=colour())


def as_json(value: Any) -> None:
    """Print JSON, indented for a person who looks at it after all."""
    click.echo(json.dumps(_known_to_json(value), indent=2, default=str, allow_nan=False))


def _known_to_json(value: Any, depth: int = DEEPEST) -> Any:
    """`value` without what a publisher's JSON may have, and readers of JSON do not take."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict | list | tuple) and depth == 0:
        return "..."
    if isinstance(value, dict):
        return {name: _known_to_json(one, depth - 1) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_known_to_json(one, depth - 1) for one in value]
    return value


def colour() -> bool | None:
    """What :func:`click.echo` should do about colours: None decides by itself."""
    return False if _no_color() else None


def _no_color() -> bool:
    ctx = click.get_current_context(silent=True)
    return bool(ctx and getattr(ctx.find_root().obj, "no_color", False))


def printable(value: Any) -> str:
    """`value` as one line of text that does nothing to a terminal."""
    if value is None:
        return "-"
    text = str(value)
    if not text.isprintable():
        text = "".join(
            one if one.isprintable() else one.encode("unicode_escape", "replace").decode()
            for one in text
        )
    # What the terminal does not know must not end the command in the middle of a table.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text if text.isascii() else text.encode(encoding, "backslashreplace").decode(encoding)


def duration(seconds: float | None) -> str:
    """Seconds as people say them: two units at the most."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    whole = round(seconds)
    for size, unit, small, small_unit in (
        (86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"),
    ):  # fmt: skip
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // small}{small_unit}"
    return f"{whole}s"


def moment(at: float | None, now: float) -> str | None:
    """A time and how far away it is; None for none."""
    if at is None:
        return None
    try:
        local = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    except (OverflowError, ValueError, OSError):  # beyond the calendar: who has written that?
        return str(at)
    away = f"{duration(now - at)} ago" if at <= now else f"in {duration(at - now)}"
    return f"{local} ({away})"


def plural(number: int, one: str) -> str:
    """A number and what it counts."""
    return f"{number:,} {one}{'' if number == 1 else 's'}"
