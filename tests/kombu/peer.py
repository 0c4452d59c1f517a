"""The other process of a test: how to start it, and what it does.

Run as ``python -m tests.kombu.peer URL SETTINGS`` it reads ``[operation, arguments]`` lines and
answers each with a line; it ends, closing nothing, when its input does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from kombu import Connection, Consumer, Exchange, Message, Queue

import phonon_kombu  # noqa: F401  (makes phonon:// known to kombu)

ROOT = Path(__file__).parents[2]


class Peer:
    """Another process with a connection of its own; what it can do is in ``Operations``."""

    def __init__(self, url: str, settings: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.kombu.peer", url, json.dumps(settings)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def __call__(self, operation: str, **arguments: Any) -> Any:
        """Have the other process do something, and return its answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([operation, arguments]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the other process ended: {self.process.wait()}"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def leave(self) -> int:
        """Let the process end by itself, without closing anything; returns its exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(20)

    def close(self) -> None:
        """End the process."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


class Operations:
    """What the other process can be asked to do, one method each."""

    def __init__(self, url: str, settings: dict[str, Any]) -> None:
        self.connection = Connection(url, **settings)
        self.held: list[Message] = []

    def publish(
        self, body: Any, exchange: str = "", type: str = "direct", routing_key: str = ""
    ) -> None:
        """Publish; the exchange is declared, but no queue and no binding ever is."""
        self._producer(exchange, type).publish(body, routing_key=routing_key)

    def _producer(self, exchange: str, type: str) -> Any:
        spec = Exchange(exchange, type=type) if exchange else None
        return self.connection.Producer(exchange=spec)

    def hold(self, queue: str, count: int) -> list[Any]:
        """Consume ``count`` messages and keep them unacknowledged; returns their bodies."""
        Consumer(
            self.connection, [Queue(queue)], on_message=self.held.append, prefetch_count=count
        ).consume()
        while len(self.held) < count:
            self.connection.drain_events(timeout=10)
        return [message.payload for message in self.held]

    def ack_all(self) -> None:
        """Acknowledge what is held."""
        for message in self.held:
            message.ack()

    def requeue_all(self) -> None:
        """Give back what is held, as failed."""
        for message in self.held:
            message.requeue()

    def fork_a_child_that_stays(self) -> int:
        """Fork; the child does nothing for a minute. Returns its process id."""
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        return pid

    def fork_a_child_that_exits(self) -> int:
        """Fork; the child exits by ``sys.exit()``. Returns its exit status."""
        pid = os.fork()
        if pid == 0:
            sys.exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def size(self, queue: str) -> int:
        """Return how many messages are ready, as a passive declare says."""
        return int(self.connection.default_channel.queue_declare(queue, passive=True)[1])


def main() -> None:
    """Answer until the input ends."""
    operations = Operations(sys.argv[1], json.loads(sys.argv[2]))
    for line in sys.stdin:
        name, arguments = json.loads(line)
        try:
            answer = {"value": getattr(operations, name)(**arguments)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
