"""Jobs in asyncio: claimed, finished, given back; by many tasks, and after a death."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import redis

import phonon_kombu.thoonk as blocking_room
from phonon_kombu.errors import ConfigurationError, NotClaimed, NotFound, NotStalled
from phonon_kombu.store.scripts import load
from phonon_kombu.thoonk import aio
from tests.servers import RedisServer, wait_for
from tests.topologies import SentinelSetup

from .lossy import LossyLine
from .test_aio import session


def test_operations(url: str, thoonk: blocking_room.Thoonk) -> None:
    async def body(mine: aio.Thoonk) -> None:
        job = await mine.job("jobs")
        assert await job.put("a", id="a") == "a"
        await job.put("b", id="b", priority=job.HIGH)
        await job.put("c", id="c", delay_seconds=100)
        assert set(await job.get_ids()) == set("abc")
        claimed = await job.get(timeout=5)
        assert claimed == ("b", "b", 0) and await job.get_ids("claimed") == ["b"]
        await job.cancel("b")
        assert (await job.get(timeout=5)).cancelled == 1
        await job.stall("b", "because")
        assert await job.get_reason("b") == "because"
        assert (await job.stats()).stalled == 1
        with pytest.raises(NotClaimed):
            await job.finish("b")
        await job.retry("b")
        with pytest.raises(NotStalled):
            await job.retry("b")
        assert await job.get_failure_count("b") == 0
        await job.retract("b")
        with pytest.raises(NotFound):
            await job.get_item("b")
        assert not await job.paused
        await job.pause()
        assert await job.paused and thoonk.job("jobs").paused
        await job.resume()
        assert [found.id for found in await job.describe("a", "c")] == ["a", "c"]
        assert [found.id for found in (await job.look("scheduled")).jobs] == ["c"]
        await job.configure(claim_timeout_seconds=1000)
        assert (await job.maintenance()).relisted == 0
        waiting = asyncio.create_task(job.get_result("a", timeout=20))
        assert (await job.get(timeout=5)).id == "a"
        await asyncio.sleep(0.1)
        await job.finish("a", "result", timeout=60)
        assert await waiting == ("a", "result") == await job.get_result("a")
        with pytest.raises(TimeoutError):
            await job.get_result("c", timeout=0.1)

    session(url, body)


def test_a_serializer(url: str, thoonk: blocking_room.Thoonk) -> None:
    """Of items and results."""

    async def body(mine: aio.Thoonk) -> None:
        job = await mine.job("jobs", serializer="json")
        await job.put({"n": 1}, id="a")
        theirs = thoonk.job("jobs")
        assert theirs.get(timeout=5).item == {"n": 1}
        theirs.finish("a", [1, None])
        assert await job.get_result("a") == ({"n": 1}, [1, None])

    session(url, body)


def test_many_tasks_claim(url: str) -> None:
    """Each job goes to one of them; a wait for work keeps nobody from working."""

    async def body(mine: aio.Thoonk) -> None:
        job = await mine.job("jobs")
        done: list[str] = []

        async def work() -> None:
            while len(done) < 100:
                try:
                    claimed = await job.get(timeout=0.2)
                except aio.Empty:
                    continue
                await job.finish(claimed.id)
                done.append(claimed.item)

        workers = [asyncio.create_task(work()) for _ in range(8)]
        await asyncio.sleep(0.05)
        for n in range(100):
            await job.put(str(n))
        await asyncio.gather(*workers)
        assert sorted(done, key=int) == [str(n) for n in range(100)]
        assert (await job.stats()).finishes == 100

    session(url, body)


def test_a_cancelled_claim_is_given_back(url: str, thoonk: blocking_room.Thoonk) -> None:
    """Wherever the cancellation hits it, no job is left in a hand that does not know of it."""

    async def body(mine: aio.Thoonk) -> None:
        job = await mine.job("jobs")
        count = 40
        for n in range(count):
            await job.put(str(n))
        done: list[str] = []
        for n in range(3 * count):
            claiming = asyncio.create_task(job.get(timeout=0))
            await asyncio.sleep((n % 7) * 0.0002)
            claiming.cancel()
            try:
                claimed = await claiming
            except (asyncio.CancelledError, aio.Empty):
                continue
            await job.finish(claimed.id)
            done.append(claimed.item)
        while True:
            try:
                claimed = await job.get(timeout=0)
            except aio.Empty:
                break
            await job.finish(claimed.id)
            done.append(claimed.item)
        assert sorted(done, key=int) == [str(n) for n in range(count)]

    session(url, body)
    assert thoonk.job("jobs").get_ids() == []


@pytest.mark.parametrize("before", [True, False])
def test_replies_are_lost(line: LossyLine, before: bool, thoonk: blocking_room.Thoonk) -> None:
    async def body(mine: aio.Thoonk) -> None:
        job = await mine.job("jobs")
        for name in ("warm", "a", "b"):
            await job.put(name, id=name)
        await job.finish((await job.get(timeout=5)).id)
        line.lose(load("job/claim").sha.encode(), before=before)
        assert (await job.get(timeout=5)).id == "a"
        line.lose(load("job/finish").sha.encode(), before=before)
        await job.finish("a")
        assert line.lost == 2
        assert await job.get_ids("ready") == ["b"] and await job.get_ids("claimed") == []

    session(f"phonon://127.0.0.1:{line.port}/0", body)


PROGRAM = """
import asyncio, sys
from phonon_kombu.thoonk.aio import Thoonk

