"""Every point at which a process can be killed, one after the other: nothing is ever lost.

A process between its first and its last command to Redis can only be killed before a command was
carried out, after it, or after its reply came. All of these points are tried, by a proxy that
counts the commands and kills the process at the k-th.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection

from phonon_kombu.store.keys import queue_keys
from phonon_kombu.store.scripts import load
from tests.faults import crash
from tests.faults.proxy import Proxy, When
from tests.servers import RedisServer, wait_for

#: Victims at a time: they wait most of the time.
AT_ONCE = 12
#: Scripts that finish jobs: the number of the first argument that is the id of one.
FINISHING = {
    f"EVALSHA {load(name).sha}": first for name, first in (("job/finish", 2), ("job/claim", 4))
}
#: Longer than the slowest recovery on a busy machine.
DRAIN_SECONDS = 60.0


@dataclass
class Outcome:
    """What became of one victim and its messages."""

    at: int
    when: str
    name: str
    told: dict[str, set[int]]
    drained: Counter[int]
    #: Acknowledged, and the server has said so.
    finished: set[int]
    left_over: int

    @property
    def lost(self) -> set[int]:
        """Published, never acknowledged by anybody, and gone."""
        return self.told["published"] - self.told["acking"] - set(self.drained)

    @property
    def wrongly_twice(self) -> set[int]:
        """Delivered again, though the acknowledgement had been carried out."""
        return self.finished & set(self.drained) | {n for n, c in self.drained.items() if c > 1}

    @property
    def fine(self) -> bool:
        return not self.lost and not self.wrongly_twice and not self.left_over


def drain(server: RedisServer, prefix: str) -> tuple[Counter[int], int]:
    """Consume all that is there, as a new process would; what came, how many jobs are left."""
    items = queue_keys(crash.QUEUE, prefix).items
    client = server.client()
    got: Counter[int] = Counter()

    def on_message(message: Any) -> None:
        got[message.payload] += 1
        message.ack()

    url = server.url("phonon")
    with Connection(url, transport_options=crash.options(prefix)) as connection:
        crash.consumer(connection, on_message, prefetch=10)
        deadline = time.monotonic() + DRAIN_SECONDS
        while client.hlen(items) and time.monotonic() < deadline:
            with contextlib.suppress(socket.timeout):
                connection.drain_events(timeout=0.1)
    return got, int(client.hlen(items))


def run(server: RedisServer, folder: Path, at: int, when: When) -> Outcome:
    """Kill a victim at its command number `at`, then see what is left."""
    prefix, log = f"{when}{at}.", folder / f"{when}{at}"
    with Proxy(server.port) as proxy:
        victim = crash.start(proxy.port, prefix, log)
        proxy.crash_at(at, when, lambda: os.kill(victim.pid, signal.SIGKILL))
        victim.join(60)
        assert not victim.is_alive(), "the victim hangs"
        commands = list(proxy.commands)
    drained, left_over = drain(server, prefix)
    finished = {
        int(word[1:])
        for command in commands
        if command.name in FINISHING and command.reply is not None
        for word in command.words[2 + int(command.words[2]) + FINISHING[command.name] :]
        if word.startswith(b"m")
    }
    name = commands[at - 1].name if at <= len(commands) else "(none: it had ended)"
    return Outcome(at, when, name, crash.told(log), drained, finished, left_over)


@pytest.mark.timeout(300)
def test_nothing_is_lost_wherever_a_process_is_killed(
    redis_server: RedisServer, redis_db: str, tmp_path: Path
) -> None:
    with Proxy(redis_server.port) as proxy:
        victim = crash.start(proxy.port, "whole.", tmp_path / "whole")
        victim.join(60)
        assert victim.exitcode == 0
        count = len(proxy.commands)
    whole = crash.told(tmp_path / "whole")
    assert whole["left"] and len(whole["published"]) == 13 and len(whole["acking"]) == 8
    # Left in good order: what it had not acknowledged is there at once, nothing else is.
    assert set(drain(redis_server, "whole.")[0]) == whole["published"] - whole["acking"]

    points = [(at, when) for at in range(1, count + 3) for when in ("sent", "answered")]
    started = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(lambda point: run(redis_server, tmp_path, *point), points))

    failed = [outcome for outcome in outcomes if not outcome.fine]
    again = sum(len(o.told["acking"] & set(o.drained)) for o in outcomes)
    print(
        f"{len(points)} crash points in {time.monotonic() - started:.0f} s: lost "
        f"{sum(len(o.lost) for o in outcomes)}, left over {sum(o.left_over for o in outcomes)}, "
        f"delivered again after an acknowledgement that Redis had not heard of {again}, that it "
        f"had carried out {sum(len(o.wrongly_twice) for o in outcomes)}"
    )
    assert not failed, failed[:3]
    # The points are all over the scenario, and there is something to save at most of them. (How
    # many acknowledgements go in one command depends on how quick the machine is.)
    assert len({len(o.told["published"]) for o in outcomes}) > 10
    assert len({len(o.finished) for o in outcomes}) > 2
    assert sum(bool(o.drained) for o in outcomes) > len(outcomes) / 2
    wait_for(lambda: not redis_server.client().keys("*node.dying*"), 10, message="dying left")
