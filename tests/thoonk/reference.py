"""Prints the reference of Thoonk's feeds from the docstrings of their classes.

``python -m tests.thoonk.reference`` writes the page; a test sees that it is up to date.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from phonon_kombu.thoonk import (
    Change,
    Feed,
    Live,
    Notice,
    PyQueue,
    Queue,
    SortedFeed,
    Subscription,
    Thoonk,
)

PAGE = Path(__file__).parents[2] / "docs/reference/thoonk-feeds.md"

#: What the classes of this room use among themselves.
INTERNAL = {
    "TYPE", "HIGH", "DEFAULT_SERIALIZER", "ORDERS", "address", "codec_of", "connect", "forget",
    "join", "leave", "listening_pool", "make_lock", "release", "server_identity", "subscribe",
    "wait", "wait_confirmed", "change", "after_fork",
}  # fmt: skip

#: Class -> what it is for, and the methods that another page describes.
CLASSES: dict[Any, tuple[str, set[str]]] = {
    Thoonk: ("a session", {"job", "close"}),
    Feed: ("items by id, in the order of their publishing", set()),
    SortedFeed: ("items in an order of your own", set()),
    Queue: ("items for one taker", set()),
    PyQueue: ("Python data for one taker", {"put", "get", "size"}),
    Subscription: ("notices as they come", set()),
    Notice: ("what has happened", set()),
    Live: ("a live query", set()),
    Change: ("of a live query", set()),
}

HEAD = """\
# Feeds, sorted feeds, queues, notices: `phonon_kombu.thoonk`

Learn it by doing: [tutorial](../tutorial/thoonk.md). How a session is made, and jobs: [jobs and
queues](thoonk-jobs.md). How it works, and what differs from Thoonk.py:
[explanation](../explanation/thoonk.md).

For asyncio, `phonon_kombu.thoonk.aio` has the same names: methods are to be awaited, subscriptions
and live queries are entered with `async with` and read with `async for`, and a handler may be a
coroutine function. A session belongs to one event loop.

All methods raise, beside what they name, redis-py's `ConnectionError` and `TimeoutError` when the
server cannot be reached, and the subclasses of `ServerError` when it refuses.

This page is made from the docstrings: `python -m tests.thoonk.reference`.
"""


def public(kind: Any) -> list[str]:
    """The methods of a class in the order of its source, aliases behind each other."""
    names = [name for cls in kind.__mro__ for name in vars(cls)]
    return [
        name
        for name in dict.fromkeys(names)
        if not name.startswith("_") and name not in INTERNAL and callable(getattr(kind, name))
    ]


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for kind, (what, elsewhere) in CLASSES.items():
        parts.append(f"## `{kind.__name__}`: {what}\n")
        if kind is not Thoonk:
            about = (
                kind.__doc__
                if kind not in (SortedFeed, Queue, PyQueue)
                else (f"{kind.__doc__}\n\n{inspect.getdoc(kind.__mro__[1])}")
            )
            parts.append(text(inspect.cleandoc(about)))
        if kind in (Notice, Change):
            parts.append(fields(kind))
            continue
        described: dict[Any, list[str]] = {}
        for name in public(kind):
            if name not in elsewhere:
                described.setdefault(getattr(kind, name), []).append(name)
        for method, names in described.items():
            title = ", ".join(f"`{name}{signature(method)}`" for name in names)
            parts.append(f"### {title}\n\n{text(inspect.getdoc(method) or '')}")
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def signature(method: Any) -> str:
    """Names and defaults of what a method takes."""
    parameters = list(inspect.signature(method).parameters.values())[1:]
    bare = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    return str(inspect.Signature(bare))


def fields(kind: Any) -> str:
    """The attributes of a dataclass, with the comments above them."""
    found = re.findall(r"((?:    #: ?[^\n]*\n)*)    (\w+): ", inspect.getsource(kind))
    lines, last = ["| attribute | |", "|---|---|"], ""
    for comment, name in found:
        last = " ".join(line.strip(" #:") for line in comment.splitlines()) or ""
        lines.append(f"| `{name}` | {text(last).strip()} |")
    return "\n".join(lines) + "\n"


def text(doc: str) -> str:
    """A docstring as Markdown."""
    doc = re.sub(r":\w+:`~?\.?(?:[\w]+\.)*(\w+)`", r"`\1`", doc).replace("``", "`")
    out: list[str] = []
    code = arguments = False
    for line in doc.splitlines():
        if line.strip() == "::":
            out.append("```python")
            code = True
            continue
        if code and line and not line.startswith("    "):
            while not out[-1]:
                out.pop()
            out += ["```", ""]
            code = False
        if code:
            if line or out[-1] != "```python":
                out.append(line[4:])
            continue
        if line == "Arguments:":
            arguments = True
            continue
        if arguments and re.match(r"    \w+: ", line):
            name, _, rest = line.strip().partition(": ")
            line = f"- `{name}`: {rest}"
        elif arguments and line.startswith("        "):
            line = "  " + line.strip()
        elif arguments and line:
            arguments = False
        out.append(line.rstrip())
    if code:
        out.append("```")
    return "\n".join(out).strip("\n") + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
