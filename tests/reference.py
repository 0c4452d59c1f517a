"""Prints pages of the reference from the docstrings of the classes.

``python -m tests.reference`` writes the pages; a test of each room sees that they are up to date.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phonon_kombu import thoonk
from phonon_kombu.phonon import connections, lock, model, reference, registry

DOCS = Path(__file__).parents[1] / "docs/reference"


@dataclass
class Section:
    """A class or function on a page.

    `elsewhere` are its methods that another page describes, `bases` the parents whose docstrings
    say something about it too, `made` whether users make objects of the class.
    """

    thing: Any
    what: str = ""
    elsewhere: set[str] = field(default_factory=set)
    bases: tuple[Any, ...] = ()
    about: bool = True
    made: bool = False
    #: In front of the name, as users write it.
    room: str = ""


@dataclass
class Page:
    """A page: what stands above all, and its sections; a text among them is printed as it is."""

    name: str
    head: str
    sections: list[Section | str]
    #: Names that the classes use among themselves.
    internal: frozenset[str] = frozenset()

    @property
    def path(self) -> Path:
        """The file."""
        return DOCS / f"{self.name}.md"

    @property
    def classes(self) -> list[Any]:
        """The classes that it describes."""
        things = (part.thing for part in self.sections if isinstance(part, Section))
        return [thing for thing in things if inspect.isclass(thing)]

    def text(self) -> str:
        """The whole page."""
        parts = [self.head, "This page is made from the docstrings: `python -m tests.reference`.\n"]
        for section in self.sections:
            parts += [section] if isinstance(section, str) else described(section, self.internal)
        return "\n".join(part.rstrip("\n") + "\n" for part in parts)


FEEDS = Page(
    "thoonk-feeds",
    """\
# Feeds, sorted feeds, queues, notices: `phonon_kombu.thoonk`

Learn it by doing: [tutorial](../tutorial/thoonk.md). How a session is made, and jobs: [jobs and
queues](thoonk-jobs.md). How it works, and what differs from Thoonk.py:
[explanation](../explanation/thoonk.md).

For asyncio, `phonon_kombu.thoonk.aio` has the same names: methods are to be awaited, subscriptions
and live queries are entered with `async with` and read with `async for`, and a handler may be a
coroutine function. A session belongs to one event loop.

All methods raise, beside what they name, redis-py's `ConnectionError` and `TimeoutError` when the
server cannot be reached, and the subclasses of `ServerError` when it refuses.
""",
    [
        Section(thoonk.Thoonk, "a session", {"job", "close"}, about=False),
        Section(thoonk.Feed, "items by id, in the order of their publishing"),
        Section(
            thoonk.SortedFeed,
            "items in an order of your own",
            bases=(thoonk.SortedFeed.__mro__[1],),
        ),
        Section(thoonk.Queue, "items for one taker", bases=(thoonk.Queue.__mro__[1],)),
        Section(
            thoonk.PyQueue,
            "Python data for one taker",
            {"put", "get", "size"},
            bases=(thoonk.PyQueue.__mro__[1],),
        ),
        Section(thoonk.Subscription, "notices as they come"),
        Section(thoonk.Notice, "what has happened"),
        Section(thoonk.Live, "a live query"),
        Section(thoonk.Change, "of a live query"),
    ],
    frozenset(
        {
            "TYPE", "HIGH", "DEFAULT_SERIALIZER", "ORDERS", "address", "codec_of", "connect",
            "forget", "join", "leave", "listening_pool", "make_lock", "release",
            "server_identity", "subscribe", "wait", "wait_confirmed", "change", "after_fork",
        }
    ),
)  # fmt: skip

PHONON = Page(
    "phonon",
    """\
# Models, registry, references, locks: `phonon_kombu.phonon`

Learn it by doing: [tutorial](../tutorial/phonon.md). Tasks: [fill records from a message
bus](../howto/fill-records.md). How it works, and what differs from phonon 3.1:
[explanation](../explanation/phonon.md). Fields have [a page of their own](fields.md).

