"""The programs in examples/ do what they say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import RedisServer, wait_for

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Runner:
    """Runs the programs of one example on the test's database."""

    def __init__(self, directory: Path, url: str) -> None:
        self.directory = directory
        self.environment = os.environ | {"BROKER_URL": url, "PYTHONUNBUFFERED": "1"}

    def run(self, *words: str) -> str:
        outcome = subprocess.run(
            [sys.executable, *words],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
        return outcome.stdout


@pytest.fixture
def url(redis_db: str) -> str:
    return f"phonon://{redis_db}"


def test_bare_kombu(url: str) -> None:
    example = Runner(EXAMPLES / "bare_kombu", url)
    assert example.run("consumer.py", "0.2").splitlines() == ["waiting for events", "nothing more"]
    example.run("producer.py")
    assert example.run("consumer.py", "1").splitlines() == [
        "waiting for events",
        *(f"order.paid {{'order': {number}}}" for number in (1, 2, 3)),
        "nothing more",
    ]


def test_celery_app(url: str, tmp_path: Path, redis_server: RedisServer) -> None:
    example = Runner(EXAMPLES / "celery_app", url)
    assert example.run("send.py") == "6 orders sent\n"
    log_path = tmp_path / "worker.log"
    with log_path.open("wb") as log:
        worker = subprocess.Popen(
            [*(sys.executable, "-m", "celery", "-A", "shop", "worker"), *("-c", "1", "-l", "INFO")],
            cwd=example.directory,
            env=example.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(
            lambda: log_path.read_text().count("is on its way") == 6,
            60,
            message=f"the worker wrote: {log_path.read_text()}",
        )
        packed = [line for line in log_path.read_text().splitlines() if "is packed" in line]
        assert "order 0 is packed" in packed[0], "priority 0 is the most urgent"
        worker.terminate()
        assert worker.wait(20) == 0
    finally:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
