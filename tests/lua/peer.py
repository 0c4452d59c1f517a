"""Another Thoonk client: raw Redis commands on the contract's keys, and nothing else of ours."""

from __future__ import annotations

import itertools
from typing import Any

from tests.lua.machine import Machine

_ids = itertools.count(1)


class Peer:
    """Speaks the wire contract to the feed that `machine` works on.

    `feed` is the name by which it knows it: with hash tags, the queue's name in braces.
    """

    def __init__(self, machine: Machine, feed: str) -> None:
        self.redis: Any = machine.client
        self.feed = feed
        self.clock_ms = machine.clock_ms

    def key(self, part: str) -> str:
        """A key of the contract."""
        return f"feed.{part}:{self.feed}"

    def put(self, item: str, high: bool = False) -> str:
        """Put a job under a new id."""
        id = f"peer{next(_ids):028}"
        with self.redis.pipeline() as pipe:
            (pipe.rpush if high else pipe.lpush)(self.key("ids"), id)
            pipe.hset(self.key("items"), id, item)
            pipe.zadd(self.key("published"), {id: self.clock_ms()})
            pipe.incr(self.key("publishes"))
            pipe.execute()
        return id

    def pop(self) -> str:
        """The first half of a get: the id is in no state until :meth:`claim`."""
        _, id = self.redis.brpop([self.key("ids")], 5)
        return str(id.decode())

    def claim(self, id: str) -> str | None:
        """The second half of a get: the item."""
        with self.redis.pipeline() as pipe:
            pipe.zadd(self.key("claimed"), {id: self.clock_ms()})
            pipe.hget(self.key("items"), id)
            item = pipe.execute()[1]
        return None if item is None else item.decode()

    def get(self) -> tuple[str, str | None]:
        """Claim the next job."""
        id = self.pop()
        return id, self.claim(id)

    def finish(self, id: str, result: str | None = None) -> bool:
        """False: refused, it is not claimed."""
        if self.redis.zscore(self.key("claimed"), id) is None:
            return False
        with self.redis.pipeline() as pipe:
            pipe.zrem(self.key("claimed"), id)
            pipe.hdel(self.key("cancelled"), id)
            pipe.zrem(self.key("published"), id)
            pipe.hdel(self.key("items"), id)
            pipe.incr(self.key("finishes"))
            if result is not None:
                pipe.publish(f"job.finish:{self.feed}", f"{id}\0{result}")
            pipe.execute()
        return True

    def cancel(self, id: str) -> bool:
        """False: refused, it is not claimed."""
        if self.redis.zscore(self.key("claimed"), id) is None:
            return False
        with self.redis.pipeline() as pipe:
            pipe.hincrby(self.key("cancelled"), id, 1)
            pipe.lpush(self.key("ids"), id)
            pipe.zrem(self.key("claimed"), id)
            pipe.execute()
        return True

    def stall(self, id: str) -> bool:
        """False: refused, it is not claimed."""
        if self.redis.zscore(self.key("claimed"), id) is None:
            return False
        with self.redis.pipeline() as pipe:
            pipe.zrem(self.key("claimed"), id)
            pipe.hdel(self.key("cancelled"), id)
            pipe.sadd(self.key("stalled"), id)
            pipe.zrem(self.key("published"), id)
            pipe.execute()
        return True

    def retry(self, id: str) -> bool:
        """False: refused, it is not stalled."""
        if not self.redis.sismember(self.key("stalled"), id):
            return False
        with self.redis.pipeline() as pipe:
            pipe.srem(self.key("stalled"), id)
            pipe.lpush(self.key("ids"), id)
            pipe.zadd(self.key("published"), {id: self.clock_ms()})
            pipe.execute()
        return True

    def retract(self, id: str) -> bool:
        """False: there is no such job."""
        if not self.redis.hexists(self.key("items"), id):
            return False
        with self.redis.pipeline() as pipe:
            pipe.hdel(self.key("items"), id)
            pipe.hdel(self.key("cancelled"), id)
            for part in ("published", "claimed"):
                pipe.zrem(self.key(part), id)
            pipe.srem(self.key("stalled"), id)
            pipe.lrem(self.key("ids"), 1, id)
            pipe.execute()
        return True

    def ids(self) -> set[str]:
        """Ids of all jobs."""
        return {id.decode() for id in self.redis.hkeys(self.key("items"))}

    def maintain(self) -> list[str]:
        """Put items whose ids are in none of the contract's states back into ids."""
        known = {id.decode() for id in self.redis.lrange(self.key("ids"), 0, -1)}
        known |= {id.decode() for id in self.redis.zrange(self.key("claimed"), 0, -1)}
        known |= {id.decode() for id in self.redis.smembers(self.key("stalled"))}
        lost = sorted(self.ids() - known)
        if lost:
            self.redis.lpush(self.key("ids"), *lost)
        return lost
