"""What commands print, whatever others have written, and wherever it is printed to."""

from __future__ import annotations

import errno
import io
import json
import sys

import pytest
from celery import Celery
from celery.bin.base import CLIContext

from phonon_kombu.cli import phonon, printing
from phonon_kombu.control import Operator
from tests.control.commands import Run, ok, publish


class Full(io.StringIO):
    """As /dev/full."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_stream_is_closed(
    app: Celery,
    operator: Operator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As a shell's ``<&-`` closes it: a question that cannot be asked, or answered, is declined."""
    (task_id,) = publish(app, 1)
    context = CLIContext(app=app, no_color=True, workdir=None)
    for stdin, stderr in ((None, sys.stderr), (io.StringIO("y\n"), Full())):
        with monkeypatch.context() as closed:
            closed.setattr(sys, "stdin", stdin)
            closed.setattr(sys, "stderr", stderr)
            # (click itself says "Aborted!" there, and does not mind what comes of it.)
            with pytest.raises((SystemExit, OSError)):
                phonon.main(["retract", task_id, "--json"], obj=context)
        assert json.loads(capsys.readouterr().out)["error"] == "Declined"
    assert operator.get(task_id).state == "ready"
    monkeypatch.setattr(sys, "stdout", None)
    for words in (["jobs"], ["status"], ["show", task_id]):
        with pytest.raises(SystemExit) as ended:
            phonon.main(words, obj=context)
        assert ended.value.code == 0


def test_json_of_headers_that_json_does_not_know(app: Celery, run: Run, operator: Operator) -> None:
    deep = "[" * 600 + "]" * 600
    item = '{"headers":{"task":"odd","nan":[NaN,-Infinity],"deep":' + deep + "}}\n[]"
    operator.session.job("shop").put(item, id="odd")

    def refuse(name: str) -> None:
        raise AssertionError(name)

    for words in (["show", "odd"], ["jobs"]):
        found = json.loads(ok(run(*words, "--json")), parse_constant=refuse)
        (job,) = found["jobs"] if words == ["jobs"] else found
        assert job["headers"]["nan"] == [None, None] and job["headers"]["deep"][0][0]
    assert operator.get("odd").as_dict()["headers"] == operator.get("odd").headers


def test_a_message_does_nothing_to_the_terminal(app: Celery, run: Run, operator: Operator) -> None:
    evil = "\x1b]0;owned\x07\x1b[31m\nx\u202e"
    operator.session.job("shop").put(
        json.dumps({"headers": {"task": evil, "argsrepr": evil, "id": "1", "origin": evil}})
        + "\n[]",
        id=f"id{evil}",
    )
    operator.stall(f"id{evil}", reason=evil)
    for words in (["jobs"], ["show", f"id{evil}", "--body"], ["status"], ["retry", f"id{evil}"]):
        said = ok(run(*words))
        assert not set("\x1b\x07\u202e") & set(said)
    assert "\\x1b[31m\\nx\\u202e" in ok(run("jobs"))
    operator.session.job(evil).put("x")
    refused = run("status", "none")
    assert "\\x1b[31m" in refused.stderr and not set("\x1b\x07\u202e") & set(refused.stderr)


def test_what_the_terminal_cannot_show(app: Celery, run: Run, operator: Operator) -> None:
    (task_id,) = publish(app, 1, argsrepr="caf\xe9 \u4e2d")
    operator.stall(task_id, reason="[red]caf\xe9 \u4e2d[/]")
    for words in (["show", task_id], ["jobs"]):
        shown = run(*words, charset="latin-1")
        assert shown.exit_code == 0 and b"[red]caf\xe9 \\u4e2d[/]" in shown.stdout_bytes


def test_times_that_no_calendar_knows(run: Run, operator: Operator) -> None:
    """As a foreign client may write them: they hide no other job."""
    keys = operator.keys("shop")
    for name, score in (("a", b"inf"), ("b", b"1e30"), ("c", b"-inf")):
        operator.session.job("shop").put("x", id=name)
        operator.link.command(b"ZADD", keys.published, score, name.encode())
    assert [line.split()[0] for line in ok(run("jobs")).splitlines()] == ["ID", "c", "b", "a"]
    assert ok(run("show", "a", "b", "c")).count("id  ") == 3
    json.loads(ok(run("jobs", "--json")))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(None, "-"), (0, "0.0s"), (-1, "0.0s"), (4.25, "4.2s"), (59.6, "1m 0s"), (10, "10s"),
     (754, "12m 34s"), (7500, "2h 5m"), (100_000, "1d 3h"), (float("inf"), "-"),
     (float("nan"), "-")],
)  # fmt: skip
def test_durations(seconds: float | None, said: str) -> None:
    assert printing.duration(seconds) == said
