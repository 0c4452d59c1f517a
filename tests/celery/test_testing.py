"""The fixtures of phonon_kombu.testing, used as a project would use them."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from phonon_kombu.store.embedded import EmbeddedServer
from tests.servers import server_binaries, server_name

pytest_plugins = ["phonon_kombu.testing"]


@pytest.fixture(scope="session")
def phonon_server():  # type: ignore[no-untyped-def]
    """The embedded server that this test run is for."""
    name = server_name()
    with EmbeddedServer(temporary=True, server=server_binaries().get(name, name)) as server:
        yield server


def test_task_runs_in_the_worker(phonon_celery_app, phonon_worker) -> None:
    @phonon_celery_app.task
    def ship(order: str) -> str:
        return f"{order} is on its way"

    phonon_worker.reload()
    assert ship.delay("a book").get(timeout=20) == "a book is on its way"


@pytest.mark.parametrize("answer", ["first", "second"])
def test_two_tests_may_name_a_task_alike(phonon_celery_app, phonon_worker, answer: str) -> None:
    @phonon_celery_app.task(name="alike")
    def ship() -> str:
        return answer

    phonon_worker.reload()
    assert ship.delay().get(timeout=20) == answer


def test_worker_leaves_the_tests_logging_alone(phonon_worker, caplog) -> None:
    logging.getLogger("shop").warning("out of boxes")
    assert "out of boxes" in caplog.text


@pytest.mark.parametrize("_again", [1, 2])
def test_every_test_starts_with_an_empty_database(phonon_celery_app, phonon_redis, _again) -> None:
    assert phonon_redis.keys() == []
    phonon_celery_app.send_task("unheard.of")
    assert phonon_redis.keys() != []


def test_environment_does_not_lead_to_a_real_broker(
    monkeypatch, phonon_celery_app, phonon_url
) -> None:
    assert phonon_celery_app.connection_for_write().as_uri().startswith("phonon+socket://")
    assert phonon_celery_app.conf.broker_url == phonon_url


def run_pytest(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(directory)],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_project_switches_the_fixtures_on_with_one_line(tmp_path: Path) -> None:
    text = sys.modules["phonon_kombu.testing"].__doc__ or ""
    blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", text)
    switch, example = (re.sub(r"(?m)^    ", "", block) for block in blocks)
    (tmp_path / "conftest.py").write_text(switch)
    (tmp_path / "test_example.py").write_text(example)
    outcome = run_pytest(tmp_path, CELERY_BROKER_URL="redis://127.0.0.1:1/0")
    assert "1 passed" in outcome.stdout, outcome.stdout + outcome.stderr
