"""The rules of docs/howto/acl.md are enough for all that a worker does."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from phonon_kombu.errors import ScriptRefused
from phonon_kombu.thoonk import Thoonk
from tests.celery.exam import Exam
from tests.servers import RedisServer, wait_for

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "acl.md"


def rules() -> list[str]:
    """The words of the page's ACL SETUSER, after the user's name."""
    block = re.search(r"```\n(ACL SETUSER .*?)```", PAGE.read_text("utf-8"), re.S)
    assert block is not None
    words = shlex.split(block[1].replace("&*", "'&*'").replace(">secret", "'>secret'"))
    assert words[:3] == ["ACL", "SETUSER", "shop"]
    return words[3:]


def row(about: str) -> list[str]:
    """What the page's table adds for somebody who uses this."""
    line = next(
        line for line in PAGE.read_text("utf-8").splitlines() if line.startswith(f"| {about}")
    )
    return [word for code in re.findall("`([^`]*)`", line.split(" | ")[1]) for word in code.split()]


@pytest.fixture
def guarded(redis_server: RedisServer, scheme: str) -> Iterator[Exam]:
    """An exam whose broker is reached by the page's user; its server is the test's own."""
    server = RedisServer().start()
    server.client().execute_command("ACL", "SETUSER", "shop", *rules())
    with Exam(redis_server, scheme, broker_server=server) as exam:
        exam.broker = exam.broker.replace("://", "://shop:secret@")
        exam.app = exam.make_app()
        yield exam
    server.stop()


def refused(exam: Exam) -> list[str]:
    """What the server has refused to anybody."""
    log = exam.broker_server.client().acl_log()
    return [f"{entry['reason']} {entry['object']}" for entry in log]


def test_a_worker_with_these_rules(guarded: Exam) -> None:
    tag = "acl"
    with guarded.worker(concurrency=1) as one, guarded.worker(concurrency=1) as two:
        guarded.listening(one, two)
        ids = [guarded.task("record_late").delay(tag, n, 0.2).id for n in range(20)]
        ids.append(guarded.task("refuse").delay(tag, 2).id)
        ids.append(guarded.task("stubborn").delay(tag, 1, 0.5).id)
        ids.append(guarded.task("record").apply_async((tag,), countdown=1, priority=5).id)
        guarded.wait_ended(tag, 4)
        two.kill()
        killed_at = time.time()
        ended = guarded.wait_ended(tag, len(ids))
        again = [run["at"] for run in guarded.log(tag, "start") if run["redelivered"]]
        assert again and min(t for t in again if t > killed_at) - killed_at < 10
    assert set(ended) == set(ids)
    assert refused(guarded) == []


def test_a_thoonk_session_with_these_rules(guarded: Exam) -> None:
    with Thoonk(guarded.broker) as thoonk:
        job = thoonk.job("jobs")
        job.put("item", id="a", delay_seconds=0.1)
        assert job.get(timeout=5).id == "a"
        job.cancel("a")
        job.stall("a", "why")
        job.retry("a")
        job.get(timeout=5)
        job.finish("a", "contents", result=True)
        assert job.get_result("a", timeout=5) == ("item", "contents")
        job.maintenance()
    assert refused(guarded) == []


def test_other_keys_are_out_of_reach(guarded: Exam) -> None:
    """The fence is there: else the tests above would prove nothing."""
    with Thoonk(guarded.broker) as thoonk, pytest.raises(ScriptRefused):
        thoonk.link.command(b"GET", b"another application's")
    wait_for(lambda: refused(guarded) == ["key another application's"])


@pytest.mark.parametrize("without", ["+client|list", "+info"])
def test_heartbeats_alone(guarded: Exam, without: str) -> None:
    """Without the rules that may be left out a killed worker is noticed all the same, later."""
    client = guarded.broker_server.client()
    client.execute_command("ACL", "SETUSER", "shop", without.replace("+", "-"))
    tag = "beats"
    options = {"node_ttl": 3, "heartbeat_interval": 1}
    settings = {"broker_transport_options": options}
    with (
        guarded.worker(concurrency=1, settings=settings),
        guarded.worker(concurrency=1, settings=settings) as two,
    ):
        # (Nobody is asked whether he listens: whoever waits for an answer is a node as well, with
        # the node_ttl of its own application.)
        ids = [guarded.task("record_late").delay(tag, n, 0.2).id for n in range(20)]
        guarded.wait_ended(tag, 4)
        two.kill()
        assert set(guarded.wait_ended(tag, len(ids))) == set(ids)
