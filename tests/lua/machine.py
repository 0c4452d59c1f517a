"""A queue under test: every script as a method, and the whole of its keys as one picture."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis

from phonon_kombu.store.client import Link
from phonon_kombu.store.keys import CHANNELS, LEVELS, QueueKeys, channel, finish_channel, wire_name
from phonon_kombu.store.scripts import Prepared, load
from tests.servers import RedisServer

HOUR_MS = 3_600_000
FENCED_USER = "fenced"

_names = itertools.count(1)


def encoded(value: Any) -> bytes:
    """An argument as the scripts take it."""
    return value if isinstance(value, bytes) else str(value).encode()


def decoded(value: Any) -> Any:
    """A reply with text for bytes."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [decoded(entry) for entry in value]
    return value


@dataclass(frozen=True)
class Around:
    """Equal to any time between two instants: an expected score, ms of the server's clock."""

    low: float
    high: float

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int | float) and self.low <= other <= self.high

    def __add__(self, offset_ms: float) -> Around:
        return Around(self.low + offset_ms, self.high + offset_ms)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Claimed:
    """The reply of a claim."""

    more: bool
    due_in_ms: int
    jobs: list[tuple[str, str, int | None]] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """Ids of the claimed jobs, in the order of the reply."""
        return [job[0] for job in self.jobs]


#: Parts that are times by id.
TIMES = ("published", "claimed", "scheduled", "deadlines", "unique_ends")
HASHES = (
    "items", "cancelled", "owners", "reasons", "priorities", "ghosts", "config", "unique",
)  # fmt: skip
COUNTERS = ("publishes", "finishes", "duplicates")


def letter(entry: bytes) -> tuple[str, float, str, str]:
    """An entry of the dead list: reason, time, id, item."""
    reason, at, length, rest = entry.decode().split(" ", 3)
    return reason, float(at), rest[: int(length)], rest[int(length) :]


def connect(server: RedisServer, **credentials: str) -> Link:
    """A link to the server's database 0."""

    def acquire() -> redis.Connection:
        return redis.Connection(host="127.0.0.1", port=server.port, db=0, **credentials)

    return Link(acquire, lambda connection: None)


