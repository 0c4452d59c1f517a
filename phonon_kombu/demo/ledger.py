"""The demo's account of itself, in the broker's Redis: which task ran, how often, with what result.

Lost and repeated tasks are measured, not inferred: a task's last act is to write down its own id.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from kombu import Connection
from kombu.utils.url import maybe_sanitize_url

from ..errors import PhononError
from .sources import FileCount

#: How long the account outlives a demo that was killed before it could clear up.
EXPIRY_SECONDS = 3600
STOCK_SCHEMES = {
    "phonon": "redis",
    "phonon+tcp": "redis",
    "phonons": "rediss",
    "phonon+socket": "redis+socket",
    "phonon+sentinel": "sentinel",
}


@dataclass(frozen=True)
class Outcome:
    """What became of the tasks that were sent."""

    files: int
    unparsable: int
    lines: int
    functions: int
    classes: int
    lost: int
    run_twice: int
    #: Tasks that ran twice because the worker that held them was killed.
    redelivered: int = 0


@dataclass(frozen=True)
class Closing:
    """What is known of the closing of the demo's chord. Times are seconds since the epoch."""

    #: The worker that was killed as it closed the chord, and when; None: none was.
    killed: str | None = None
    killed_at: float | None = None
    #: How often the body has run, under any id; when and where first, and what it was given.
    body_runs: int = 0
    body_at: float | None = None
    body_on: str | None = None
    aggregate: dict[str, Any] | None = None


class Ledger:
    """The account of one run of the demo, on the server that ``url`` names.

    Raises :class:`~phonon_kombu.errors.PhononError` if that is no Redis, or none that answers.
    """

    def __init__(self, url: str, run: str) -> None:
        # The stock transport serves as a reader of URLs here: sockets, TLS, Sentinel and all.
        self._connection = Connection(stock_url(url))
        try:
            self._client: Any = self._connection.default_channel.client
        except Exception as exc:
            reason = str(exc) or type(exc).__name__
            raise PhononError(f"cannot reach {maybe_sanitize_url(url)}: {reason}") from exc
        self._runs = f"phonon-demo:{{{run}}}:runs"
        self._counts = f"phonon-demo:{{{run}}}:counts"
        self._workers = f"phonon-demo:{{{run}}}:workers"
        self._chord = f"phonon-demo:{{{run}}}:chord"

    def record(self, task_id: str, count: FileCount) -> None:
        """A task has come to its end."""
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hincrby(self._runs, task_id, 1)
            # By task: what runs twice is in the totals once.
            pipe.hset(self._counts, task_id, json.dumps(asdict(count)))
            pipe.expire(self._runs, EXPIRY_SECONDS)
            pipe.expire(self._counts, EXPIRY_SECONDS)
            pipe.execute()

    def finished(self) -> int:
        """How many different tasks have come to their end."""
        return int(self._client.hlen(self._runs))

    def sign_in(self, worker: str) -> None:
        """A worker is ready for tasks."""
        self._client.hset(self._workers, worker, os.getpid())
        self._client.expire(self._workers, EXPIRY_SECONDS)

    def signed_in(self) -> set[str]:
        """Names of the workers that are ready."""
        return {_text(name) for name in self._client.hkeys(self._workers)}

    def outcome(self, sent: list[str], in_hand: Collection[str] = ()) -> Outcome:
        """Hold the ids of the tasks that were sent against those that ran.

        Those of `in_hand` may run twice: their worker was killed.
        """
        runs = {_text(task): int(n) for task, n in self._client.hgetall(self._runs).items()}
        totals: Counter[str] = Counter()
        for counted in self._client.hvals(self._counts):
            totals.update(json.loads(counted))
        return Outcome(
            files=len(sent),
            unparsable=totals["unparsable"],
            lines=totals["lines"],
            functions=totals["functions"],
            classes=totals["classes"],
            lost=sum(task not in runs for task in sent),
            run_twice=sum(n > 1 for task, n in runs.items() if task not in in_hand),
            redelivered=sum(n > 1 for task, n in runs.items() if task in in_hand),
        )

    def doom_the_closer(self) -> None:
        """Let the worker that will close the chord be killed as it begins to."""
        self._client.hset(self._chord, "doomed", 1)
        self._client.expire(self._chord, EXPIRY_SECONDS)

    def is_doomed(self, worker: str) -> bool:
        """Whether this worker, which begins to close the chord, is to be killed now: one is."""
        if not self._client.hdel(self._chord, "doomed"):
            return False
        self._client.hset(self._chord, mapping={"killed": worker, "killed_at": time.time()})
        return True

    def record_body(self, worker: str, aggregate: dict[str, Any]) -> None:
        """The chord's body has run."""
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hincrby(self._chord, "body_runs", 1)
            first = {"body_at": time.time(), "body_on": worker, "aggregate": json.dumps(aggregate)}
            for field, value in first.items():
                pipe.hsetnx(self._chord, field, value)
            pipe.expire(self._chord, EXPIRY_SECONDS)
            pipe.execute()

    def closing(self) -> Closing:
        """What has become of the chord."""
        found = {_text(k): _text(v) for k, v in self._client.hgetall(self._chord).items()}
        found.pop("doomed", None)
        read: dict[str, Any] = {
            "killed_at": float, "body_runs": int, "body_at": float, "aggregate": json.loads
        }  # fmt: skip
        return Closing(**{name: read.get(name, str)(value) for name, value in found.items()})

    def clear(self) -> None:
        """Remove the account."""
        self._client.delete(self._runs, self._counts, self._workers, self._chord)

    def close(self) -> None:
        """Close the connection."""
        self._connection.release()


def stock_url(url: str) -> str:
    """The URL by which the stock Redis transport reaches the server of a phonon URL."""
    scheme, _, rest = url.partition("://")
    stock = STOCK_SCHEMES.get(scheme, scheme)
    if stock not in STOCK_SCHEMES.values():
        raise PhononError(
            f"the demo runs on a Redis server: name one as phonon://host:port/0, not {scheme}://"
        )
    return f"{stock}://{rest}".replace(";phonon+sentinel://", ";sentinel://")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
