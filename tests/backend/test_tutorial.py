"""The chord tutorial in docs/ works as it is written, in one Python session for both chords."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import DEFAULT_SERVER, server_binaries, server_name

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorial" / "first-chord.md"


@pytest.fixture
def project() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="phk-", ignore_cleanup_errors=True) as path:
        yield Path(path)


def test_tutorial(project: Path) -> None:
    blocks = re.findall(r"```(\w+)\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    (project / "lines.py").write_text("\n".join(text for kind, text in blocks if kind == "python"))
    start = next(text for kind, text in blocks if kind == "console").split()
    sessions = [text for kind, text in blocks if kind == "pycon"]
    # What is typed; what is shown is printed by the statement's own last line.
    typed = [re.findall(r"^(?:>>>|\.\.\.) (.*)$", session, re.M) for session in sessions]
    program = [
        line if " = " in line or line.startswith(("import", "from")) else f"print({line})"
        for session in typed
        for line in session
    ]
    name = DEFAULT_SERVER if server_name() == "fakeredis" else server_name()
    environment = os.environ | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "TMPDIR": str(project),
        "PHONON_EMBEDDED_SERVER": server_binaries()[name],
    }
    with open(project / "worker.log", "wb") as log:
        worker = subprocess.Popen(
            start, cwd=project, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        done = subprocess.run(
            [sys.executable, "-c", "\n".join(program)], cwd=project, env=environment,
            capture_output=True, text=True, timeout=110, check=False,
        )  # fmt: skip
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    assert done.returncode == 0, done.stderr
    report, progress, found = done.stdout.strip().splitlines()
    lines, files = re.findall(r"\d+", report)
    assert "lines in" in report
    assert "ChordProgress(state=" in progress
    assert f"'lines': {lines}, 'files': {files}, 'longest': [[" in found