class Machine:
    """One queue on one server, reached through our scripts only.

    With :meth:`fence` each script runs as a user who may touch the script's own KEYS alone.
    """

    def __init__(
        self,
        server: RedisServer,
        queue: str | None = None,
        prefix: str = "",
        hash_tags: bool = True,
    ) -> None:
        self.server = server
        self.client: Any = server.client()
        self.queue = f"q{next(_names)}" if queue is None else queue
        self.prefix = prefix
        self.keys = QueueKeys(self.queue, prefix, hash_tags)
        self.link = connect(server)
        self.fenced: Link | None = None

    def close(self) -> None:
        """Close the connections."""
        self.link.close()
        if self.fenced is not None:
            self.fenced.close()
            self.fenced = None

    # Running scripts -----------------------------------------------------------------------

    def run(self, name: str, *args: Any, **given: bytes) -> Any:
        """Run a script on this queue; bytes come back as text."""
        return self.call(load(name).prepare(self.keys, **given), *args)

    def call(self, prepared: Prepared, *args: Any) -> Any:
        """Run a script on keys that are not this queue's."""
        link = self.link
        if self.fenced is not None:
            link = self.fenced
            self._allow(prepared.keys)
        return decoded(link.run(prepared, [encoded(arg) for arg in args]))

    @contextmanager
    def fence(self) -> Iterator[None]:
        """Let scripts run as a user who may touch no key but those that each one declares."""
        self._allow([])
        self.fenced = connect(self.server, username=FENCED_USER, password="secret")
        try:
            yield
        finally:
            self.fenced.close()
            self.fenced = None
            self.client.execute_command("ACL", "DELUSER", FENCED_USER)

    def _allow(self, keys: list[bytes]) -> None:
        # A task's result is announced under the name of its key.
        rules = [kind + key for key in keys for kind in (b"~", b"&")]
        wire = wire_name(self.queue)
        channels = [b"&" + channel(kind, wire, self.prefix) for kind in CHANNELS]
        self.client.execute_command(
            "ACL", "SETUSER", FENCED_USER, "on", ">secret", "resetkeys", "resetchannels",
            *channels, b"&" + finish_channel(self.queue, self.prefix), "+@all", *rules,
        )  # fmt: skip

    def put(
        self, id: str, item: str | None = None, other_id: str = "", level: int = 0,
        front: bool = False, delay_ms: Any = "", ttl_ms: Any = "", binding: str = "",
        dedup_id: str = "", dedup_ttl_ms: Any = "", dedup_of: str = "", order: str = "",
    ) -> str | list[str]:  # fmt: skip
        """job/put; the item is by default one that tells its id."""
        item = f"item of {id}" if item is None else item
        reply: str | list[str] = self.run(
            "job/put", id, item, other_id, level, int(front), delay_ms, ttl_ms, binding,
            dedup_id, dedup_ttl_ms, dedup_of, order, ids=self.keys.levels[level],
        )  # fmt: skip
        return reply

    def append(self, id: str, item: str | None = None, other_id: str = "") -> str:
        """job/append."""
        item = f"item of {id}" if item is None else item
        reply: str = self.run("job/append", id, item, other_id)
        return reply

    def claim(
        self, owner: str = "A", count: int = 1, order: str = "", finished: tuple[str, ...] = ()
    ) -> Claimed:
        """job/claim."""
        more, due, *rest = self.run("job/claim", owner, count, order, *finished)
        jobs = [
            (rest[i], rest[i + 1], None if rest[i + 2] is None else int(rest[i + 2]))
            for i in range(0, len(rest), 3)
        ]
        return Claimed(bool(more), due, jobs)

    def finish(self, owner: str, *ids: str) -> int:
        """job/finish."""
        return int(self.run("job/finish", owner, *ids))

    def cancel(
        self,
        owner: str,
        *ids: str,
        mode: str = "cancel",
        delay_ms: Any = "",
        limit: Any = "",
        channel: str = "",
    ) -> int:
        """job/cancel."""
        return int(self.run("job/cancel", owner, mode, delay_ms, limit, channel, *ids))

    def shelve(
        self, id: str, item: str | None = None, other_id: str = "", level: int = 0,
        reason: str = "because", binding: str = "",
    ) -> str:  # fmt: skip
        """job/shelve; the item is by default one that tells its id."""
        item = f"item of {id}" if item is None else item
        reply: str = self.run("job/shelve", id, item, other_id, level, reason, binding)
        return reply

    def stall(self, id: str, reason: str = "because", owner: str = "") -> Any:
        """job/stall."""
        return self.run("job/stall", id, reason, owner, self.keys.stall_channel)

    def retry(self, id: str) -> Any:
        """job/retry."""
        return self.run("job/retry", id, self.keys.retry_channel)

    def retract(self, id: str, waiting: bool = False) -> Any:
        """job/retract."""
        return self.run("job/retract", id, "1" if waiting else "")

    def lookup(self, *ids: str) -> list[tuple[str, str, str]]:
        """job/lookup: id, state and head of each."""
        _, *found = self.run("job/lookup", *ids)
        return [(found[i], found[i + 1], found[i + 11]) for i in range(0, len(found), 12)]

    def page(self, state: str, limit: int = 10, before: Any = "") -> list[str]:
        """job/page: the ids of all slices."""
        cursor, found = "", []
        while True:
            cursor, _, *values = self.run("job/page", state, cursor, limit, before)
            found += values[::12]
            if not cursor:
                return found

    def resolve(self, id: str, owner: str = "A", result: str = "42", keep_ms: Any = "") -> Any:
        """job/resolve."""
        channel = finish_channel(self.queue, self.prefix)
        return self.run(
            "job/resolve", id, owner, result, keep_ms, channel, result=self.keys.result(id)
        )

    def recover(
        self, owner: str, mode: str = "restore", keep: tuple[str, ...] = (), limit: Any = "",
        before_ms: Any = "",
    ) -> int:  # fmt: skip
        """job/recover, all slices of it; returns how many were given back."""
        cursor, given = "0", 0
        while True:
            cursor, count, _ = self.run("job/recover", owner, cursor, mode, limit, before_ms, *keep)
            given += count
            if cursor == "0":
                return given

    def maintain(self, limit: int = 100, max_deliveries: Any = "") -> list[int]:
        """job/maintain: promoted, expired, timed out."""
        return list(self.run("job/maintain", limit, max_deliveries))[:3]

    def reject(self, owner: str, *ids: str) -> list[int]:
        """job/reject: how many, whether they wait for the dead-letter exchange."""
        return list(self.run("job/reject", owner, *ids))

    def purge(self, limit: int = 100) -> list[int]:
        """job/purge: how many were deleted, whether more wait."""
        return list(self.run("job/purge", limit))

    def relist(self, *ids: str) -> int:
        """job/relist."""
        return int(self.run("job/relist", *ids))

    def pause(self) -> int:
        """job/pause."""
        return int(self.run("job/pause"))

    def resume(self) -> int:
        """job/resume."""
        return int(self.run("job/resume"))

    def touch(self) -> int:
        """job/touch."""
        return int(self.run("job/touch"))

    def stats(self) -> list[int]:
        """job/stats."""
        return list(self.run("job/stats"))

    def configure(self, **fields: Any) -> None:
        """Set fields of the queue's config, as a declaration does."""
        self.client.hset(self.keys.config, mapping=fields)

    # Time ----------------------------------------------------------------------------------

    def clock_ms(self) -> int:
        """The server's clock."""
        seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    @contextmanager
    def now(self) -> Iterator[Callable[[], Around]]:
        """What the scripts inside take for now: call the value after the block."""
        low = self.clock_ms()
        found: list[Around] = []
        yield lambda: found[0]
        found.append(Around(low, self.clock_ms()))

    def pass_time(self, ms: int, *ids: str) -> None:
        """Move everything that is known of these jobs (or of all) `ms` into the past."""
        pipe = self.client.pipeline(transaction=False)
        for part in TIMES:
            key = getattr(self.keys, part)
            for member in self.client.zrange(key, 0, -1):
                if not ids or member.decode() in ids:
                    pipe.zincrby(key, -ms, member)
        pipe.execute()

    # The whole picture ---------------------------------------------------------------------

    def picture(self) -> dict[str, Any]:
        """All keys of the queue that exist, by part: ``ids`` to ``ids.9`` left to right, times
        and hashes by id, counters as numbers, ``stalled`` as a set, ``wake`` as its members."""
        pipe = self.client.pipeline(transaction=False)
        names: list[str] = []
        for level in range(LEVELS):
            names.append("ids" if level == 0 else f"ids.{level}")
            pipe.lrange(self.keys.levels[level], 0, -1)
        for part in HASHES:
            names.append(part)
            pipe.hgetall(getattr(self.keys, part))
        for part in (*TIMES, "wake"):
            names.append(part)
            pipe.zrange(getattr(self.keys, part), 0, -1, withscores=True)
        for part in COUNTERS:
            names.append(part)
            pipe.get(getattr(self.keys, part))
        names.append("dead")
        pipe.lrange(self.keys.dead, 0, -1)
        names.append("stalled")
        pipe.smembers(self.keys.stalled)
        return {
            name: _plain(name, value)
            for name, value in zip(names, pipe.execute(), strict=True)
            if value
        }


def _plain(name: str, value: Any) -> Any:
    if name == "dead":
        return [letter(entry) for entry in value]
    if name.startswith("ids"):
        return [entry.decode() for entry in value]
    if name in TIMES or name == "wake":
        return {member.decode(): score for member, score in value}
    if name in COUNTERS:
        return int(value)
    if name == "stalled":
        return {member.decode() for member in value}
    fields = {key.decode(): entry.decode() for key, entry in value.items()}
    if name in ("cancelled", "priorities", "ghosts"):
        return {key: int(entry) for key, entry in fields.items()}
    return fields
