"""A foreign client that knows only Thoonk's contract works with Celery's queues, both ways.

It is a plain redis-py client: what it does stands here, command by command, as the contract has it.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator

import pytest
import redis

from tests.celery.exam import Exam, until
from tests.servers import RedisServer, wait_for

QUEUE = "exam"


class Peer:
    """A client of another language, as it were: MULTI where the originals had it, no scripts."""

    def __init__(self, client: redis.Redis, feed: str) -> None:
        self.client = client
        self.feed = feed

    def key(self, part: str) -> str:
        return f"feed.{part}:{self.feed}"

    def put(self, item: str, high: bool = False) -> str:
        """Put a job."""
        id = uuid.uuid4().hex
        with self.client.pipeline() as pipe:
            (pipe.rpush if high else pipe.lpush)(self.key("ids"), id)
            pipe.incr(self.key("publishes"))
            pipe.hset(self.key("items"), id, item)
            pipe.zadd(self.key("published"), {id: int(time.time() * 1000)})
            pipe.execute()
        return id

    def get(self, timeout: int) -> tuple[str, bytes]:
        """Claim the next job."""
        popped = self.client.brpop(self.key("ids"), timeout)
        assert popped is not None, "no job came"
        id = popped[1].decode()
        with self.client.pipeline() as pipe:
            pipe.zadd(self.key("claimed"), {id: int(time.time() * 1000)})
            pipe.hget(self.key("items"), id)
            _, item = pipe.execute()
        return id, item

    def finish(self, id: str, result: str | None = None) -> None:
        """A claimed job is done."""
        assert self.client.zrank(self.key("claimed"), id) is not None
        with self.client.pipeline() as pipe:
            pipe.zrem(self.key("claimed"), id)
            pipe.hdel(self.key("cancelled"), id)
            pipe.zrem(self.key("published"), id)
            pipe.incr(self.key("finishes"))
            if result is not None:
                pipe.publish(f"job.finish:{self.feed}", f"{id}\0{result}")
            pipe.hdel(self.key("items"), id)
            pipe.execute()

    def cancel(self, id: str) -> None:
        """Give a claimed job back."""
        assert self.client.zrank(self.key("claimed"), id) is not None
        with self.client.pipeline() as pipe:
            pipe.hincrby(self.key("cancelled"), id, 1)
            pipe.lpush(self.key("ids"), id)
            pipe.zrem(self.key("claimed"), id)
            pipe.execute()

    def stall(self, id: str) -> None:
        """Take a claimed job out of the running."""
        assert self.client.zrank(self.key("claimed"), id) is not None
        with self.client.pipeline() as pipe:
            pipe.zrem(self.key("claimed"), id)
            pipe.hdel(self.key("cancelled"), id)
            pipe.sadd(self.key("stalled"), id)
            pipe.zrem(self.key("published"), id)
            pipe.execute()

    def retry(self, id: str) -> None:
        """Let a stalled job run again."""
        with self.client.pipeline() as pipe:
            pipe.srem(self.key("stalled"), id)
            pipe.lpush(self.key("ids"), id)
            pipe.zadd(self.key("published"), {id: int(time.time() * 1000)})
            pipe.execute()

    def left(self) -> dict[str, int]:
        """How much is left in the parts of the contract."""
        return {
            "ids": self.client.llen(self.key("ids")),
            "items": self.client.hlen(self.key("items")),
            "published": self.client.zcard(self.key("published")),
            "claimed": self.client.zcard(self.key("claimed")),
            "stalled": self.client.scard(self.key("stalled")),
        }  # type: ignore[return-value]


NOTHING = dict.fromkeys(("ids", "items", "published", "claimed", "stalled"), 0)


def task_message(name: str, *args: object) -> tuple[str, str]:
    """A Celery task in the form that a foreign client can write: its id, and the item."""
    id = str(uuid.uuid4())
    body = json.dumps([args, {}, {"callbacks": None, "errbacks": None, "chain": None}])
    headers = {"lang": "py", "task": name, "id": id, "root_id": id, "parent_id": None}
    properties = {"correlation_id": id, "delivery_tag": id}
    return id, json.dumps({"headers": headers, "properties": properties, "body": body})


@pytest.fixture(params=[True, False], ids=["tags", "bare"])
def tagged(
    request: pytest.FixtureRequest, redis_server: RedisServer
) -> Iterator[tuple[Exam, Peer]]:
    """An application with hash tags in its keys, or without, and a peer on its broker."""
    settings = {"broker_transport_options": {"hash_tags": request.param}}
    with Exam(redis_server, "phonon", first_db=0, settings=settings) as exam:
        feed = f"{{{QUEUE}}}" if request.param else QUEUE
        yield exam, Peer(redis_server.client(exam.broker_db), feed)


def test_a_worker_runs_what_a_peer_puts(tagged: tuple[Exam, Peer]) -> None:
    """To an idle worker, to a busy one, and with high priority before others."""
    exam, peer = tagged
    with exam.worker(pool="solo", concurrency=1) as worker:
        ids = []
        for number in range(20):
            id, item = task_message("record", "foreign", number)
            ids.append(id)
            peer.put(item, high=number == 19)
            if number == 0:
                exam.wait_started("foreign", 1)
        until(lambda: sum(exam.counts("foreign", "end").values()) == 20, worker.tail, 60)
        assert exam.counts("foreign") == dict.fromkeys(ids, 1)
        wait_for(lambda: peer.left() == NOTHING)
        assert int(peer.client.get(peer.key("finishes"))) == 20  # type: ignore[arg-type]


def test_a_peer_takes_what_celery_publishes(tagged: tuple[Exam, Peer]) -> None:
    """Claims it, and finishes, cancels, stalls and retries it; the worker has the rest."""
    exam, peer = tagged
    record = exam.task("record")
    sent = [record.apply_async(("ours", number)).id for number in range(5)]
    assert int(peer.client.get(peer.key("publishes"))) == 5  # type: ignore[arg-type]

    taken, item = peer.get(5)
    head, _, body = item.partition(b"\n")
    assert taken == sent[0] and json.loads(head)["headers"]["task"] == "record"
    assert json.loads(body)[0] == ["ours", 0]
    peer.finish(taken)
    cancelled, _ = peer.get(5)
    peer.cancel(cancelled)
    stalled, _ = peer.get(5)
    peer.stall(stalled)
    assert [cancelled, stalled] == sent[1:3]

    with exam.worker(pool="solo", concurrency=1) as worker:
        until(lambda: len(exam.counts("ours", "end")) == 3, worker.tail, 60)
        peer.retry(stalled)
        until(lambda: len(exam.counts("ours", "end")) == 4, worker.tail, 60)
        assert exam.counts("ours") == dict.fromkeys(sent[1:], 1)
        (entry,) = [e for e in exam.log("ours", "start") if e["id"] == cancelled]
        assert entry["redelivered"]
        wait_for(lambda: peer.left() == NOTHING)


def test_a_peer_and_a_thoonk_session_share_jobs(tagged: tuple[Exam, Peer]) -> None:
    """Of another feed than Celery's; a result goes either way."""
    from phonon_kombu.thoonk import Thoonk

    exam, peer = tagged
    peer.feed = peer.feed.replace(QUEUE, "jobs")
    tags = peer.feed.startswith("{")
    with Thoonk(exam.broker, hash_tags=tags) as thoonk:
        job = thoonk.job("jobs")
        ours = job.put("ours")
        assert peer.get(5) == (ours, b"ours")
        told = []
        thoonk.register_handler("finish", lambda *given: told.append(given))
        peer.finish(ours, "theirs")
        wait_for(lambda: told)
        assert told == [("jobs", ours, "theirs")]

        theirs = peer.put("theirs")
        announced = peer.client.pubsub(ignore_subscribe_messages=True)
        announced.subscribe(f"job.finish:{peer.feed}")
        assert announced.get_message(timeout=5) is None  # the confirmation
        claimed = job.get(timeout=5)
        assert (claimed.id, claimed.item) == (theirs, "theirs")
        job.finish(theirs, "ours", timeout=5)
        message = wait_for(lambda: announced.get_message(timeout=1))
        assert message["data"] == f"{theirs}\0ours".encode()
        assert peer.left() == NOTHING
        announced.close()
