"""``celery phonon``: the command line, the demo's input and its account."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from phonon_kombu.demo.display import Plain
from phonon_kombu.demo.kill import Accident
from phonon_kombu.demo.ledger import Ledger, Outcome, stock_url
from phonon_kombu.demo.run import Options, Report
from phonon_kombu.demo.sources import FileCount, count_file, library_files
from phonon_kombu.errors import PhononError
from tests.servers import RedisServer


def celery_phonon(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``celery phonon ...`` as a user does: by Celery's own command, without ``-A``."""
    return subprocess.run(
        [sys.executable, "-m", "celery", "phonon", *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_commands_need_no_application() -> None:
    outcome = celery_phonon("--help")
    assert outcome.returncode == 0, outcome.stderr
    assert "demo" in outcome.stdout
    outcome = celery_phonon("demo", "--help")
    for option in ("--limit", "--workers", "--concurrency", "--broker", "--json"):
        assert option in outcome.stdout


def test_celery_lists_the_command() -> None:
    outcome = subprocess.run(
        [sys.executable, "-m", "celery", "--help"], capture_output=True, text=True, check=False
    )
    assert "phonon" in outcome.stdout
    assert "Warning" not in outcome.stdout, "a broken plugin is listed with a warning"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--limit", "0"], "0 is not in the range"),
        (["--workers", "none"], "not a valid integer"),
        (["--broker", "amqp://localhost"], "the demo runs on a Redis server"),
        (["--broker", "phonon://:secret@127.0.0.1:1/0"], "cannot reach phonon://:**@127.0.0.1:1"),
        (["--broker", "phonon+embedded:///dev/null/x"], "cannot make the directory /dev/null/x"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(words: list[str], said: str) -> None:
    outcome = celery_phonon("demo", "--limit", "1", *words)
    assert outcome.returncode != 0
    assert said in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert "secret" not in outcome.stdout + outcome.stderr


@pytest.mark.parametrize(
    ("source", "count"),
    [
        (b"", FileCount(0, 0, 0, False)),
        (
            b"class A:\n    def f(self):\n        async def g(): ...\n\nlambda: 0\n",
            FileCount(5, 2, 1, False),
        ),
        (b"print 'python 2'\n", FileCount(1, 0, 0, True)),
        (b"x = '\0'\n", FileCount(1, 0, 0, True)),
        (b"# coding: latin-1\n\xe9 = 1\n", FileCount(2, 0, 0, False)),
        (b"# coding: no-such-codec\n", FileCount(1, 0, 0, True)),
        (b"\xff\xfe", FileCount(0, 0, 0, True)),
        (b"(" * 5000 + b")" * 5000, FileCount(0, 0, 0, True)),
        (rb"'\d'" + b"\n", FileCount(1, 0, 0, False)),
    ],
)
@pytest.mark.filterwarnings("error")
def test_counting_a_file(tmp_path: Path, source: bytes, count: FileCount) -> None:
    path = tmp_path / "source.py"
    path.write_bytes(source)
    assert count_file(str(path)) == count


def test_library_files_are_the_standard_library_only() -> None:
    files = library_files()
    assert Path(os.__file__) in files
    assert len(files) == len(set(files)) > 300
    assert not [path for path in files if "site-packages" in path.parts]


@pytest.mark.parametrize(
    ("url", "stock"),
    [
        ("phonon://u:p@h:1/2", "redis://u:p@h:1/2"),
        ("phonons://h", "rediss://h"),
        ("phonon+socket:///a/b?virtual_host=1", "redis+socket:///a/b?virtual_host=1"),
        ("phonon+sentinel://a;phonon+sentinel://b", "sentinel://a;sentinel://b"),
        ("redis://h", "redis://h"),
    ],
)
def test_stock_url(url: str, stock: str) -> None:
    assert stock_url(url) == stock


def test_ledger_counts_what_was_lost_and_what_ran_twice(
    redis_server: RedisServer, redis_db: str
) -> None:
    ledger = Ledger(f"phonon://{redis_db}", "run")
    try:
        for task_id in ("a", "b", "b", "stranger"):
            ledger.record(task_id, FileCount(10, 2, 1, unparsable=task_id == "a"))
        assert ledger.finished() == 3
        assert ledger.outcome(["a", "b", "c", "d"]) == Outcome(
            files=4, unparsable=1, lines=30, functions=6, classes=3, lost=2, run_twice=1
        )
        excused = ledger.outcome(["a", "b"], in_hand={"a", "b"})
        assert (excused.run_twice, excused.redelivered) == (0, 1)
        client = redis_server.client()
        keys = client.keys()
        assert keys and all(0 < client.ttl(key) <= 3600 for key in keys)
        ledger.clear()
        assert client.keys() == []
    finally:
        ledger.close()


def test_ledger_without_a_server() -> None:
    with pytest.raises(PhononError, match="cannot reach"):
        Ledger("phonon://127.0.0.1:1/0", "run")


def report(lost: int = 0, run_twice: int = 0, still_queued: int = 0) -> Report:
    outcome = Outcome(1234, 5, 98765, 432, 10, lost, run_twice)
    return Report(outcome, still_queued, 2.0, Options("phonon://h", None, 2, 2), "Redis 8")


def test_report_is_good_only_if_every_task_ran_once() -> None:
    assert report().good
    assert report().verdict() == "Every task ran exactly once."
    for bad in (report(lost=1), report(run_twice=1), report(still_queued=1)):
        assert not bad.good
    assert report(3, 2, 1).verdict() == (
        "Not every task ran exactly once: 3 lost, 2 run twice, 1 still queued."
    )


def test_report_of_a_killed_worker() -> None:
    accident = Accident("demo1@x", {"a", "b"}, back_seconds=3.14)
    outcome = Outcome(10, 0, 100, 10, 1, lost=0, run_twice=0, redelivered=1)
    told = Report(outcome, 0, 2.0, Options("phonon://h", None, 2, 2), "Redis 8", accident)
    assert told.good and "ran again" in told.verdict()
    rows = dict(told.rows())
    assert rows["killed with tasks in hand"] == "2"
    assert rows["  back in the queue after"] == "3.1 s"
    assert rows["  redelivered, run again"] == "1"
    killed = {"worker": "demo1@x", "in_hand": 2, "back_seconds": 3.14}
    assert json.loads(told.json())["killed"] == killed


def test_plain_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    Plain(sys.stdout).table(report(lost=1).rows(), good=False)
    lines = capsys.readouterr().out.splitlines()
    shown = dict(line.rsplit(maxsplit=1) for line in lines if line)
    assert shown["  files"] == "1,234"
    assert shown["  tasks/s"] == "616"
    assert shown["  lost"] == "1"
    assert len({len(line) for line in lines if line}) == 1
