"""Lists of brokers and Redis Sentinel: when one server goes, the next one is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Queue
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.kombu.exam import Broker, Inbox, PumpFactory, round_trip
from tests.kombu.worker import Worker
from tests.servers import RedisServer, free_port, start_server
from tests.topologies import Certificates, SentinelSetup

RETRY = {"max_retries": 50, "interval_start": 0.1, "interval_step": 0, "interval_max": 0.1}


@pytest.fixture
def second_server() -> Iterator[RedisServer]:
    """Another server for a list of brokers."""
    server = start_server()
    yield server
    server.stop()


def test_a_dead_first_server(broker: Broker) -> None:
    url = f"{broker.scheme}://127.0.0.1:{free_port()}/0;{broker.url}"
    connection = broker.connection(url=url)
    connection.ensure_connection(max_retries=3, interval_start=0.05, timeout=20)

    round_trip(broker, connection)
    assert connection.port == broker.server.port


def test_the_default_channel_finds_the_living_server(broker: Broker) -> None:
    dead = f"{broker.scheme}://127.0.0.1:{free_port()}/0"
    connection = broker.connection(
        url=[dead, dead, broker.url],
        transport_options={"interval_start": 0, "interval_step": 0.05},
    )
    connection.Producer().publish("x", routing_key="q", declare=[Queue("q")])

    assert broker.get_all("q") == ["x"]


def test_alternates_of_different_kinds(broker: Broker, own_server: RedisServer) -> None:
    """The living one is reached by the other kind of URL, database 2."""
    own_server.kill()
    if broker.server.socket_path is None:
        alternate = broker.server.url(broker.scheme, 2)
    else:
        alternate = f"{broker.scheme}://localhost:{broker.server.port}/2"
    connection = broker.connection(url=f"{own_server.url(broker.scheme)};{alternate}")
    connection.ensure_connection(max_retries=3, interval_start=0.05, timeout=20)
    round_trip(broker, connection)

    assert broker.server.client(2).dbsize() >= 0
    assert connection.virtual_host == "2"


def test_a_worker_and_a_producer_move_to_the_second_server(
    own_broker: Broker, pump: PumpFactory, second_server: RedisServer
) -> None:
    url = f"{own_broker.url};{second_server.url(own_broker.scheme)}"
    inbox = Inbox()
    worker = Worker(own_broker, pump, ["q"], inbox, url=url)
    producer = own_broker.connection(url=url).Producer()
    producer.publish(1, routing_key="q", declare=[Queue("q")])
    worker.until(inbox.has(1))

    own_broker.server.kill()
    producer.publish(2, routing_key="q", declare=[Queue("q")], retry=True, retry_policy=RETRY)
    worker.until(inbox.has(2), 30)

    assert inbox.bodies == [1, 2]
    assert worker.connection.port == second_server.port


# Sentinel ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sentinel() -> Iterator[SentinelSetup]:
    """A master that wants a password, its replica, two sentinels; for tests that end nothing."""
    with SentinelSetup(sentinels=2, password="secret") as setup:
        yield setup


@pytest.fixture
def sentinel_broker(sentinel: SentinelSetup, scheme: str) -> Iterator[Broker]:
    """A broker whose server is the master that the sentinels know."""
    sentinel.master.client().flushall()
    with Broker(scheme, sentinel.master) as broker:
        yield broker


def options(setup: SentinelSetup) -> dict[str, Any]:
    return {"transport_options": {"master_name": setup.master_name}}


@pytest.mark.real_server("fakeredis has no sentinel")
@pytest.mark.parametrize("db", [0, 3])
def test_sentinel_leads_to_the_master(
    sentinel: SentinelSetup, sentinel_broker: Broker, db: int
) -> None:
    url = sentinel.url(sentinel_broker.url_of("sentinel"), db, login=":secret@")
    connection = sentinel_broker.connection(url=url, **options(sentinel))
    round_trip(sentinel_broker, connection)
    connection.Producer().publish("x", routing_key="q")

    filled = {n for n in (0, 3) if sentinel.master.client(n).dbsize()}
    assert filled == {db}


@pytest.mark.real_server("fakeredis has no sentinel")
def test_a_sentinel_that_is_gone(sentinel: SentinelSetup, sentinel_broker: Broker) -> None:
    form = sentinel_broker.url_of("sentinel")
    gone = f"{form}://:secret@127.0.0.1:{free_port()}/0"
    url = f"{gone};{sentinel.url(form, login=':secret@')}"
    # By default redis-py tries each sentinel four times.
    once = {"sentinel_kwargs": {"retry": Retry(NoBackoff(), 0)}}
    settings = {"transport_options": {"master_name": sentinel.master_name, **once}}

    round_trip(sentinel_broker, sentinel_broker.connection(url=url, **settings))


@pytest.mark.real_server("fakeredis has no sentinel")
def test_one_sentinel_is_enough(sentinel: SentinelSetup, sentinel_broker: Broker) -> None:
    form = sentinel_broker.url_of("sentinel")
    url = sentinel.url(form, login=":secret@", sentinels=sentinel.sentinels[1:])
    connection = sentinel_broker.connection(url=url, **options(sentinel))

    round_trip(sentinel_broker, connection)


@pytest.mark.real_server("fakeredis has no sentinel")
@pytest.mark.parametrize("login", ["", ":wrong@"])
def test_sentinel_and_a_wrong_password(
    sentinel: SentinelSetup, sentinel_broker: Broker, login: str
) -> None:
    url = sentinel.url(sentinel_broker.url_of("sentinel"), login=login)
    connection = sentinel_broker.connection(url=url, **options(sentinel))

    with pytest.raises(connection.connection_errors, match=r"(?i)password|authenticat"):
        connection.transport.establish_connection()


@pytest.mark.real_server("fakeredis has no sentinel")
def test_sentinels_that_do_not_know_the_master(
    sentinel: SentinelSetup, sentinel_broker: Broker
) -> None:
    url = sentinel.url(sentinel_broker.url_of("sentinel"))
    connection = sentinel_broker.connection(
        url=url, transport_options={"master_name": "unheard-of"}
    )

    with pytest.raises(connection.connection_errors, match="unheard-of") as refusal:
        connection.transport.establish_connection()
    if sentinel_broker.is_phonon:
        asked = ", ".join(sorted(f"127.0.0.1:{one.port}" for one in sentinel.sentinels))
        assert str(refusal.value) == (
            f"none of the sentinels {asked} knows a master 'unheard-of' that is up"
        )


@pytest.mark.phonon_only("stock prints its client objects")
def test_no_sentinel_can_be_reached(broker: Broker) -> None:
    gone = sorted(free_port() for _ in range(2))
    url = ";".join(f"phonon+sentinel://:pw@127.0.0.1:{port}" for port in gone)
    once = {"sentinel_kwargs": {"retry": Retry(NoBackoff(), 0)}}
    connection = broker.connection(url=url, transport_options={"master_name": "main", **once})
    with pytest.raises(connection.connection_errors) as refusal:
        connection.transport.establish_connection()
    text = str(refusal.value)
    assert text.startswith(f"none of the sentinels 127.0.0.1:{gone[0]}, 127.0.0.1:{gone[1]} knows")
    assert "ConnectionError" in text and "<" not in text


@pytest.mark.real_server("fakeredis has no sentinel")
def test_sentinel_without_a_master_name(broker: Broker) -> None:
    url = f"{broker.url_of('sentinel')}://127.0.0.1:{broker.server.port}/0"
    with pytest.raises(ValueError, match="master_name"):
        broker.connection(url=url).connect()


@pytest.mark.real_server("fakeredis has no sentinel")
def test_a_worker_and_a_producer_follow_the_master(scheme: str, pump: PumpFactory) -> None:
    with SentinelSetup(sentinels=1) as setup, Broker(scheme, setup.master) as broker:
        url = setup.url(broker.url_of("sentinel"))
        inbox = Inbox()
        worker = Worker(broker, pump, ["work"], inbox, url=url, **options(setup))
        producer = broker.connection(url=url, **options(setup)).Producer()
        producer.publish(1, routing_key="work")
        worker.until(inbox.has(1))
        # What the master has not passed on dies with it, an acknowledgement too.
        kept = b"feed.items" if broker.is_phonon else b"unacked"
        worker.until(lambda: not broker.key_names(kept))
        assert setup.master.client().wait(1, 10_000) == 1

        setup.fail_over()
        producer.publish(2, routing_key="work", retry=True, retry_policy=RETRY)
        worker.until(inbox.has(2), 30)

        assert inbox.bodies == [1, 2]


@pytest.mark.real_server("fakeredis has no sentinel")
@pytest.mark.parametrize("sentinel_too", [False, True])
def test_sentinel_with_tls(scheme: str, sentinel_too: bool) -> None:
    """The certificate of the master is verified; that of the sentinel where it is asked for."""
    files = Certificates()
    with SentinelSetup(certificates=files) as setup, Broker(scheme, setup.master) as broker:
        master, sentinel = setup.fronts
        tls = {"ssl_cert_reqs": "required", "ssl_ca_certs": files.ca}
        asked = {"sentinel_kwargs": {"ssl": True, **tls}} if sentinel_too else {}
        url = f"{broker.url_of('sentinel')}://127.0.0.1:{sentinel.port}/0"
        settings = {"transport_options": {"master_name": setup.master_name, **asked}}

        round_trip(broker, broker.connection(url=url, ssl=tls, **settings))
        assert master.secured and bool(sentinel.secured) == sentinel_too

        stranger = broker.connection(url=url, ssl={"ssl_cert_reqs": "required"}, **settings)
        with pytest.raises(stranger.connection_errors, match=r"(?i)certificate"):
            stranger.transport.establish_connection()
    files.close()
