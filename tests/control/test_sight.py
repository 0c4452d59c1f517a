"""What an operator sees: queues, processes, jobs by id and page by page."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest
import redis
from celery import Celery
from kombu import Connection

from phonon_kombu.control import Operator
from phonon_kombu.errors import ConfigurationError, NotFound
from phonon_kombu.store.scripts import load
from tests.control.holder import holding
from tests.servers import RedisServer, wait_for


def test_status_counts_each_state(app: Celery, operator: Operator) -> None:
    add = app.tasks["shop.add"]
    ids = [add.delay(n, n).id for n in range(6)]
    add.apply_async((1, 1), queue="other")
    operator.stall(ids[0])
    operator.pause("other")
    with holding(app, 2):
        shop, other = (operator.status("shop")[0], operator.status("other")[0])
        assert (shop.ready, shop.scheduled, shop.claimed, shop.stalled) == (3, 0, 2, 1)
        assert (shop.publishes, shop.finishes, shop.paused) == (6, 0, False)
        assert shop.oldest_seconds is not None and 0 <= shop.oldest_seconds < 60
        assert (other.ready, other.paused) == (1, True)
    assert operator.queues() == ["other", "shop"]
    assert [status.name for status in operator.status()] == ["other", "shop"]


def test_queues_of_celerys_own_are_left_out(app: Celery, operator: Operator) -> None:
    with app.connection_for_write() as connection:
        for name in ("celeryev.1234", "w@host.celery.pidbox", "5f.reply.celery.pidbox"):
            connection.default_channel.queue_declare(name)
    app.tasks["shop.add"].delay(1, 1)
    assert operator.queues() == ["shop"]
    assert len(operator.queues(internal=True)) == 4
    reply = operator.session.job("5f.reply.celery.pidbox")
    reply.put("an answer", id="answer")
    assert operator.retract(older_than_seconds=0).done == 1
    assert list(operator.jobs()) == [] and operator.get("answer").state == "ready"
    assert [job.id for job in operator.jobs(reply.name)] == ["answer"]


def test_a_feed_that_is_no_job_feed_is_no_queue(operator: Operator) -> None:
    feed = operator.session.feed("news")
    feed.publish("x", id="1")
    sorted_feed = operator.session.sorted_feed("order")
    assert sorted_feed.publish("x") == "1"
    operator.session.queue("items").put("x")
    assert operator.queues() == [] and operator.find("1") == operator.find("1", "order") == []
    for act in (operator.retract, operator.stall):
        with pytest.raises(NotFound):
            act("1")
    assert feed.get_item("1") == sorted_feed.get_item("1") == "x"
    for name in ("items", "news", "order"):
        with pytest.raises(NotFound):
            operator.status(name)


def test_unknown_queues_are_refused_and_not_made(app: Celery, operator: Operator) -> None:
    with pytest.raises(NotFound, match="there is no queue 'shop'"):
        operator.status("shop")
    app.tasks["shop.add"].delay(1, 1)
    with pytest.raises(NotFound, match=r"no queue 'shpo'.*Did you mean 'shop'"):
        operator.status("shpo")
    for act in (operator.pause, operator.resume, operator.page, lambda q: list(operator.jobs(q))):
        with pytest.raises(NotFound, match=r"there is no queue 'nothing'.*There are: shop"):
            act("nothing")
    assert operator.queues() == ["shop"]


def test_a_job_is_found_by_its_task_id(app: Celery, operator: Operator) -> None:
    add = app.tasks["shop.add"]
    for n in range(50):
        add.delay(n, n)
    result = add.apply_async((2, 40), queue="other", priority=3, expires=3600)

    (job,) = operator.find(result.id)

    assert (job.id, job.task_id, job.queue, job.state) == (result.id, result.id, "other", "ready")
    assert (job.task, job.args, job.kwargs) == ("shop.add", "(2, 40)", "{}")
    assert (job.priority, job.failures, job.redelivered, job.retries) == (3, 0, False, 0)
    assert job.put_at == pytest.approx(operator.clock(), abs=30) and job.age_seconds >= 0
    assert (job.reason, job.owner, job.host, job.claimed_at, job.due_at) == (None,) * 5
    assert job.headers["origin"] and job.size_bytes > 100
    assert operator.find(result.id, "other")[0].id == operator.get(result.id).id
    assert operator.find(result.id, "shop") == []
    with pytest.raises(NotFound, match="no job of task 'nobody' is in any queue"):
        operator.get("nobody")


def test_all_jobs_of_a_task_that_was_published_again(app: Celery, operator: Operator) -> None:
    """As a retry is, while the first run is not acknowledged; also when the first one is done."""
    add = app.tasks["shop.add"]
    result = add.delay(1, 1)
    with holding(app, 1) as (message,):
        add.apply_async((1, 1), task_id=result.id)
        add.apply_async((1, 1), task_id=result.id, queue="other")
        found = operator.find(result.id)
        assert {(job.queue, job.id) for job in found} == {
            ("shop", result.id), ("shop", f"{result.id}~1"), ("other", result.id)
        }  # fmt: skip
        assert {job.task_id for job in found} == {result.id}
        assert operator.get(result.id).state == "claimed"
        message.ack()
        message.channel.flush()
    assert [job.id for job in operator.find(result.id, "shop")] == [f"{result.id}~1"]
    numbered = f"{result.id}~1"
    assert operator.find(numbered)[0].task_id == result.id
    for ids in ([result.id, numbered], [numbered, result.id, numbered]):
        both = operator.find_many(ids)
        assert [job.id for job in both[numbered]] == [numbered]
        assert {job.id for job in both[result.id]} == {result.id, numbered}


def test_tasks_whose_ids_look_like_those_of_further_jobs(app: Celery, operator: Operator) -> None:
    add = app.tasks["shop.add"]
    for task_id in ("order", "order~1", "order"):
        add.apply_async((1, 1), task_id=task_id)
    assert [job.id for job in operator.find("order")] == ["order", "order~2"]
    assert [job.id for job in operator.find("order~1")] == ["order~1"]
    app.control.revoke(["order~2", "order"])
    assert operator.find("order") == [] and operator.get("order~1").state == "ready"
    assert [app.AsyncResult(name).state for name in ("order", "order~1", "order~2")] == [
        "REVOKED", "PENDING", "PENDING"
    ]  # fmt: skip


def test_a_task_whose_id_is_too_long_for_a_job(app: Celery, operator: Operator) -> None:
    long, other = "long" * 100, "long" * 100 + "!"
    for task_id in (long, other, long):
        app.tasks["shop.add"].apply_async((1, 1), task_id=task_id)
    found = operator.find_many([long, other])
    assert {task_id: len(jobs) for task_id, jobs in found.items()} == {long: 2, other: 1}
    assert {job.task_id for job in found[long]} == {long}
    assert all(len(job.id) < 100 for job in operator.jobs())
    first, second = sorted(found[long], key=lambda job: job.id)
    assert second.id == f"{first.id}~1"
    assert [job.task_id for job in operator.find(second.id)] == [long]
    feed = operator.session.job("shop")
    for name in ("p" * 300, "\udcff"):
        assert [job.id for job in operator.find(feed.put("x", id=name))] == [name]
    app.control.revoke(long)
    assert app.AsyncResult(long).state == "REVOKED"
    assert operator.find(long) == [] and operator.retract(other).done == 1


def test_who_holds_a_job(app: Celery, operator: Operator) -> None:
    result = app.tasks["shop.add"].delay(1, 1)
    with holding(app, 1):
        # A heart that a test before has started finds the emptied database at its next beat.
        wait_for(operator.nodes, 30)
        job = operator.get(result.id)
        assert (job.state, job.host, job.pid) == ("claimed", socket.gethostname(), os.getpid())
        assert job.owner_lives is True and job.claimed_at >= job.put_at
        (node,) = operator.nodes()
        assert job.owner.startswith(f"{node.id}.")
        assert (node.host, node.pid, node.queues) == (job.host, job.pid, ("shop",))
        assert node.beat_seconds is not None and 0 <= node.beat_seconds < 60


def test_a_dead_worker_whose_jobs_are_being_given_back(operator: Operator) -> None:
    keys = operator.node_keys
    about = json.dumps({"host": "far", "pid": 7}).encode()
    for node in (b"dead", b"lives"):
        operator.link.run(load("node/beat").prepare(keys), (node, node, about, b"1"))
    assert operator.link.run(load("node/bury").prepare(keys), (b"dead", b"dead", b"60000"))
    nodes = [(node.id, node.host, node.pid, node.beat_seconds is None) for node in operator.nodes()]
    assert nodes == [("lives", "far", 7, False), ("dead", "far", 7, True)]


def test_messages_that_are_none_are_seen_too(app: Celery, operator: Operator) -> None:
    """What a publisher writes is not trusted: any item can be looked at."""
    feed = operator.session.job("shop")
    items = [b"", b"{", b"\xff\xfe\nbody", b"[1]\n", b'{"headers":7}\n', b'{"headers":{"id":[]}}\n',
             b'{"headers":{"task":3,"argsrepr":{},"retries":"x"}}\n', b"[" * 20000]  # fmt: skip
    ids = [feed.put(item) for item in items]
    found = {job.id: job for job in operator.jobs()}
    assert set(found) == set(ids)
    assert {(job.task, job.args, job.retries) for job in found.values()} == {(None, None, 0)}
    assert [operator.item(found[ident]) for ident in ids] == items
    stock = feed.put('{"body": "e30=", "headers": {"task": "old", "id": "1"}, "properties": {}}')
    assert operator.get(stock).task == "old"


def test_messages_whose_headers_are_long_or_come_behind_a_long_body(
    app: Celery, operator: Operator
) -> None:
    """Ours have the body behind their envelope, stock kombu's in front of the headers."""
    feed = operator.session.job("shop")
    headers = {"task": "old", "id": "stock", "lang": "py"}
    for n, body in enumerate(("x" * 50_000, '\\"' * 30_000, "\\" * 30_001, "")):
        message = {"body": body, "content-type": "text", "headers": headers, "properties": {}}
        feed.put(json.dumps(message), id=f"stock{n}")
        feed.put(json.dumps(message, separators=(",", ":")), id=f"tight{n}")
    for n in range(3):
        options = {"argsrepr": "y" * 60_000, "task_id": f"ours{n}"}
        app.tasks["shop.add"].apply_async(("x" * 50_000, n), **options)
    feed.put("z" * 50_000, id="none")

    assert {job.id: job.task for job in operator.jobs()} == {
        **{f"{kind}{n}": "old" for kind in ("stock", "tight") for n in range(4)},
        **{f"ours{n}": "shop.add" for n in range(3)},
        "none": None,
    }
    assert operator.get("stock1").headers == headers
    assert [job.args for job in operator.find("ours1")] == ["y" * 60_000]
    assert operator.stall(task="old").done == 8


