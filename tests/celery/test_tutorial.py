"""The tutorial in docs/ works as it is written, apart from Ctrl-C being a signal here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.servers import DEFAULT_SERVER, server_binaries, server_name, wait_for

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorial" / "first-app.md"


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="phk-", ignore_cleanup_errors=True) as path:
        yield Path(path)


def keepers(directory: Path) -> list[psutil.Process]:
    """The embedded servers' keepers below ``directory``."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(directory) in word for word in process.info["cmdline"] or ())
    ]


def test_tutorial(directory: Path) -> None:
    # fakeredis keeps nothing between two processes: there a real server is used all the same.
    name = DEFAULT_SERVER if server_name() == "fakeredis" else server_name()
    blocks = re.findall(r"```(\w+)\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    shop = next(text for kind, text in blocks if kind == "python")
    send, start, look = (
        next(text for kind, text in blocks if kind == "console" and text.startswith(beginning))
        for beginning in ("python -c", "celery -A", "python - <<")
    )
    project = directory / "shop-demo"
    project.mkdir()
    (project / "shop.py").write_text(shop.replace("time.sleep(1)", "time.sleep(0.3)"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {
        "PATH": path,
        "TMPDIR": str(directory),
        "PHONON_EMBEDDED_SERVER": server_binaries()[name],
    }

    def shell(command: str) -> str:
        return subprocess.run(
            command, shell=True, cwd=project, env=environment, check=True, text=True,
            stdout=subprocess.PIPE, timeout=60,
        ).stdout  # fmt: skip

    def packed() -> list[int]:
        file = project / "packed.txt"
        return [int(n) for n in re.findall(r"\d+", file.read_text())] if file.exists() else []

    def work_until(count: int) -> None:
        with open(project / "worker.log", "wb") as log:
            worker = subprocess.Popen(
                start.split(), cwd=project, env=environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            wait_for(lambda: len(packed()) >= count, 60)
            worker.send_signal(signal.SIGINT)
            worker.wait(60)  # a prefork pool may wait 30 s for a child, on any broker
        finally:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
        # Celery ends with status 1 after Ctrl-C, on any broker.
        log_text = (project / "worker.log").read_text()
        assert "Warm shutdown" in log_text and "Traceback" not in log_text, log_text

    shell(send)
    wait_for(lambda: not keepers(directory), 30, message="the server has not stopped")
    work_until(3)
    assert 3 <= len(packed()) < 10
    stats, ids = shell(look).splitlines()
    assert f"ready={10 - len(packed())}, scheduled=0, claimed=0" in stats
    assert len(re.findall(r"[0-9a-f-]{36}", ids)) == 10 - len(packed())
    work_until(10)
    assert packed() == list(range(1, 11))
    wait_for(lambda: not keepers(directory), 30)
