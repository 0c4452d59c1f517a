"""The demo's account of itself, in the broker's Redis: which task ran, how often, with what result.

Lost and repeated tasks are measured, not inferred: a task's last act is to write down its own id.
"""

from __future__ import annotations

import os
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
        self._totals = f"phonon-demo:{{{run}}}:totals"
        self._workers = f"phonon-demo:{{{run}}}:workers"

    def record(self, task_id: str, count: FileCount) -> None:
        """A task has come to its end."""
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hincrby(self._runs, task_id, 1)
            for field, value in asdict(count).items():
                pipe.hincrby(self._totals, field, int(value))
            pipe.expire(self._runs, EXPIRY_SECONDS)
            pipe.expire(self._totals, EXPIRY_SECONDS)
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
        totals = {_text(k): int(n) for k, n in self._client.hgetall(self._totals).items()}
        return Outcome(
            files=len(sent),
            unparsable=totals.get("unparsable", 0),
            lines=totals.get("lines", 0),
            functions=totals.get("functions", 0),
            classes=totals.get("classes", 0),
            lost=sum(task not in runs for task in sent),
            run_twice=sum(n > 1 for task, n in runs.items() if task not in in_hand),
            redelivered=sum(n > 1 for task, n in runs.items() if task in in_hand),
        )

    def clear(self) -> None:
        """Remove the account."""
        self._client.delete(self._runs, self._totals, self._workers)

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