def test_a_queue_that_was_flushed_under_its_publishers(
    app: Celery, operator: Operator, redis_client: redis.Redis
) -> None:
    """They do not declare it again: the application knows its name."""
    app.tasks["shop.add"].delay(1, 1)
    redis_client.flushall()
    result = app.tasks["shop.add"].delay(1, 1)
    assert operator.queues() == ["shop"]
    assert operator.get(result.id).state == "ready"


def test_by_url_with_transport_options(
    redis_server: RedisServer, redis_db: str, new_app: Callable[..., Celery]
) -> None:
    options = {"global_keyprefix": "mine:", "hash_tags": False}
    app = new_app(broker_transport_options=options)
    result = app.tasks["shop.add"].delay(1, 1)
    with Operator(redis_server.url("phonon")) as operator:
        assert operator.queues() == []
    with Operator(redis_server.url("phonon"), options) as operator:
        assert operator.get(result.id).queue == "shop"


def test_another_broker_is_refused(redis_server: RedisServer) -> None:
    with pytest.raises(ConfigurationError, match=r"the broker is redis://:\*\*@127.0.0.1"):
        Operator(redis_server.url("redis").replace("//", "//:secret@"))
    with pytest.raises(ConfigurationError, match="memory://"):
        Operator("memory://")
    with pytest.raises(ConfigurationError, match="neither a Celery application nor the URL"):
        Operator(Connection("memory://"))
    with pytest.raises(ConfigurationError, match="No such transport: bogus"):
        Operator("bogus://localhost")
    with pytest.raises(redis.ConnectionError):
        Operator("phonon://127.0.0.1:1/0")


