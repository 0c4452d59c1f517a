"""The recipes of the guides work as they are printed; only the addresses and times are others."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from celery import Celery

from phonon_kombu.control import Operator
from tests.servers import RedisServer, wait_for

PAGES = Path(__file__).resolve().parents[2] / "docs" / "howto"


def recipe(page: str, mark: str) -> str:
    """The program that stands below a mark."""
    text = (PAGES / f"{page}.md").read_text("utf-8")
    found = re.search(rf"<!-- {mark} -->\n```python\n(.*?)^```", text, re.M | re.S)
    assert found is not None
    return found[1]


@contextmanager
def worker(directory: Path, *words: str) -> Iterator[None]:
    """A worker of the application in shop.py."""
    with (directory / "worker.log").open("wb") as log:
        command = [sys.executable, "-m", "celery", "-A", "shop", "worker", "-P", "solo", *words]
        process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("words", [[], ["-Q", "work"]], ids=["all", "work"])
def test_retry_after_a_while(redis_server: RedisServer, redis_db: str, words: list[str]) -> None:
    program = recipe("dead-letters", "retry")
    program = program.replace("phonon://localhost:6379/0", redis_server.url("phonon"))
    program = program.replace("30_000", "2_000")
    program = program.replace(
        "    raise Reject", '    print(f"tried {url} {time.time()}", flush=True)\n    raise Reject'
    )
    with tempfile.TemporaryDirectory(prefix="phk-") as path:
        directory = Path(path)
        (directory / "shop.py").write_text(f"import time\n\n{program}")

        def tries() -> list[float]:
            log = (directory / "worker.log").read_text(errors="replace")
            return [float(at) for at in re.findall(r"tried x ([\d.]+)", log)]

        app = Celery("client", broker=redis_server.url("phonon"), set_as_current=False)
        with worker(directory, *words), app, Operator(app) as operator:
            wait_for(lambda: {"work", "work.wait"} <= set(operator.queues()), 60)
            app.send_task("shop.fetch", ("x",), queue="work")
            wait_for(lambda: len(tries()) >= 3, 60, message="it is not tried again")
            times = tries()
        # It rests in between: nobody consumes from the parking queue.
        assert all(b - a >= 1.9 for a, b in itertools.pairwise(times))


def test_scheduled_tasks_on_the_way_back(redis_server: RedisServer, redis_db: str) -> None:
    old = Celery("old", broker=redis_server.url("phonon"), set_as_current=False)
    eta = time.time() + 3600
    sent = [
        old.send_task("shop.mail", (n,), {"to": "x"}, countdown=3600, queue=f"q{n % 2}").id
        for n in range(5)
    ]
    program = recipe("switch-from-redis", "resend")
    program = program.replace("phonon://localhost:6379/0", redis_server.url("phonon"))
    program = program.replace("redis://localhost:6379/0", redis_server.url("redis", 1))
    redis_server.client(1).flushdb()
    names: dict[str, object] = {}
    exec(compile(program, "switch-from-redis.md", "exec"), names)
    with Operator(redis_server.url("phonon")) as operator:
        assert list(operator.jobs()) == []
    new = names["new"]
    assert isinstance(new, Celery)
    found = {}
    with new.connection_for_read() as connection:
        for queue in ("q0", "q1"):
            while (message := connection.default_channel.basic_get(queue, no_ack=True)) is not None:
                assert message.headers["task"] == "shop.mail"
                found[message.headers["id"]] = (message.payload[:2], message.headers["eta"])
    assert {i: p for i, (p, _) in found.items()} == {
        i: [[n], {"to": "x"}] for n, i in enumerate(sent)
    }
    from celery.utils.iso8601 import parse_iso8601

    assert all(abs(parse_iso8601(at).timestamp() - eta) < 60 for _, at in found.values())
    old.close()
    new.close()
