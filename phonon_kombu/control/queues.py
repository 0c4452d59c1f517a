"""Looking at queues and processes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ..errors import ConfigurationError, NotFound
from ..phonon.heart import Settings
from ..store.keys import NodeKeys, QueueKeys, feeds_key, queue_keys, shown_name
from ..store.scripts import load
from ..thoonk import Job, Thoonk
from .records import Node, QueueStatus, node_of

#: Queues asked in one write.
QUEUE_SLICE = 50

#: The type of a feed of jobs; none of one that nobody has declared. (A database may have others.)
OF_JOBS = (b"job", None)

#: Queues that Celery's workers use among themselves.
_INTERNAL = ("celeryev.", "amq.gen-")


class Queues:
    """What can be seen of queues and processes. Part of :class:`~.operator.Operator`."""

    def __init__(
        self,
        session: Thoonk,
        configured: Callable[[], Iterable[str]] = tuple,
        node_ttl_seconds: float = Settings.node_ttl,
    ) -> None:
        self.session = session
        #: Queues that the application knows. One that was deleted and is published to by a process
        #: that had declared it before exists without being listed in Redis.
        self.configured = configured
        self.link = session.link
        self.node_keys = NodeKeys(session.prefix)
        #: After so long without a beat a process is dead that does not say otherwise.
        self.node_ttl_seconds = node_ttl_seconds

    def keys(self, queue: str) -> QueueKeys:
        """The keys of `queue`."""
        return queue_keys(queue, self.session.prefix, self.session.hash_tags)

    def job(self, queue: str) -> Job:
        """`queue` as a feed of jobs; it is not made if it does not exist."""
        return Job(self.session, queue)

    def _kind_calls(self, queues: Iterable[str]) -> list[tuple[bytes, ...]]:
        """The calls that tell of what type the feeds of these names are."""
        return [(b"HGET", self.keys(queue).config, b"type") for queue in queues]

    # Queues --------------------------------------------------------------------------------

    def queues(self, internal: bool = False) -> list[str]:
        """Names of the queues there are, sorted.

        With `internal` also those that Celery's workers use among themselves.
        """
        return [status.name for status in self.status(internal=internal)]

    def status(self, *queues: str, internal: bool = False) -> list[QueueStatus]:
        """Counts of all queues, or of these; costs the same however many jobs there are.

        Raises :exc:`~phonon_kombu.errors.NotFound` for a queue that does not exist.
        """
        names = [queue_name(queue) for queue in queues] or sorted(
            name for name in self._names() if internal or not is_internal(name)
        )
        script, found = load("job/stats"), []
        for part in slices(names, QUEUE_SLICE):
            calls: list[Any] = [(script.prepare(self.keys(name)), ()) for name in part]
            replies = self.link.send([*calls, *self._kind_calls(part)], repeat=True)
            for name, stats, kind in zip(
                part, replies[: len(part)], replies[len(part) :], strict=True
            ):
                if stats[7] and kind in OF_JOBS:
                    ready, scheduled, claimed, stalled, publishes, finishes, oldest = stats[:7]
                    found.append(
                        QueueStatus(
                            name, ready, scheduled, claimed, stalled,
                            oldest / 1000 if oldest >= 0 else None, bool(stats[8]),
                            publishes, finishes,
                        )
                    )  # fmt: skip
                elif queues:
                    raise self._no_queue(name)
        return found

    def _no_queue(self, name: str) -> NotFound:
        known = self.queues()
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"There are: {', '.join(known[:20])}."
        return NotFound(f"there is no queue {name!r}. {hint if known else 'There is none at all.'}")

    def _names(self) -> set[str]:
        cursor = b"0"
        names: set[str] = set(self.configured())
        while True:
            cursor, found = self.link.command(
                b"SSCAN", feeds_key(self.session.prefix), cursor, b"COUNT", b"500"
            )
            names.update(name.decode("utf-8", "surrogateescape") for name in found)
            if cursor == b"0":
                return names

    # Processes -----------------------------------------------------------------------------

    def nodes(self) -> list[Node]:
        """The processes that take jobs, and those that died and whose jobs are not all back."""
        keys = self.node_keys
        beats, abouts, dying, time = self.link.send(
            (
                (b"ZRANGE", keys.beats, b"0", b"-1", b"WITHSCORES"),
                (b"HGETALL", keys.about),
                (b"ZRANGE", keys.dying, b"0", b"-1"),
                (b"TIME",),
            ),
            repeat=True,
        )
        about = dict(zip(abouts[::2], abouts[1::2], strict=True))
        beat = dict(zip(beats[::2], beats[1::2], strict=True))
        nodes = []
        for name in [*beat, *(n for n in dying if n not in beat)]:
            age = beat_age(beat.get(name), time)
            nodes.append(self._node(name.decode("utf-8", "replace"), about.get(name), age))
        held = self.link.send([(b"SMEMBERS", keys.held(n.id)) for n in nodes], repeat=True)
        return [
            replace(node, queues=tuple(sorted(map(shown_name, queues))))
            for node, queues in zip(nodes, held, strict=True)
        ]

    def _node(self, node_id: str, about: bytes | None, beat_seconds: float | None) -> Node:
        return node_of(node_id, about, beat_seconds, self.node_ttl_seconds)

    def clock(self) -> float:
        """The server's clock, seconds of the epoch."""
        return _clock(self.link.command(b"TIME"))


def beat_age(beat: bytes | None, time: Sequence[bytes]) -> float | None:
    """Seconds since a beat, by the server's clock."""
    return None if beat is None else max(0.0, _clock(time) - float(beat) / 1000)


def _clock(time: Sequence[bytes]) -> float:
    return int(time[0]) + int(time[1]) / 1e6


def queue_name(queue: Any) -> str:
    """The name of a queue that a caller gave, checked.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    if not isinstance(queue, str) or not queue:
        raise ConfigurationError(f"{queue!r} is no name of a queue: it must be a string")
    return queue


def is_internal(name: str) -> bool:
    """Whether a queue is one that Celery's workers use among themselves."""
    return name.startswith(_INTERNAL) or name.endswith(".pidbox")


def slices(entries: Sequence[Any], size: int) -> Iterator[Any]:
    """The entries, so many at once."""
    for start in range(0, len(entries), size):
        yield entries[start : start + size]