HOLDER = """
import sys, time
from phonon_kombu.thoonk import Thoonk
with Thoonk(sys.argv[1]) as thoonk:
    thoonk.job("shop").get(timeout=30)
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_last_worker_was_killed(
    app: Celery, operator: Operator, redis_server: RedisServer, redis_client: redis.Redis
) -> None:
    """Nobody is left to judge it: its last beat tells, against its own node_ttl if it says one."""
    result = app.tasks["shop.add"].delay(1, 1)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, redis_server.url("phonon")], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"held\n"
            (node,) = operator.nodes()
            assert node.pid == process.pid and node.beat_seconds is not None
        finally:
            process.kill()
    keys = operator.node_keys
    redis_client.zincrby(keys.beats, -61_000, node.id)  # a minute later

    (dead,) = operator.nodes()
    assert (dead.id, dead.pid, dead.beat_seconds) == (node.id, process.pid, None)
    job = operator.get(result.id)
    assert (job.state, job.pid, job.owner_lives) == ("claimed", process.pid, False)
    (listed,) = operator.page().jobs
    assert listed.owner_lives is False

    about = json.loads(redis_client.hget(keys.about, node.id))
    for said, lives in ((120, True), ("x", False), (-1, False), (30.5, False)):
        redis_client.hset(keys.about, node.id, json.dumps(about | {"node_ttl": said}))
        assert operator.get(result.id).owner_lives is lives
    del about["node_ttl"]
    redis_client.hset(keys.about, node.id, json.dumps(about))
    assert operator.get(result.id).owner_lives is False
    with Operator(redis_server.url("phonon"), {"node_ttl": 300}) as patient:
        assert patient.get(result.id).owner_lives is True
        assert patient.nodes()[0].beat_seconds > 60