`from phonon_kombu import phonon` gives the modules below as `phonon.model` and so on. In the names
of keys `<prefix>` is the `prefix` of the connections; what stands in braces decides the slot of a
Redis Cluster.
""",
    [
        Section(connections.connect, room="phonon.connections."),
        Section(connections.current, room="phonon.connections."),
        Section(
            connections.Connections, "the servers", room="phonon.connections.", made=True
        ),
        Section(model.Model, "a record", room="phonon.model."),
        "`phonon.model.NOTHING` stands for an argument that died with its process: it is false,\n"
        "and all its methods do nothing.\n",
        Section(registry.register, room="phonon.registry."),
        Section(registry.register_async, room="phonon.registry."),
        Section(registry.flush, room="phonon.registry."),
        Section(registry.close, room="phonon.registry."),
        Section(registry.configure, room="phonon.registry."),
        Section(
            registry.Registry, "records in memory", room="phonon.registry.", made=True
        ),
        Section(
            reference.Reference, "the last one out", room="phonon.reference.", made=True
        ),
        Section(lock.Lock, "one holder at a time", room="phonon.lock.", made=True),
    ],
    frozenset({"of_aggregate"}),
)  # fmt: skip

PAGES = (FEEDS, PHONON)


def public(kind: Any, internal: Collection[str] = ()) -> list[str]:
    """The methods of a class in the order of its source, aliases behind each other."""
    names = [name for cls in kind.__mro__ for name in vars(cls)]
    return [
        name
        for name in dict.fromkeys(names)
        if not name.startswith("_") and name not in internal and callable(getattr(kind, name))
    ]


def properties(kind: Any, internal: Collection[str]) -> list[str]:
    """The properties of a class."""
    return [
        name
        for name, value in vars(kind).items()
        if isinstance(value, property) and not name.startswith("_") and name not in internal
    ]


def described(section: Section, internal: Collection[str]) -> Iterator[str]:
    """The parts of a page about one class or function."""
    thing = section.thing
    if not inspect.isclass(thing):
        yield f"## `{section.room}{thing.__name__}`\n"
        yield f"{call(thing)}\n\n{text(inspect.getdoc(thing) or '')}"
        return
    yield f"## `{section.room}{thing.__name__}`: {section.what}\n"
    if section.made:
        yield f"{call(thing)}\n"
    if section.about:
        docs = [thing.__doc__, *(inspect.getdoc(base) for base in section.bases)]
        yield text(inspect.cleandoc("\n\n".join(doc or "" for doc in docs)))
    if thing in (thoonk.Notice, thoonk.Change):
        yield fields(thing)
        return
    methods: dict[Any, list[str]] = {}
    for name in public(thing, internal):
        if name not in section.elsewhere:
            methods.setdefault(getattr(thing, name), []).append(name)
    for method, names in methods.items():
        title = ", ".join(f"`{name}`" for name in names)
        yield f"### {title}\n\n{call(method, names[0])}\n\n{text(inspect.getdoc(method) or '')}"
    for name in properties(thing, internal):
        getter = getattr(thing, name).fget
        kind = inspect.signature(getter).return_annotation
        yield f"### `{name}`\n\n`{name}: {kind}`\n\n{text(inspect.getdoc(getter) or '')}"


class _Type(str):
    """An annotation, to be printed as it was written."""

    def __repr__(self) -> str:
        return str(self)


def call(function: Any, name: str = "") -> str:
    """How it is called: names, types and defaults; over several lines if it is long."""
    name = name or function.__name__
    known = inspect.signature(function)
    parameters = []
    for parameter in known.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        kind = parameter.annotation
        if kind is not inspect.Parameter.empty:
            kind = _Type(str(kind).rpartition(":")[2])
        parameters.append(parameter.replace(annotation=kind))
    given = known.return_annotation
    # What steps come to is what the method made of them returns.
    given = re.sub(r"^Steps\[(.*)\]$", r"\1", given) if isinstance(given, str) else None
    arrow = f" -> {given}" if given and not inspect.isclass(function) else ""
    word = "await " if inspect.iscoroutinefunction(function) else ""
    line = f"{word}{name}{inspect.Signature(parameters)}{arrow}"
    if len(line) <= 96:
        return f"`{line}`"
    inner = []
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in "".join(inner):
            inner.append("*")
        inner.append(str(inspect.Signature([parameter]))[1:-1].removeprefix("*, "))
    listed = "".join(f"    {one},\n" for one in inner)
    return f"```python\n{word}{name}(\n{listed}){arrow}\n```"


def fields(kind: Any) -> str:
    """The attributes of a dataclass, with the comments above them."""
    found = re.findall(r"((?:    #: ?[^\n]*\n)*)    (\w+): ", inspect.getsource(kind))
    lines, last = ["| attribute | |", "|---|---|"], ""
    for comment, name in found:
        last = " ".join(line.strip(" #:") for line in comment.splitlines()) or ""
        lines.append(f"| `{name}` | {text(last).strip()} |")
    return "\n".join(lines) + "\n"


def _named(role: re.Match[str]) -> str:
    """A name without its module; of a method of another class with the class."""
    *before, name = role[1].lstrip("~.").split(".")
    owner = before[-1] if before and before[-1][:1].isupper() and role[1][0] != "~" else ""
    return f"`{owner}.{name}`" if owner else f"`{name}`"


def text(doc: str) -> str:
    """A docstring as Markdown."""
    doc = re.sub(r":\w+:`([^`]*)`", _named, doc).replace("``", "`")
    out: list[str] = []
    code = listing = False
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
        if line in ("Arguments:", "Redis keys:") or line.startswith("Attributes"):
            listing = True
            if line != "Arguments:":
                out += [line, ""]
            continue
        if listing and re.match(r"    \S+(, \S+)*: ", line):
            name, _, rest = line.strip().partition(": ")
            names = ", ".join(f"`{one}`" for one in name.split(", "))
            line = f"- {names}: {rest}"
        elif listing and line.startswith("        "):
            line = "  " + line.strip()
        elif listing and line:
            listing = False
        out.append(line.rstrip())
    if code:
        out.append("```")
    return "\n".join(out).strip("\n") + "\n"


if __name__ == "__main__":
    for page in PAGES:
        page.path.write_text(page.text(), "utf-8")
