"""The URL schemes resolve in processes that never import phonon_kombu by hand.

The programs run away from the checkout, so that what they find is what was installed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.celery.exam import Exam
from tests.celery.workers import run_celery

PROGRAM = """
import sys
from celery import Celery
assert not [name for name in sys.modules if name.startswith("phonon_kombu.transport")]
app = Celery("bare", broker=sys.argv[1], backend=sys.argv[2])
app.conf.task_default_queue = "exam"
result = app.send_task("add", (20, 22))
print(result.get(timeout=30), app.connection().transport.driver_type)
"""


def run(program: str, directory: Path, *arguments: str) -> str:
    """Run a program with nothing but what is installed; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=directory, env={"PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_bare_application(exam: Exam, tmp_path: Path) -> None:
    with exam.worker(pool="solo"):
        assert run(PROGRAM, tmp_path, exam.broker, exam.backend).split() == ["42", "redis"]


def test_the_celery_command(exam: Exam, tmp_path: Path) -> None:
    with exam.worker(pool="solo") as worker:
        exam.listening(worker)
        environment = {"PATH": "/usr/bin:/bin", "CELERY_BROKER_URL": exam.broker}
        done = run_celery(["status"], environment, app=None, directory=tmp_path)
        assert f"{worker.name}: OK" in done.stdout, done.stderr


def test_the_broker_url_of_a_settings_module(exam: Exam, tmp_path: Path) -> None:
    module = tmp_path / "celeryconfig.py"
    module.write_text(f"broker_url = {exam.broker!r}\ntask_default_queue = 'exam'\n")
    with exam.worker(pool="solo") as worker:
        exam.listening(worker)
        environment = {"PATH": "/usr/bin:/bin"}
        done = run_celery(["inspect", "ping"], environment, app=None, directory=tmp_path)
        assert worker.name in done.stdout, done.stderr


@pytest.mark.parametrize(
    "scheme",
    ["phonon", "phonons", "phonon+socket", "phonon+sentinel", "phonon+embedded"],
)
def test_every_scheme_resolves(tmp_path: Path, scheme: str) -> None:
    program = """
import sys
from celery import Celery
app = Celery("bare", broker=sys.argv[1])
print(app.connection().transport_cls, app.connection().get_transport_cls().__module__)
"""
    url = f"{scheme}:///tmp/none" if scheme == "phonon+socket" else f"{scheme}://localhost:1/0"
    assert "phonon_kombu.transport" in run(program, tmp_path, url)
