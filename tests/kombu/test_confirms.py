"""Publisher confirms: publish returns when the message is where it was asked to be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from phonon_kombu.errors import ConfigurationError, NotConfirmed
from phonon_kombu.store.checks import server_version
from phonon_kombu.transport.batch import BatchPublishError
from tests.kombu.exam import Broker
from tests.servers import RedisServer, start_server, wait_for

pytestmark = [
    pytest.mark.phonon_only("stock does not wait for anybody"),
    pytest.mark.real_server("fakeredis has neither a disk nor replicas"),
]


@pytest.fixture
def replica(own_server: RedisServer) -> Iterator[RedisServer]:
    """A replica of the test's own server."""
    with start_server("--replicaof", "127.0.0.1", str(own_server.port)) as server:
        wait_for(
            lambda: server.client().info("replication").get("master_link_status") == "up",
            message="the replica does not come up",
        )
        yield server


def publish(broker: Broker, body: Any, **options: Any) -> None:
    with broker.connection(transport_options=options) as connection:
        connection.Producer().publish(body, routing_key="q")


def test_a_replica_has_it(own_broker: Broker, replica: RedisServer) -> None:
    publish(own_broker, "x", confirm_publish=1)
    assert replica.client().hlen("feed.items:{q}") == 1


def test_too_few_replicas(own_broker: Broker, replica: RedisServer) -> None:
    with pytest.raises(NotConfirmed, match="1 of 2 replicas"):
        publish(own_broker, "x", confirm_publish=2, confirm_timeout_ms=100)
    assert own_broker.get_all("q") == ["x"]


def test_a_replica_that_hangs_and_the_repeated_publish(
    own_broker: Broker, replica: RedisServer
) -> None:
    """The same message published again is confirmed, and there once."""
    options = {"confirm_publish": 1, "confirm_timeout_ms": 300}
    replica.pause()
    with own_broker.connection(transport_options=options) as connection:
        channel = connection.default_channel
        message = channel.prepare_message("x", 0, "text/plain", "utf-8")
        try:
            with pytest.raises(NotConfirmed, match="0 of 1 replicas"):
                channel.basic_publish(message, "", "q")
        finally:
            replica.resume()
        wait_for(lambda: _published(channel, message), message="it is not confirmed")
    assert own_broker.size("q") == 1


def _published(channel: Any, message: Any) -> bool:
    try:
        channel.basic_publish(message, "", "q")
    except NotConfirmed:
        return False
    return True


def test_confirmed_batches(own_broker: Broker, replica: RedisServer) -> None:
    with own_broker.connection(transport_options={"confirm_publish": 1}) as connection:
        producer = connection.Producer()
        with producer.batch():
            for n in range(10):
                producer.publish(n, routing_key="q")
        assert replica.client().hlen("feed.items:{q}") == 10
    options = {"confirm_publish": 2, "confirm_timeout_ms": 100}
    with own_broker.connection(transport_options=options) as connection:
        producer = connection.Producer()
        with pytest.raises(BatchPublishError, match="replicas"), producer.batch():
            producer.publish("x", routing_key="q")


def test_local_without_a_file_is_refused(own_broker: Broker) -> None:
    with pytest.raises(NotConfirmed, match="appendonly yes"):
        publish(own_broker, "x", confirm_publish=True)


def test_local_with_a_file(own_broker: Broker) -> None:
    own_broker.client.config_set("appendonly", "yes")
    own_broker.client.config_set("appendfsync", "everysec")
    version = own_broker.client.info("server")["redis_version"]
    if server_version(f"redis_version:{version}") < (7, 2):
        with pytest.raises(NotConfirmed, match=r"Redis 7\.2"):
            publish(own_broker, "x", confirm_publish="local")
        return
    publish(own_broker, "x", confirm_publish="local")
    assert own_broker.get_all("q") == ["x"]
    with pytest.raises(NotConfirmed, match="0 of 1 replicas"):
        publish(own_broker, "y", confirm_publish=True, confirm_replicas=1, confirm_timeout_ms=100)


@pytest.mark.parametrize(
    "options",
    [
        {"confirm_publish": "everywhere"},
        {"confirm_publish": -1},
        {"confirm_publish": 1.5},
        {"confirm_publish": 1, "confirm_replicas": 1},
        {"confirm_publish": "local", "confirm_replicas": -1},
        {"confirm_replicas": 1},
        {"confirm_publish": 1, "confirm_timeout_ms": 0},
        {"confirm_publish": 1, "confirm_timeout_ms": 30_000},
        {"delayed_delivery": "no"},
    ],
)
def test_options_that_make_no_sense(broker: Broker, options: dict[str, Any]) -> None:
    with pytest.raises((ConfigurationError, OperationalError), match="|".join(options)):
        publish(broker, "x", **options)


def test_one_round_trip(own_broker: Broker, replica: RedisServer) -> None:
    """The put and the wait leave in one write."""
    with own_broker.connection(transport_options={"confirm_publish": 1}) as connection:
        producer = connection.Producer()
        producer.publish("warm", routing_key="q")
        link, sent = connection.default_channel.link, []
        packed = link.connection().send_packed_command
        link.connection().send_packed_command = lambda c, *a, **k: (sent.append(c), packed(c))
        producer.publish("x", routing_key="q")
        assert len(sent) == 1
