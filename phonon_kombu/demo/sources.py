"""The demo's input: the Python source files of the standard library, and what is in one."""

from __future__ import annotations

import ast
import os
import sysconfig
import tokenize
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import PhononError

#: Not the library's own: installed packages, where they live inside its directory.
FOREIGN_DIRECTORIES = {"site-packages", "dist-packages", "__pycache__"}


@dataclass(frozen=True)
class FileCount:
    """What one source file holds. ``unparsable`` files (test data, mostly) have only lines."""

    lines: int
    functions: int
    classes: int
    unparsable: bool


def _root() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def library_files() -> list[Path]:
    """Every source file of the running Python's standard library, in the order of their paths.

    Raises :class:`~phonon_kombu.errors.PhononError` where the library is not there as files.
    """
    root = _root()
    files = [
        path
        for path in root.rglob("*.py")
        if FOREIGN_DIRECTORIES.isdisjoint(path.relative_to(root).parts)
    ]
    if not files:
        raise PhononError(f"this Python's standard library is not at {root} as source files")
    return sorted(files)


def count_file(path: str) -> FileCount:
    """Read and parse one file. Whatever cannot be parsed is counted as unparsable."""
    lines = Path(path).read_bytes().count(b"\n")
    try:
        with warnings.catch_warnings(), tokenize.open(path) as file:
            warnings.simplefilter("ignore")  # odd escapes in old sources are not our news
            tree = ast.parse(file.read(), path)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return FileCount(lines, 0, 0, unparsable=True)
    nodes = list(ast.walk(tree))
    return FileCount(
        lines,
        functions=sum(isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)) for n in nodes),
        classes=sum(isinstance(n, ast.ClassDef) for n in nodes),
        unparsable=False,
    )


def measure_file(path: str) -> dict[str, Any]:
    """What a part of the demo's chord returns for one file: values of the aggregate's fields."""
    data = Path(path).read_bytes()
    lines = data.count(b"\n")
    name = os.path.relpath(path, _root())
    return {"files": 1, "lines": lines, "words": len(data.split()), "longest": (lines, name)}
