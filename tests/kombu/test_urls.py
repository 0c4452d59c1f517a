"""Every form of URL leads to the right server, user and database."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from urllib.parse import quote

import pytest
import redis
from kombu.transport.redis import Channel as StockChannel

from phonon_kombu.errors import ConfigurationError
from tests.kombu.exam import Broker, DrainPump, Inbox, round_trip

SECRET = "p@ss:w/rd%20#?✓"


@pytest.mark.parametrize("db", [0, 3])
def test_the_path_is_the_number_of_the_database(broker: Broker, db: int) -> None:
    connection = broker.connection(url=broker.server.url(broker.scheme, db))
    connection.Producer().publish("here", routing_key="q")

    sizes = {n: broker.server.client(n).dbsize() for n in (0, 3)}
    assert {n for n, size in sizes.items() if size} == {db}
    inbox = Inbox()
    broker.consumer(connection, "q", inbox)
    DrainPump(connection).until(inbox.has(1))


def test_the_database_as_virtual_host(broker: Broker) -> None:
    url = f"{broker.scheme}://127.0.0.1:{broker.server.port}"
    with broker.connection(url=url, virtual_host="4") as connection:
        connection.Producer().publish("here", routing_key="q")

    assert broker.server.client(4).dbsize() > 0
    assert broker.server.client(0).dbsize() == 0


def test_host_and_port_as_settings(broker: Broker) -> None:
    connection = broker.connection(
        url="127.0.0.1", port=broker.server.port, transport=broker.scheme, virtual_host="0"
    )
    round_trip(broker, connection)


@pytest.mark.real_server("fakeredis has no Unix socket")
@pytest.mark.parametrize("db", [0, 2])
def test_a_unix_socket(broker: Broker, db: int) -> None:
    url = f"{broker.url_of('socket')}://{broker.server.socket_path}?virtual_host={db}"
    connection = broker.connection(url=url)
    connection.Producer().publish("via the socket", routing_key="q")

    assert broker.server.client(db).dbsize() > 0
    inbox = Inbox()
    broker.consumer(connection, "q", inbox)
    DrainPump(connection).until(inbox.has(1))
    assert inbox.bodies == ["via the socket"]


def test_an_address_that_makes_no_sense(broker: Broker) -> None:
    with pytest.raises(ValueError, match=r"port|Port"):
        broker.connection(url=f"{broker.scheme}://localhost:notaport/0").connect()
    with pytest.raises(ValueError, match="notanumber"):
        broker.connection(url=f"{broker.scheme}://localhost/notanumber").connect()


# Users and passwords -------------------------------------------------------------------------


@pytest.fixture
def guarded(own_broker: Broker) -> Iterator[Broker]:
    """A server that wants a password, and has a user of its own with another one."""
    client = own_broker.client
    client.acl_setuser(
        "worker", enabled=True, passwords=[f"+{SECRET}"], keys=["*"], channels=["*"],
        categories=["+@all"],
    )  # fmt: skip
    client.config_set("requirepass", "general")
    own_broker.server.password = "general"
    yield own_broker


@pytest.mark.real_server("fakeredis has no ACL users")
def test_a_password(guarded: Broker) -> None:
    url = f"{guarded.scheme}://:general@127.0.0.1:{guarded.server.port}/0"
    round_trip(guarded, guarded.connection(url=url))


@pytest.mark.real_server("fakeredis has no ACL users")
def test_a_user_with_a_password_full_of_special_characters(guarded: Broker) -> None:
    url = f"{guarded.scheme}://worker:{quote(SECRET, safe='')}@127.0.0.1:{guarded.server.port}/1"
    connection = guarded.connection(url=url)
    round_trip(guarded, connection)

    users = {client["user"] for client in _clients(guarded)}
    assert "worker" in users


@pytest.mark.real_server("fakeredis has no ACL users")
def test_user_and_password_as_settings(guarded: Broker) -> None:
    url = f"{guarded.scheme}://127.0.0.1:{guarded.server.port}/0"
    round_trip(guarded, guarded.connection(url=url, userid="worker", password=SECRET))


@pytest.mark.real_server("fakeredis has no ACL users")
def test_a_unix_socket_with_a_password(guarded: Broker) -> None:
    url = f"{guarded.url_of('socket')}://:general@{guarded.server.socket_path}?virtual_host=0"
    round_trip(guarded, guarded.connection(url=url))


class Provider(redis.CredentialProvider):
    """Credentials from elsewhere than the URL."""

    def get_credentials(self) -> tuple[str, str]:
        return ("worker", SECRET)


@pytest.mark.real_server("fakeredis has no ACL users")
@pytest.mark.parametrize("how", ["object", "name"])
def test_a_credential_provider(guarded: Broker, how: str) -> None:
    provider = Provider() if how == "object" else f"{__name__}.Provider"
    url = f"{guarded.scheme}://127.0.0.1:{guarded.server.port}/0"
    round_trip(guarded, guarded.connection(url=url, credential_provider=provider))


@pytest.mark.phonon_only("stock lets the error of the import through")
@pytest.mark.parametrize("name", ["no.such.module.Provider", "os.path.Provider", "os.path", "int"])
@pytest.mark.parametrize("form", ["phonon", "socket"])
def test_a_credential_provider_that_is_none(broker: Broker, name: str, form: str) -> None:
    place = f"127.0.0.1:{broker.server.port}/0"
    if form == "socket":
        place = str(broker.server.socket_path)
    scheme = "phonon" if form == "phonon" else "phonon+socket"
    connection = broker.connection(url=f"{scheme}://{place}?credential_provider={name}")

    with pytest.raises(ConfigurationError, match=name):
        assert connection.default_channel


def _clients(broker: Broker) -> list[dict[str, str]]:
    return list(broker.client.client_list())  # type: ignore[arg-type]


def test_passwords_are_masked(broker: Broker) -> None:
    connection = broker.connection(url=f"{broker.scheme}://me:topsecret@example.org:1234/5")

    assert "topsecret" not in connection.as_uri()
    assert connection.as_uri().startswith(f"{broker.scheme}://me:**@example.org:1234/5")
    assert "topsecret" in connection.as_uri(include_password=True)
    assert "topsecret" not in repr(connection)


def test_a_connection_can_be_cloned_and_pickled(broker: Broker) -> None:
    original = broker.connection()
    round_trip(broker, original)

    for copy in (original.clone(), pickle.loads(pickle.dumps(original))):
        with copy:
            assert copy.as_uri() == original.as_uri()
            round_trip(broker, copy)


# Options -------------------------------------------------------------------------------------


def test_the_client_name_shows_in_redis(broker: Broker) -> None:
    connection = broker.connection(transport_options={"client_name": "exam-worker"})
    round_trip(broker, connection)

    assert "exam-worker" in {client["name"] for client in _clients(broker)}


@pytest.mark.parametrize("option", [*StockChannel.from_transport_options, "polling_interval"])
def test_every_option_of_stock_is_accepted(broker: Broker, option: str) -> None:
    values = {
        "body_encoding": "base64", "deadletter_queue": "lost", "sep": ":", "ack_emulation": True,
        "unacked_key": "u", "unacked_index_key": "ui", "unacked_mutex_key": "um",
        "unacked_mutex_expire": 10, "visibility_timeout": 60, "unacked_restore_limit": 5,
        "unacked_restore_interval": 5, "unacked_restore_throttle": 2, "fanout_prefix": True,
        "fanout_patterns": True, "global_keyprefix": "p.", "socket_timeout": 5,
        "socket_connect_timeout": 5, "socket_keepalive": True, "socket_keepalive_options": {},
        "queue_order_strategy": "sorted", "max_connections": 5, "health_check_interval": 5,
        "retry_on_timeout": True, "priority_steps": [0, 5], "client_name": "name",
        "polling_interval": 1,
    }  # fmt: skip
    round_trip(broker, broker.connection(transport_options={option: values[option]}))


@pytest.mark.phonon_only("stock ignores what it does not know")
@pytest.mark.parametrize(
    "options", [{"visibilty_timeout": 60}, {"priority_order": "random"}, {"polling_interval": -1}]
)
def test_an_option_that_makes_no_sense_is_refused_by_name(
    broker: Broker, options: dict[str, object]
) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=name):
        broker.connection(transport_options=options).connect()


def test_what_celery_asks_the_transport(broker: Broker) -> None:
    transport = broker.connection().transport

    assert transport.driver_type == "redis"
    assert transport.driver_version()
    assert transport.implements.asynchronous
    assert transport.implements.exchange_type == {"direct", "topic", "fanout"}
    assert not transport.implements.heartbeats
