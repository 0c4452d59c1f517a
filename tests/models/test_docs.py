"""The examples of the pages run as they stand; the reference names everything."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from phonon_kombu.phonon import connections, fields, lock, model, reference, registry
from phonon_kombu.store import phonon_keys as keys
from tests.reference import PHONON

PAGES = Path(__file__).parents[2] / "docs"

#: What the modules use among themselves.
INTERNAL = {"hosts", "layout", "of_aggregate", "MODELS"}


def blocks(page: str, language: str = "python") -> list[str]:
    """The code on a page."""
    text = (PAGES / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def run(program: str, path: Path) -> subprocess.Popen[str]:
    path.write_text(program)
    return subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True)


def test_the_tutorial(url: str, tmp_path: Path) -> None:
    """From the top to the bottom; only the address is another."""
    *parts, several = blocks("tutorial/phonon.md")
    promised = blocks("tutorial/phonon.md", "text")
    address = "phonon+embedded://"
    assert sum(address in part for part in parts) == 1
    program = "\n".join(parts).replace(address, url)
    printed = run(program, tmp_path / "once.py").communicate(timeout=60)[0]
    assert printed == "4\n" + promised[0]

    # The class, the connection, and the loop of the last part.
    connect = next(line for line in program.splitlines() if "connections.connect" in line)
    counting = f"{parts[0]}\n{connect}\n{several}"
    running = [run(counting, tmp_path / f"counting{n}.py") for n in range(3)]
    found = "".join(process.communicate(timeout=90)[0] for process in running)
    assert re.findall("user 7.*", found) == ["user 7: 3000 clicks on 10 pages"]


def test_the_how_to_is_python() -> None:
    found = blocks("howto/fill-records.md")
    assert len(found) > 4
    for block in found:
        compile(block, "fill-records.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_how_to_for_locks(url: str) -> None:
    program = next(block for block in blocks("howto/fill-records.md") if "Lock(" in block)
    done: list[str] = []
    before = connections.connection
    try:
        connections.connect(url)
        names = {f"write_{half}_half": lambda: done.append("half") for half in ("first", "second")}
        exec(compile(program, "fill-records.md", "exec"), names)
    finally:
        assert connections.connection is not None
        connections.connection.close()
        connections.connection = before
    assert done == ["half", "half"]


def test_the_reference_is_made_from_the_docstrings() -> None:
    assert PHONON.path.read_text("utf-8") == PHONON.text()


def test_the_reference_names_the_keys() -> None:
    """As they are made."""
    name, prefix = "<name>", "<prefix>"
    references = keys.ReferenceKeys(name, prefix)
    record = keys.RecordKeys("<record>", prefix=prefix)
    models = keys.ModelsKeys(prefix)
    for key in (
        keys.lock_key(name, prefix),
        *(references.holders, references.stalled, references.about),
        *(record.row, record.holders, record.senders, record.seen),
        *(models.held("<node>"), models.orphans),
    ):
        assert f"- `{key.decode()}`: " in PHONON.text()


@pytest.mark.parametrize(
    "thing",
    [
        connections.Connections,
        model.Model,
        registry.Registry,
        reference.Reference,
        lock.Lock,
        fields,
    ],
)
def test_the_reference_names_everything(thing: object) -> None:
    page = (PAGES / "reference/phonon.md").read_text() + (PAGES / "reference/fields.md").read_text()
    names = getattr(thing, "__all__", None) or [n for n in dir(thing) if not n.startswith("_")]
    if thing is fields:
        names = [n for n in names if n in fields.Fields]
    for name in set(names) - INTERNAL:
        assert re.search(rf"`[^`]*\b{name}\b", page), name
