"""``celery phonon status``, ``jobs``, ``show``, ``stall``, ...: what they print, how they end."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

import pytest
from celery import Celery
from click.testing import CliRunner, Result

from phonon_kombu.cli import phonon
from phonon_kombu.control import JobInfo, Operator
from tests.celery.exam import Exam
from tests.celery.workers import run_celery
from tests.control.commands import Run, ok, publish
from tests.control.holder import holding
from tests.servers import RedisServer


def test_status(app: Celery, run: Run, operator: Operator) -> None:
    assert ok(run("status")) == "There are no queues.\n\nNo worker takes jobs.\n"
    ids = publish(app, 3)
    publish(app, 1200, queue="other", ignore_result=True)
    operator.stall(ids[0])
    operator.pause("other")
    with holding(app, 1):
        head, other, shop, _, workers, worker = ok(run("status")).splitlines()
        assert head.split() == ["QUEUE", "READY", "SCHEDULED", "CLAIMED", "STALLED", "OLDEST"]
        assert other.split()[:5] == ["other", "1,200", "0", "0", "0"] and "paused" in other
        assert shop.split()[:5] == ["shop", "1", "0", "1", "1"]
        assert workers.split() == ["WORKER", "PID", "UP", "LAST", "BEAT", "QUEUES"]
        assert str(os.getpid()) in worker and worker.endswith("shop")
        found = json.loads(ok(run("status", "shop", "--json")))
        assert [queue["name"] for queue in found["queues"]] == ["shop"]
        assert found["workers"][0]["pid"] == os.getpid()


def test_jobs_and_their_pages(app: Celery, run: Run, operator: Operator) -> None:
    assert ok(run("jobs")) == "There are no such jobs.\n"
    ids = [app.tasks["shop.add"].apply_async((1, 1), task_id=f"t{n:02}").id for n in range(30)]
    (mail,) = publish(app, 1, "shop.mail", priority=3)
    operator.stall(mail, reason="no post")
    with holding(app, 1):
        first = run("jobs", "-n", "12")
        head, *lines = ok(first).splitlines()
        assert head.split() == ["ID", "STATE", "AGE", "TASK", "NOTE"]
        assert [line.split()[0] for line in lines] == ids[:12]
        assert f"pid {os.getpid()} on " in lines[0]
        cursor = re.search(r"--cursor (\S+)", first.stderr)
        second = run("jobs", "-n", "100", "--cursor", cursor[1])
        *lines, last = ok(second).splitlines()[1:]
        assert [line.split()[0] for line in lines] == ids[12:]
        assert last.split(maxsplit=4) == [mail, "stalled", "-", "shop.mail", "no post, priority 3"]
        assert second.stderr == ""
        page = json.loads(ok(run("jobs", "--state", "stalled", "--json")))
        assert [job["reason"] for job in page["jobs"]] == ["no post"] and page["cursor"] is None
        assert ok(run("jobs", "--older-than", "1h")) == "There are no such jobs.\n"


def test_show(app: Celery, run: Run) -> None:
    (task_id,) = publish(app, 1)
    shown = ok(run("show", task_id, "--body"))
    facts = dict(line.strip().split("  ", 1) for line in shown.splitlines())
    assert (facts["id"], facts["task"], facts["args"]) == (task_id, "shop.add", "(1, 1)")
    assert (facts["state"], facts["queue"], facts["failures"]) == ("ready", "shop", "0")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(.* ago\)", facts["put"])
    assert facts["body"].startswith("[[1, 1], {}")
    publish(app, 1, task_id=task_id)
    found = json.loads(ok(run("show", task_id, "--json")))
    assert [job["id"] for job in found] == [task_id, f"{task_id}~1"]
    assert "body" not in found[0]
    missing = run("show", task_id, "nobody")
    assert missing.exit_code == 1 and task_id in missing.stdout
    assert "no job of task nobody is there" in missing.stderr


def test_a_job_that_vanishes_while_it_is_shown(
    app: Celery, run: Run, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, done, last = publish(app, 3)
    read = Operator.item

    def item(self: Operator, job: JobInfo) -> bytes:
        if job.id == done:
            operator.retract(done)
        return read(self, job)

    monkeypatch.setattr(Operator, "item", item)
    shown = run("show", first, done, last, "--body", "--json")
    assert [job["id"] for job in json.loads(shown.stdout)] == [first, last]
    assert shown.exit_code == 1 and f"no job of task {done} is there" in shown.stderr


def test_a_compressed_body_is_shown(app: Celery, run: Run) -> None:
    (task_id,) = publish(app, 1, compression="gzip")
    (found,) = json.loads(ok(run("show", task_id, "--body", "--json")))
    assert found["body"].startswith("[[1, 1], {}")


def test_stall_retry_and_their_refusals(app: Celery, run: Run, operator: Operator) -> None:
    first, second = publish(app, 2)
    said = ok(run("stall", first, "--reason", "no paper"))
    assert said == f"Job {first} of queue shop is stalled.\n"
    assert operator.get(first).reason == "no paper"
    partly = run("retry", first, second)
    assert partly.exit_code == 1
    assert partly.stdout == f"Job {first} of queue shop is ready again.\n"
    assert "is not stalled: it is ready" in partly.stderr
    refused = run("retry", first)
    assert (refused.exit_code, refused.stdout) == (1, "") and "not stalled" in refused.stderr
    assert ok(run("stall", "-Q", "shop")) == "2 jobs are stalled.\n"
    assert ok(run("stall", "-Q", "shop")) == "There are no such jobs.\n"
    outcome = json.loads(ok(run("retry", "--task", "shop.add", "--json")))
    assert (outcome["done"], outcome["refused"]) == (2, 0)


def test_what_cannot_be_undone_is_asked(app: Celery, run: Run, operator: Operator) -> None:
    ids = publish(app, 3)
    for answer in ("n\n", ""):
        declined = run("retract", "-Q", "shop", stdin=answer)
        assert (
            declined.exit_code == 1 and "Delete 3 jobs? This cannot be undone." in declined.stderr
        )
    assert operator.status("shop")[0].ready == 3
    assert ok(run("retract", ids[0], stdin="y\n")) == f"Job {ids[0]} of queue shop is deleted.\n"
    with holding(app, 1):
        # By ids it is about those that are claimed, too; named twice, about each once.
        for words in (["--state", "claimed"], [*ids[1:], ids[1]]):
            asked = run("cancel", *words, stdin="n\n")
            assert "Put back 1 job? Those that run will run twice." in asked.stderr
        unasked = run("cancel", ids[2])
        assert unasked.exit_code == 1
        assert unasked.stderr == f"Error: job '{ids[2]}' is not claimed: it is ready\n"
        ok(run("cancel", ids[1], "--yes", "--delay", "10m"))
        assert operator.get(ids[1]).state == "scheduled"
    assert ok(run("retract", "-Q", "shop", "-y")) == "2 jobs are deleted.\n"
    assert run("retract", "nobody", stdin="y\n").exit_code == 1


def test_pause_and_resume(app: Celery, run: Run, operator: Operator) -> None:
    publish(app, 1)
    publish(app, 1, queue="other")
    refused = run("pause", "shop", "shpo")
    assert refused.exit_code == 1 and "Did you mean 'shop'?" in refused.stderr
    assert not any(status.paused for status in operator.status())
    assert ok(run("pause", "shop", "other")) == "Queue shop is paused.\nQueue other is paused.\n"
    assert ok(run("pause", "shop")) == "Queue shop was paused already.\n"
    twice = json.loads(ok(run("resume", "shop", "shop", "--json")))
    assert twice == [{"queue": "shop", "changed": True}]
    assert len(json.loads(ok(run("status", "shop", "shop", "--json")))["queues"]) == 1
    assert ok(run("resume", "shop")) == "Queue shop was not paused.\n"


def told(result: Result) -> tuple[int, str, str]:
    """Exit status, and the error that was printed as an object, of which people read the text."""
    found = json.loads(result.stdout)
    assert set(found) == {"error", "text"} and found["text"].splitlines()[0] in result.stderr
    return result.exit_code, found["error"], found["text"]


def test_refusals_as_json(app: Celery, run: Run) -> None:
    (task_id,) = publish(app, 1)
    for words in (["retry", "nope"], ["stall", "nope"], ["retract", "nope", "-y"]):
        assert told(run(*words, "--json"))[:2] == (1, "NotFound")
    assert told(run("retry", task_id, "--json"))[:2] == (1, "NotStalled")
    for words in (["status", "shpo"], ["pause", "shpo"], ["jobs", "-Q", "shpo"]):
        status, error, text = told(run(*words, "--json"))
        assert (status, error) == (1, "NotFound") and "Did you mean 'shop'?" in text
    assert told(run("jobs", "--cursor", "x", "--json"))[:2] == (2, "ConfigurationError")
    declined = run("retract", task_id, "--json", stdin="n\n")
    assert declined.exit_code == 1 and json.loads(declined.stdout)["error"] == "Declined"
    away = Celery("away", broker="phonon://:secret@127.0.0.1:1/0", set_as_current=False)
    status, error, text = told(run("status", "--json", app=away))
    assert (status, error) == (69, "ConnectionError") and "secret" not in text
    other = Celery("other", broker="amqp://me:secret@localhost//", set_as_current=False)
    assert told(run("jobs", "--json", app=other))[:2] == (2, "ConfigurationError")
    shown = run("show", task_id, "nope", "--json")
    assert shown.exit_code == 1 and [job["id"] for job in json.loads(shown.stdout)] == [task_id]


def test_what_is_said_of_stalled_jobs(app: Celery, run: Run, operator: Operator) -> None:
    first, second = publish(app, 2)
    ok(run("stall", first, "-r", "no paper"))
    assert ok(run("stall", first, "-r", "new")) == (
        f"Job {first} of queue shop was stalled already.\n"
    )
    assert operator.get(first).reason == "no paper"
    assert ok(run("stall", first, second)) == (
        f"Job {second} of queue shop is stalled.\nJob {first} of queue shop was stalled already.\n"
    )
    assert ok(run("stall", "-s", "stalled")) == "2 jobs were stalled already.\n"
    ok(run("retry", second))
    refused = run("retry", "-s", "ready")
    assert refused.exit_code == 1
    assert refused.stderr == f"Refused: job '{second}' is not stalled: it is ready\n"


def test_a_job_that_failed_too_often(app: Celery, run: Run, operator: Operator) -> None:
    """Its reason says how often; the count is not kept."""
    (task_id,) = publish(app, 1)
    operator.link.command(b"HSET", operator.keys("shop").config, b"max_deliveries", b"1")
    with holding(app, 1):
        operator.cancel(task_id)
        assert operator.get(task_id).state == "stalled"
    facts = dict(line.strip().split("  ", 1) for line in ok(run("show", task_id)).splitlines())
    assert facts["reason"].startswith("max_deliveries: failed") and "failures" not in facts


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["retract"], "which jobs?"),
        (["stall", "x", "--task", "y"], "not both"),
        (["jobs", "--state", "lost"], "'lost' is not one of 'ready', 'scheduled'"),
        (["jobs", "--older-than", "soon"], "'soon' is no duration"),
        (["jobs", "--cursor", "x"], "'x' is no cursor of a page"),
        (["retry", "--older-than", "1h"], "how old a stalled job is, is not known"),
        (["show"], "Missing argument"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Run, words: list[str], said: str) -> None:
    result = run(*words)
    assert result.exit_code == 2 and said in result.stderr


def test_no_server_and_no_broker_of_ours(run: Run, redis_server: RedisServer) -> None:
    away = Celery("away", broker="phonon://:secret@127.0.0.1:1/0", set_as_current=False)
    result = run("status", app=away)
    assert result.exit_code == 69 and "the server cannot be reached" in result.stderr
    other = Celery("other", broker="amqp://me:secret@localhost//", set_as_current=False)
    refused = run("status", app=other)
    assert refused.exit_code == 2
    assert "works with phonon://" in refused.stderr and "-b" in refused.stderr
    wrong = Celery("wrong", broker=f"phonon://127.0.0.1:{redis_server.port}/999")
    assert run("status", app=wrong).exit_code in (2, 69)
    for one in (result, refused):
        assert "secret" not in one.output and "Traceback" not in one.output


def test_as_users_run_it(redis_server: RedisServer) -> None:
    """By Celery's own command, with an application and with a URL alone; also on a terminal."""
    with Exam(redis_server, "phonon") as exam:
        task_id = exam.task("add").delay(1, 1).id
        assert f"Job {task_id} of queue exam is stalled." in exam.celery("phonon", "stall", task_id)
        done = run_celery(["-b", exam.broker, "phonon", "retry", task_id], os.environ, app=None)
        assert done.returncode == 0, done.stderr
        main_fd, terminal_fd = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "celery", "-b", exam.broker, "phonon", "jobs"],
            env={**os.environ, "COLUMNS": "100", "TERM": "xterm"}, stdin=terminal_fd,
            stdout=terminal_fd, stderr=terminal_fd,
        ) as process:  # fmt: skip
            os.close(terminal_fd)
            assert process.wait(60) == 0
        shown = os.read(main_fd, 10_000).decode()
        os.close(main_fd)
        assert task_id in shown and "\x1b[" in shown


def test_the_group_reads_well() -> None:
    text = ok(CliRunner().invoke(phonon, ["--help"]))
    for word in ("Exit status", "status", "retract", "demo", "--state stalled"):
        assert word in text
    assert "..." not in text.partition("Commands:")[2]