async def main():
    async with Thoonk(sys.argv[1]) as thoonk:
        job = await thoonk.job("jobs")
        claimed = await job.get()
        print(claimed.id, flush=True)
        await asyncio.sleep(1000)

asyncio.run(main())
"""


def test_the_job_of_a_killed_process_comes_back(
    url: str, thoonk: blocking_room.Thoonk, redis_server: RedisServer
) -> None:
    """Within seconds, while another process lives: one in asyncio is a node too."""
    job = thoonk.job("jobs")
    job.put("item", id="other")
    assert job.get(timeout=5).id == "other"  # from now on this process looks after the others
    job.put("item", id="j")
    child = subprocess.Popen([sys.executable, "-c", PROGRAM, url], stdout=subprocess.PIPE)
    assert child.stdout is not None
    try:
        assert child.stdout.readline().strip() == b"j"
        time.sleep(1)
        assert "j" in job.get_ids("claimed")
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        # fakeredis tells nothing about connections: there only the beat counts, a minute.
        claimed = job.get(timeout=90 if redis_server.is_fake else 60)
        assert (claimed.id, claimed.item) == ("j", "item")
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.mark.parametrize("by", ["client", "url"])
def test_sentinel(by: str) -> None:
    """The heart, which blocks, asks the same sentinels, and finds the master anew too."""

    async def main() -> None:
        with SentinelSetup() as setup:
            ports = [s.port for s in setup.sentinels]
            sentinel = redis.asyncio.Sentinel([("127.0.0.1", port) for port in ports])
            named: dict[str, Any] = {
                "client": {"client": sentinel.master_for(setup.master_name)},
                "url": {"url": f"{setup.url('phonon+sentinel')}?master_name={setup.master_name}"},
            }[by]
            async with aio.Thoonk(**named) as mine:
                job = await mine.job("jobs")
                await job.put("item", id="j")
                assert (await job.get(timeout=5)).id == "j"
                assert setup.master.client().zcard("node.beats:{nodes}") == 1
                setup.master.client().wait(1, 5000)
                await asyncio.to_thread(setup.fail_over)
                replica = setup.replica.client()
                run_id = str(replica.info("server")["run_id"])  # type: ignore[index]

                def beats() -> bool:
                    return any(run_id in p.decode() for p in replica.hvals("node.presence:{nodes}"))  # type: ignore[union-attr]

                await asyncio.to_thread(wait_for, beats, 60)
                await job.finish("j")
                assert await job.get_ids() == []

    asyncio.run(main())


class Strange(redis.asyncio.Connection):
    """A connection that only asyncio can make."""


def test_what_cannot_show_that_it_is_alive_claims_nothing(redis_server: RedisServer) -> None:
    async def main() -> None:
        pool = redis.asyncio.ConnectionPool(
            connection_class=Strange, host="127.0.0.1", port=redis_server.port
        )
        async with aio.Thoonk(client=redis.asyncio.Redis(connection_pool=pool)) as mine:
            job = await mine.job("jobs")
            await job.put("item")
            with pytest.raises(ConfigurationError, match="alive"):
                await job.get(timeout=5)

    asyncio.run(main())


def test_closing_a_session_twice(url: str) -> None:
    async def body(mine: aio.Thoonk) -> None:
        job: Any = await mine.job("jobs")
        await job.put("item", id="j")
        await job.get(timeout=5)
        await mine.close()
        await mine.close()
        await job.finish("j")
        assert await job.get_ids() == []

    session(url, body)


def test_wait_is_woken(url: str, thoonk: blocking_room.Thoonk) -> None:
    """By a put of another process, at once."""

    async def body(mine: aio.Thoonk) -> None:
        job = await mine.job("jobs")
        delays = []
        for _ in range(5):
            waiting = asyncio.create_task(job.get(timeout=20))
            await asyncio.sleep(0.1)
            started = time.monotonic()
            await asyncio.to_thread(thoonk.job("jobs").put, "item")
            await job.finish((await waiting).id)
            delays.append(time.monotonic() - started)
        assert sorted(delays)[2] < 0.5

    session(url, body)
    wait_for(lambda: thoonk.job("jobs").stats().finishes == 5)
