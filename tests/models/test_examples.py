"""phonon's own example: as the seed has it, in examples/, and its twin on Celery."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.servers import RedisServer, start_server, wait_for

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KINDS = ("unit_impression", "unit_impression", "unit_click")

#: The example as phonon's documentation has it, but for a missing import, two missing brackets and
#: the names that stand for the reader's own.
SEED = """\
import json

import nsq

import phonon.registry
import phonon.connections
import phonon.model
import phonon.field

class Session(phonon.model.Model):
    id = phonon.field.ID()
    impressions = phonon.field.SumField()
    clicks = phonon.field.SumField()

    def on_complete(self, msg):
        # Write the model to the database. You're guaranteed to have the global aggregate now.
        print(f"user {self.id}: {self.impressions} impressions, {self.clicks} clicks", flush=True)
        msg.finish()

def handle_message(msg):
    msg.enable_async()
    body = json.loads(msg.body)
    phonon.registry.register(Session(
        id=body['user_id'],
        impressions=int(body['type'] == 'unit_impression'),
        clicks=int(body['type'] == 'unit_click')), msg)

Session.TTL = 1.0

if __name__ == '__main__':
    phonon.connections.connect(hosts=['redis01.example.com', 'redis02.example.com'])
    nsq.Reader(
        topic=CONVERSION_EVENTS_TOPIC,
        channel=QR_CLICKS_AND_IMPRESSIONS_AGGREGATOR,
        message_handler=handle_message,
        lookupd_http_addresses=['nsq01.example.com', 'nsq02.example.com'],
        max_in_flight=10
    )
    nsq.run()
"""

#: Our modules under phonon's names.
PRELUDE = """\
import sys
from importlib import import_module
sys.modules["phonon"] = import_module("phonon_kombu.phonon")
for name in ("connections", "field", "fields", "lock", "model", "registry"):
    sys.modules["phonon." + name] = import_module("phonon_kombu.phonon." + name)
CONVERSION_EVENTS_TOPIC = QR_CLICKS_AND_IMPRESSIONS_AGGREGATOR = "any"
"""


def events(count: int, users: int) -> list[dict[str, object]]:
    """Events of so many users."""
    return [{"user_id": n % users, "type": KINDS[n % 7 % 3]} for n in range(count)]


def wanted(found: list[dict[str, object]]) -> Counter[tuple[str, str]]:
    """How often each kind of event of each user."""
    return Counter((str(event["user_id"]), str(event["type"])) for event in found)


def printed(text: str) -> tuple[Counter[tuple[str, str]], Counter[str]]:
    """The same out of what programs have printed; and how often each user was."""
    counts: Counter[tuple[str, str]] = Counter()
    users: Counter[str] = Counter()
    for user, impressions, clicks in re.findall(
        r"^user (\d+): (\d+) impressions, (\d+) clicks$", text, re.M
    ):
        counts[user, "unit_impression"] += int(impressions)
        counts[user, "unit_click"] += int(clicks)
        users[user] += 1
    return counts, users


def run_together(
    programs: list[list[str]], tmp_path: Path, environment: dict[str, str]
) -> tuple[str, list[dict[str, object]]]:
    """Run programs at once, each with events of its own on its bus; what they print."""
    running, sent = [], []
    for number, words in enumerate(programs):
        path = tmp_path / f"events.{number}"
        found = events(120 + 30 * number, 4)
        path.write_text("".join(json.dumps(event) + "\n" for event in found))
        sent += found
        running.append(
            subprocess.Popen(
                [sys.executable, *words],
                cwd=EXAMPLES / "phonon_sessions",
                env=os.environ | environment | {"NSQ_EVENTS": str(path)},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    texts = [process.communicate(timeout=90)[0] for process in running]
    assert [process.returncode for process in running] == [0] * len(running)
    return "".join(texts), sent


def test_sessions(redis_server: RedisServer, redis_db: str, tmp_path: Path) -> None:
    """Two processes, two hosts: every event is counted once."""
    with start_server() as other:
        hosts = f"127.0.0.1:{redis_server.port} 127.0.0.1:{other.port}"
        text, sent = run_together([["sessions.py"]] * 2, tmp_path, {"PHONON_HOSTS": hosts})
        left = [key for s in (redis_server, other) for key in s.client().scan_iter("model.row*")]
    assert printed(text)[0] == wanted(sent)
    assert left == []


def test_the_seed_word_for_word(redis_server: RedisServer, redis_db: str, tmp_path: Path) -> None:
    with start_server() as other:
        names = [f"127.0.0.1:{server.port}" for server in (redis_server, other)]
        program = PRELUDE + SEED
        for host, name in zip(("redis01.example.com", "redis02.example.com"), names, strict=True):
            program = program.replace(host, name)
        (tmp_path / "seed.py").write_text(program)
        directory = str(EXAMPLES / "phonon_sessions")
        text, sent = run_together(
            [[str(tmp_path / "seed.py")]] * 2, tmp_path, {"PYTHONPATH": directory}
        )
    assert printed(text)[0] == wanted(sent)


def test_the_seeds_program_is_the_example() -> None:
    """What differs is layout, the time, and where the servers are."""

    def words(text: str) -> list[str]:
        text = re.sub(r'^""".*?"""', "", text, flags=re.S)
        return re.findall(r"\w+", text.replace("import phonon.", "phonon import "))

    example = Counter(words((EXAMPLES / "phonon_sessions" / "sessions.py").read_text()))
    missing = Counter(words(SEED)) - example
    known = "phonon import redis01 redis02 example com Session TTL registry connections model field"
    assert set(missing) <= set(known.split())


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_its_twin_on_celery(url: str, tmp_path: Path, pool: str) -> None:
    """Two workers; every event is counted once."""
    environment = os.environ | {"BROKER_URL": url, "PYTHONUNBUFFERED": "1"}
    directory = EXAMPLES / "phonon_celery"
    workers: list[subprocess.Popen[bytes]] = []
    log = tmp_path / "log"

    def start() -> None:
        words = [
            *("-m", "celery", "-A", "sessions", "worker", "-c", "2"),
            *("-P", pool, "-l", "INFO"),
        ]
        with log.open("ab") as out:
            workers.append(
                subprocess.Popen(
                    [sys.executable, *words],
                    cwd=directory,
                    env=environment,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    try:
        for _ in range(2):
            start()
        wait_for(lambda: log.read_text().count("ready.") == 2, 60)
        sent = subprocess.run(
            [sys.executable, "send.py"],
            cwd=directory,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert sent.stdout == "300 events sent\n"
        wait_for(lambda: sum(printed(log.read_text())[0].values()) >= 300, 60)
        assert sum(printed(log.read_text())[0].values()) == 300
        for worker in workers:
            worker.terminate()
        assert [worker.wait(30) for worker in workers] == [0, 0]
        assert sum(printed(log.read_text())[0].values()) == 300
    finally:
        for worker in workers:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
