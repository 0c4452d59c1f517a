"""Imports between the rooms go one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import phonon_kombu

PACKAGE = Path(phonon_kombu.__file__).parent

#: A room -> the rooms that it may import from, beside itself. What is not a room below is open
#: to all or a door: a door may use everything, and no room may use a door.
ROOMS = {
    "errors": set(),
    "store": {"errors"},
    "phonon": {"errors", "store"},
    "thoonk": {"errors", "store", "phonon"},
    "transport": {"errors", "store", "phonon", "thoonk"},
    "backend": {"errors", "store", "phonon", "thoonk", "transport"},
}
DOORS = {"__init__", "registration", "cli", "control", "demo", "stalling", "testing"}

#: Libraries that only some rooms may know -> those rooms (doors may know all).
LIBRARIES = {
    "redis": {"store", "transport", "backend"},
    "kombu": {"transport", "backend"},
    "celery": {"backend"},
}

#: A file's import of a library that its room may not know -> why it does all the same.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("phonon/heart.py", "redis"): "a beat outlives every error of the client library",
    ("thoonk/session.py", "redis"): "a wait may be refused, or last too long",
    ("thoonk/aio/session.py", "redis"): "the same",
    ("thoonk/aio/subscription.py", "redis"): "as its blocking twin",
    ("thoonk/subscription.py", "redis"): "it reads what PUB/SUB brings, and names its errors",
    ("thoonk/codecs.py", "kombu"): "serializers are those of kombu's registry",
}


def room_of(path: Path) -> str:
    """The room or door that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports(path: Path) -> Iterator[str]:
    """The full names of the modules that a file imports, within functions too."""
    package = ("phonon_kombu", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_file_belongs_somewhere() -> None:
    assert FILES
    assert {room_of(path) for path in FILES} <= set(ROOMS) | DOORS


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top in LIBRARIES and room not in DOORS:
            allowed = room in LIBRARIES[top]
            place = str(path.relative_to(PACKAGE))
            assert allowed or (place, top) in EXCEPTIONS, f"{place} imports {name}"
        if top == "phonon_kombu" and room not in DOORS:
            other = rest.partition(".")[0]
            assert other == room or other in ROOMS[room], f"{path.name} imports {name}"


def test_exceptions_are_needed() -> None:
    used = {
        (str(path.relative_to(PACKAGE)), name.partition(".")[0])
        for path in FILES
        for name in imports(path)
    }
    assert set(EXCEPTIONS) <= used


def test_rooms_have_an_order() -> None:
    """No two rooms may import each other, by whatever detour."""
    ordered = list(ROOMS)
    for room, allowed in ROOMS.items():
        assert all(ordered.index(other) < ordered.index(room) for other in allowed)


def test_only_the_store_spells_keys() -> None:
    """Key names stand in its two modules of keys and nowhere else."""
    for path in FILES:
        if path.name in ("keys.py", "phonon_keys.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
                text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
                words = (
                    "feed.",
                    "job.",
                    "newfeed",
                    "exchange.bindings",
                    "phonon.layout",
                    "reference.holders",
                    "chord.arrived",
                    "model.orphans",
                    "lock:",
                )
                spelled = [word for word in words if text.startswith(word)]
                assert not spelled, f"{path.name}:{node.lineno} spells {text!r}"
