"""Sessions: the ways to name a server, and what is said when that fails."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import redis

import phonon_kombu.thoonk
from phonon_kombu.errors import ConfigurationError, LayoutMismatch, ScriptRefused
from phonon_kombu.thoonk import Thoonk, aio
from tests.servers import RedisServer, free_port, start_server
from tests.topologies import SentinelSetup, TlsServer


def works(session: Thoonk) -> bool:
    """Whether a job can be put and claimed, and a result waited for."""
    with session:
        job = session.job("works")
        job.put("item", id="j")
        job.get(timeout=5)
        job.finish("j", "result")
        return bool(job.get_result("j", timeout=5) == ("item", "result"))


@pytest.mark.parametrize("scheme", ["phonon", "redis", "phonon+tcp"])
def test_urls(redis_server: RedisServer, scheme: str) -> None:
    client = redis_server.client(3)
    client.flushdb()
    assert works(Thoonk(redis_server.url(scheme, db=3)))
    assert works(Thoonk(url=redis_server.url(scheme, db=3)))
    assert client.hget("feed.config:{works}", "type") == b"job"
    client.flushdb()


@pytest.mark.parametrize(
    "form", ["phonon+socket://{}?virtual_host=2", "phonon+socket://{}?db=2", "unix://{}?db=2"]
)
def test_a_unix_socket(form: str) -> None:
    with RedisServer() as server:
        session = Thoonk(form.format(server.socket_path))
        assert works(session)
        assert f"{server.socket_path}/2" in repr(session)


def test_a_client(redis_server: RedisServer, redis_db: str) -> None:
    """Also one that decodes, and speaks the newer protocol."""
    for client in (
        redis.Redis(port=redis_server.port),
        redis.Redis(port=redis_server.port, decode_responses=True),
        redis.Redis(port=redis_server.port, protocol=3),
        redis.Redis(
            connection_pool=redis.BlockingConnectionPool(
                max_connections=1, port=redis_server.port, socket_timeout=0.5
            )
        ),
    ):
        assert works(Thoonk(client=client))
        client.close()


def test_host_and_options(redis_server: RedisServer, redis_db: str) -> None:
    assert works(Thoonk("127.0.0.1", redis_server.port, 0, socket_timeout=0.3))
    assert works(Thoonk(f"127.0.0.1:{redis_server.port}"))


def test_a_database_that_the_server_has_not(redis_server: RedisServer, redis_db: str) -> None:
    with (
        Thoonk("127.0.0.1", redis_server.port, 10_000) as session,
        pytest.raises(ConfigurationError, match="no database"),
    ):
        session.get_feeds()

    async def main() -> None:
        async with aio.Thoonk("127.0.0.1", redis_server.port, 10_000) as session:
            with pytest.raises(ConfigurationError, match="no database"):
                await session.get_feeds()

    asyncio.run(main())


def test_tls() -> None:
    """The certificate is verified."""
    with TlsServer() as server:
        url = server.url("phonons")
        authority = server.certificates.ca
        assert works(Thoonk(f"{url}?ssl_ca_certs={authority}"))
        assert works(Thoonk(f"{url}?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={authority}"))
        assert works(Thoonk(f"{url}?ssl_cert_reqs=none"))
        assert works(Thoonk(client=redis.Redis(port=server.port, ssl=True, ssl_ca_certs=authority)))
        with pytest.raises(redis.ConnectionError, match=r"[Cc]ertificate|CERTIFICATE"):
            works(Thoonk(url))


def test_sentinel() -> None:
    """Through a client of redis-py, which finds the master anew after a failover."""
    with SentinelSetup() as setup:
        sentinel = redis.Sentinel([("127.0.0.1", s.port) for s in setup.sentinels])
        with Thoonk(client=sentinel.master_for(setup.master_name)) as session:
            job = session.job("jobs")
            job.put("item", id="j")
            setup.master.client().wait(1, 5000)
            assert job.get(timeout=5).id == "j"
            setup.master.client().wait(1, 5000)
            setup.fail_over()
            job.finish("j", "result")
            assert job.get_result("j", timeout=5) == ("item", "result")


def test_sentinel_by_url() -> None:
    """The URL of the transport, with the name of the master."""
    with SentinelSetup(password="secret") as setup:
        url = setup.url("phonon+sentinel", login=":secret@")
        with Thoonk(f"{url}?master_name={setup.master_name}") as session:
            assert works(session)
            assert "secret" not in repr(session) and setup.master_name in repr(session)
            setup.master.client().wait(1, 5000)
            setup.fail_over()
            assert session.job("works").get_result("j", timeout=0) is not None


def test_embedded(tmp_path: Path) -> None:
    from phonon_kombu.store import embedded

    try:
        assert works(Thoonk(f"phonon+embedded://{tmp_path}"))
    finally:
        embedded.release(tmp_path)


def test_prefix_and_names(redis_server: RedisServer, redis_db: str) -> None:
    """Every key begins with the prefix; without hash tags the names are the contract's."""
    assert works(Thoonk("127.0.0.1", redis_server.port, prefix="app:"))
    names = set(redis_server.client().keys())
    assert names and all(name.startswith(b"app:") for name in names)
    assert b"app:feed.result:{works}.j" in names
    assert works(Thoonk("127.0.0.1", redis_server.port, hash_tags=False))
    assert redis_server.client().hget("feed.config:works", "type") == b"job"
    assert redis_server.client().smembers("feeds") == {b"works"}


