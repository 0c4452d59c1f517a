"""phonon on the master that sentinels name."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
import redis
from kombu import Connection

from phonon_kombu.errors import ConfigurationError
from phonon_kombu.phonon.connections import Connections
from phonon_kombu.phonon.lock import Lock
from phonon_kombu.phonon.reference import Reference
from phonon_kombu.phonon.registry import Registry
from phonon_kombu.thoonk import Thoonk, aio
from tests.servers import wait_for
from tests.topologies import Certificates, SentinelSetup

from .test_cluster import Visit


def test_a_fail_over() -> None:
    """What is held stays held, what was registered is folded, and work goes on."""
    Visit.done.clear()
    with (
        SentinelSetup(3, password="secret") as setup,
        Connections(
            setup.url("phonon+sentinel", login=":secret@"),
            master_name=setup.master_name,
            presence_grace=0.5,
        ) as made,
    ):
        assert "secret" not in made.hosts[0].name and "secret" not in repr(made.hosts[0])
        lock = Lock("x", ttl_seconds=600, connections=made)
        assert lock.acquire()
        lasts: list[Any] = []
        reference = Reference("r", lasts.append, connections=made)
        reference.hold()
        registry = Registry(connections=made)
        registry.register(Visit(id=1, n=1, log="before"))
        registry.flush()
        setup.master.client().wait(1, 30_000)
        setup.fail_over()

        registry.register(Visit(id=1, n=2, log="after"))
        wait_for(lambda: _owned(lock), 60)
        registry.flush()
        assert Visit.read(1, made).log == ["before", "after"]
        registry.close()
        assert Visit.done == [(1, 3, ["after", "before"])]
        assert reference.finish() and lasts == [reference]
        # The heart shows itself at the new master.
        client: Any = setup.replica.client()
        run_id = client.info("server")["run_id"].encode()
        wait_for(lambda: any(run_id in p for p in client.hvals("node.presence:{nodes}")), 60)
        lock.release()


def _owned(lock: Lock) -> bool:
    try:
        return lock.owned()
    except redis.ConnectionError:
        return False


def test_options() -> None:
    """Several masters of the same sentinels are several hosts; an option counts more than a URL."""
    urls = [
        f"phonon+sentinel://me:secret@a:1/2;phonon+sentinel://b?master_name={m}" for m in ("x", "y")
    ]
    made = Connections(urls)
    assert [host.name for host in made.hosts] == [
        f"phonon+sentinel://a:1/2;phonon+sentinel://b?master_name={m}" for m in ("x", "y")
    ]
    assert made.hosts[0].identity == (("x", ("a", 1), ("b", 26379)), None, 2, "")
    with pytest.raises(ConfigurationError, match="same host twice"):
        Connections(urls, master_name="z")
    url = "phonon+sentinel://:secret@a?socket_timeout=3"
    for given in ({}, {"sentinel_kwargs": {"password": "p"}, "min_other_sentinels": 2}):
        host = Connections(url, master_name="main", **given).hosts[0]  # type: ignore[arg-type]
        kwargs = host.server.pool.connection_kwargs  # type: ignore[union-attr]
        assert kwargs["password"] == "secret" and kwargs["socket_timeout"] == 3
        manager = kwargs["connection_pool"].sentinel_manager
        assert manager.min_other_sentinels == given.get("min_other_sentinels", 0)
        asked = manager.sentinels[0].connection_pool.connection_kwargs
        assert asked["password"] == ("p" if given else None)
        assert (asked["socket_timeout"] == 3) is not bool(given), (
            "those of the master, unless given"
        )


@pytest.mark.parametrize("sentinel_too", [False, True])
def test_tls(sentinel_too: bool) -> None:
    """The certificate of the master is verified; that of the sentinel where it is asked for."""
    files = Certificates()
    with SentinelSetup(certificates=files) as setup:
        master, sentinel = setup.fronts
        url = f"phonons+sentinel://127.0.0.1:{sentinel.port}"
        asked = {"ssl": True, "ssl_ca_certs": files.ca} if sentinel_too else None
        for known in (True, False):
            authority = f"?ssl_ca_certs={files.ca}" if known else ""
            with Connections(
                f"{url}{authority}", master_name=setup.master_name, sentinel_kwargs=asked
            ) as made:
                lock = Lock("x", connections=made)
                if known:
                    assert lock.acquire()
                    made.hosts[0].live()
                    assert master.secured >= 2 and bool(sentinel.secured) == sentinel_too
                else:
                    with pytest.raises(redis.ConnectionError, match=r"(?i)certificate"):
                        lock.acquire()
    files.close()


def test_no_sentinel() -> None:
    with (
        Connections("phonon+sentinel://127.0.0.1:1", master_name="main") as made,
        pytest.raises(redis.ConnectionError),
    ):
        _ = made.hosts[0].link
    with pytest.raises(ConfigurationError, match="master_name"):
        Connections("phonon+sentinel://:secret@127.0.0.1:1")


def connections(url: str) -> None:
    with Connections(url, master_name="main") as made:
        _ = made.hosts[0].link


def thoonk(url: str) -> None:
    with Thoonk(url=f"{url}&master_name=main") as session:
        session.get_feeds()


def aio_thoonk(url: str) -> None:
    async def main() -> None:
        async with aio.Thoonk(url=f"{url}&master_name=main") as session:
            await session.get_feeds()

    asyncio.run(main())


def transport(url: str) -> None:
    options = {"master_name": "main", "sentinel_kwargs": {"socket_timeout": 0.1}}
    with Connection(url.partition("?")[0], transport_options=options) as connection:
        connection.transport.establish_connection()


@pytest.mark.parametrize("connect", [connections, thoonk, aio_thoonk, transport])
def test_a_silent_sentinel(connect: Callable[[str], None]) -> None:
    """It is not asked again and again before the next one is, and no password is shown."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        url = f"phonon+sentinel://:secret@{place};phonon+sentinel://127.0.0.1:1?socket_timeout=0.1"
        with pytest.raises(redis.ConnectionError, match="none of the sentinels") as caught:
            connect(url)
        silent.setblocking(False)
        tries = 0
        with pytest.raises(BlockingIOError):
            while True:
                silent.accept()[0].close()
                tries += 1
    assert 1 <= tries <= 2, "a link tries twice"
    assert place in str(caught.value) and "secret" not in str(caught.value)