def test_sessions_of_one_database_meet(redis_server: RedisServer, redis_db: str) -> None:
    with Thoonk(f"phonon://{redis_db}") as one, Thoonk("127.0.0.1", redis_server.port) as two:
        one.job("jobs").put("item")
        assert two.job("jobs").get(timeout=0).item == "item"


def test_nothing_secret_in_a_repr() -> None:
    for session in (
        Thoonk("phonon://user:secret@host:1/2"),
        Thoonk("host", 1, username="user", password="secret"),
        Thoonk(client=redis.Redis("host", 1, password="secret")),
        Thoonk("phonon+socket://:secret@/path/to/socket"),
    ):
        assert "secret" not in repr(session) and "user" not in repr(session)
        assert "host:1" in repr(session) or "/path/to/socket" in repr(session)


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": "amqp://u:secret@host"},
        {"url": "phonon://:secret@host:1/0?no_such_option=1"},
        {"url": "phonon+sentinel://:secret@host:1"},
        {"url": "phonon+sentinel://:secret@host:one?master_name=main"},
        {"url": "phonon+sentinel://:secret@host:1;redis://host:2?master_name=main"},
        {"url": "phonon+sentinel://:secret@host:1/one?master_name=main"},
        {"url": "phonon+sentinel://:secret@host:1?master_name=main&min_other_sentinels=x"},
        {"url": "phonon+cluster://:secret@host:1"},
        {"url": "phonon://:secret@a:1;phonon://:secret@b:1"},
        {"url": "phonon://:secret@a:1,b:2/0"},
        {"url": "phonon://:secret@host:1/database"},
        {"url": "phonon://:secret@host:port/0"},
        {"url": "phonon://:secret@host:1/0?socket_timeout=soon"},
        {"url": "host"},
        {"host": "host:port"},
        {"host": "host", "port": "redis"},
        {"host": "host", "db": "one"},
        {"url": ""},
        {"host": "phonon://:secret@host:1", "url": "phonon://:secret@host:1"},
        {"host": "phonon://:secret@host:1", "port": 1},
        {"host": "host", "url": "phonon://host"},
        {"host": "host", "client": redis.Redis()},
        {"client": object()},
        {"client": redis.asyncio.Redis()},
    ],
    ids=lambda arguments: "-".join(arguments),
)
def test_addresses_that_make_no_sense(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Thoonk(**arguments)
    assert "secret" not in str(caught.value)


def test_no_server() -> None:
    """Found out at the first use, and said in words."""
    session = Thoonk("127.0.0.1", free_port(), retry=None)
    with pytest.raises(redis.ConnectionError, match="refused"):
        session.job("jobs")


def test_wrong_password(redis_server: RedisServer) -> None:
    with start_server("--requirepass", "right") as server:
        with pytest.raises(redis.AuthenticationError) as caught:
            Thoonk(f"phonon://:wrong-secret@127.0.0.1:{server.port}").job("jobs")
        assert "wrong-secret" not in str(caught.value)
        assert works(Thoonk(f"phonon://:right@127.0.0.1:{server.port}"))


def test_an_acl_that_forbids(redis_server: RedisServer) -> None:
    with start_server() as server:
        server.client().acl_setuser(
            "app", enabled=True, passwords=["+pw"], keys=["other:*"], commands=["+@all"]
        )
        session = Thoonk(f"phonon://app:pw@127.0.0.1:{server.port}")
        with pytest.raises(ScriptRefused, match="ACL"):
            session.job("jobs")


def test_a_layout_of_another_time(url: str, redis_client: redis.Redis) -> None:
    redis_client.set("phonon.layout", "99")
    with pytest.raises(LayoutMismatch, match="99"):
        Thoonk(url).job("jobs")


def test_a_feed_of_another_type(thoonk: Thoonk, redis_client: redis.Redis) -> None:
    thoonk.queue("items")
    with pytest.raises(ConfigurationError, match="queue"):
        thoonk.job("items")
    redis_client.hset("feed.config:{plain}", "type", "feed")
    with pytest.raises(ConfigurationError, match="feed"):
        thoonk.queue("plain")


@pytest.mark.parametrize("name", ["", None, b"jobs", 5])
def test_names_that_make_no_sense(thoonk: Thoonk, name: Any) -> None:
    with pytest.raises(ConfigurationError):
        thoonk.job(name)


def test_a_celery_queue_is_a_job_feed(url: str, thoonk: Thoonk) -> None:
    """What kombu has sent can be looked at, stalled and claimed."""
    from kombu import Connection

    with Connection(url) as connection, connection.SimpleQueue("celery") as simple:
        simple.put({"a": 1})
        job = thoonk.job("celery")
        (job_id,) = job.get_ids("ready")
        assert '"a"' in job.get_item(job_id)
        job.stall(job_id, "let me see")
        assert simple.qsize() == 0
        job.retry(job_id)
        message = simple.get(timeout=5)
        assert message.payload == {"a": 1}
        assert job.get_ids("claimed") == [job_id]
        message.ack()
        simple.close()


def test_public_names() -> None:
    for name in phonon_kombu.thoonk.__all__:
        assert getattr(phonon_kombu.thoonk, name) is not None
