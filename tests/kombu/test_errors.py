"""What goes wrong is said by an error of the right kind, with a sentence; nothing is lost."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

import pytest
from kombu import Connection, Exchange, Queue
from kombu.exceptions import OperationalError

from phonon_kombu.errors import PhononError, ScriptRefused
from tests.kombu.exam import Broker, Inbox, PumpFactory
from tests.kombu.worker import Worker
from tests.servers import RedisServer, free_port

ONCE = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}


def publish(connection: Connection, body: object = "x") -> None:
    connection.Producer().publish(body, routing_key="q", declare=[Queue("q")])


def is_a_sentence(error: BaseException) -> bool:
    """More than a bare word, and not just a Python object's representation."""
    return len(str(error).split()) >= 3


# Connecting ----------------------------------------------------------------------------------


def test_a_server_that_is_not_there(broker: Broker) -> None:
    port = free_port()
    connection = broker.connection(url=f"{broker.scheme}://127.0.0.1:{port}/0")

    with pytest.raises(connection.recoverable_connection_errors) as raw:
        connection.transport.establish_connection()
    with pytest.raises(OperationalError) as wrapped:
        connection.ensure_connection(**ONCE)

    for caught in (raw, wrapped):
        assert str(port) in str(caught.value)
        assert "refused" in str(caught.value)


@pytest.mark.real_server("fakeredis knows no passwords")
@pytest.mark.parametrize("login", ["", ":wrong@", "nobody:wrong@"])
def test_a_wrong_password(own_broker: Broker, login: str) -> None:
    own_broker.client.config_set("requirepass", "right")
    own_broker.server.password = "right"
    url = f"{own_broker.scheme}://{login}127.0.0.1:{own_broker.server.port}/0"
    connection = own_broker.connection(url=url)

    with pytest.raises(connection.connection_errors) as raw:
        connection.transport.establish_connection()
    with pytest.raises(OperationalError) as wrapped:
        connection.ensure_connection(**ONCE)

    for caught in (raw, wrapped):
        text = str(caught.value).lower()
        assert "password" in text or "authentication" in text
        assert "wrong@" not in text
        if own_broker.is_phonon:
            assert "the server refuses the user or the password" in text


def test_something_that_is_not_redis(broker: Broker) -> None:
    """A port that answers, but not in Redis's language."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.recv(1024)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    threading.Thread(target=answer, daemon=True).start()
    try:
        port = listener.getsockname()[1]
        connection = broker.connection(url=f"{broker.scheme}://127.0.0.1:{port}/0")
        errors = (*connection.connection_errors, *connection.channel_errors)
        with pytest.raises(errors) as caught:
            connection.transport.establish_connection()
        assert is_a_sentence(caught.value)
    finally:
        listener.close()


def test_a_database_number_that_the_server_does_not_have(broker: Broker) -> None:
    connection = broker.connection(url=broker.server.url(broker.scheme, 999))

    errors = (*connection.connection_errors, *connection.channel_errors, ValueError)
    with pytest.raises(errors) as caught:
        connection.transport.establish_connection()
        publish(connection)

    assert is_a_sentence(caught.value)


# A server that cannot write at the moment ------------------------------------------------------


def make_replica(server: RedisServer, stale_data: bool) -> None:
    """Make the server a replica of a master that is not there: it takes no writes."""
    server.client().config_set("replica-serve-stale-data", "yes" if stale_data else "no")
    server.client().replicaof("127.0.0.1", free_port())


def make_master(server: RedisServer) -> None:
    server.client().replicaof("NO", "ONE")


@pytest.mark.phonon_only("to stock this is a channel error, which ends a Celery worker")
@pytest.mark.real_server("fakeredis has no replicas")
@pytest.mark.parametrize("stale_data", [True, False], ids=["READONLY", "MASTERDOWN"])
def test_publishing_to_a_server_that_became_a_replica(own_broker: Broker, stale_data: bool) -> None:
    connection = own_broker.connection()
    publish(connection, 1)
    make_replica(own_broker.server, stale_data)
    with pytest.raises(connection.recoverable_connection_errors) as caught:
        publish(connection, 2)
    assert is_a_sentence(caught.value)

    make_master(own_broker.server)
    publish(connection, 3)

    assert own_broker.get_all("q") == [1, 3]


@pytest.mark.phonon_only("to stock this is a channel error, which ends a Celery worker")
@pytest.mark.real_server("fakeredis has no replicas")
@pytest.mark.parametrize("stale_data", [True, False], ids=["READONLY", "MASTERDOWN"])
def test_a_worker_outlives_a_server_that_became_a_replica(
    own_broker: Broker, pump: PumpFactory, stale_data: bool
) -> None:
    own_broker.send("q", *range(8))
    inbox = Inbox(ack=False)
    worker = Worker(own_broker, pump, ["q"], inbox, prefetch_count=2)
    worker.until(inbox.has(2))
    make_replica(own_broker.server, stale_data)
    back = threading.Timer(0.7, make_master, (own_broker.server,))
    back.start()
    try:
        inbox.ack = True
        for message in inbox.messages[:2]:
            with contextlib.suppress(*worker.connection.connection_errors):
                message.ack()
        worker.until(lambda: set(inbox.bodies) == set(range(8)))
    finally:
        back.join()
    worker.connection.release()

    assert own_broker.get_all("q") == []


@pytest.mark.real_server("fakeredis has no memory limit")
def test_a_full_server(own_broker: Broker) -> None:
    connection = own_broker.connection()
    publish(connection, "before")
    own_broker.client.config_set("maxmemory-policy", "noeviction")
    own_broker.client.config_set("maxmemory", 1)
    errors = (*connection.connection_errors, *connection.channel_errors, Exception)
    with pytest.raises(errors) as caught:
        publish(connection, "refused")
    assert "memory" in str(caught.value).lower()
    assert is_a_sentence(caught.value)

    own_broker.client.config_set("maxmemory", 0)
    publish(connection, "after")

    assert own_broker.get_all("q") == ["before", "after"]


@pytest.mark.phonon_only("to stock this is a channel error, which ends a Celery worker")
@pytest.mark.real_server("fakeredis has no memory limit")
def test_a_worker_outlives_a_full_server(own_broker: Broker, pump: PumpFactory) -> None:
    own_broker.send("q", *range(12))
    inbox = Inbox(ack=False)
    worker = Worker(own_broker, pump, ["q"], inbox, prefetch_count=4)
    worker.until(inbox.has(4))
    own_broker.client.config_set("maxmemory-policy", "noeviction")
    own_broker.client.config_set("maxmemory", 1)
    enough = threading.Timer(0.7, own_broker.client.config_set, ("maxmemory", 0))
    enough.start()
    try:
        inbox.ack = True
        for message in inbox.messages[:4]:
            with contextlib.suppress(*worker.connection.connection_errors):
                message.ack()
        worker.until(lambda: set(inbox.bodies) == set(range(12)))
    finally:
        enough.join()
    worker.connection.release()

    assert own_broker.get_all("q") == []


@pytest.mark.real_server("fakeredis has no such limit")
def test_a_message_that_the_server_finds_too_large(own_broker: Broker) -> None:
    """1 MB here, to spare us the real limit of 512 MB."""
    own_broker.client.config_set("proto-max-bulk-len", 1024 * 1024)
    connection = own_broker.connection()
    publish(connection, "small")

    with pytest.raises(Exception) as caught:
        publish(connection, "x" * (2 * 1024 * 1024))
    assert is_a_sentence(caught.value)
    publish(connection, "small again")

    assert own_broker.get_all("q") == ["small", "small again"]


@pytest.mark.phonon_only("stock runs hardly any scripts")
@pytest.mark.real_server("fakeredis has no ACL users")
def test_a_user_who_may_not_run_scripts(own_broker: Broker) -> None:
    own_broker.client.acl_setuser(
        "limited", enabled=True, passwords=["+pw"], keys=["*"], channels=["*"],
        categories=["+@all", "-@scripting"],
    )  # fmt: skip
    url = f"{own_broker.scheme}://limited:pw@127.0.0.1:{own_broker.server.port}/0"
    connection = own_broker.connection(url=url)

    with pytest.raises(PhononError) as caught:
        publish(connection)
    assert "limited" in str(caught.value) or "ACL" in str(caught.value)
    assert is_a_sentence(caught.value)


@pytest.mark.phonon_only("stock's user would be another")
@pytest.mark.real_server("fakeredis has no ACL users")
@pytest.mark.parametrize("forbidden", ["zadd", "hset", "rpop"])
def test_a_user_who_may_not_call_a_command_in_scripts(own_broker: Broker, forbidden: str) -> None:
    """It would be refused half way: claimed jobs would be nowhere."""
    own_broker.send("q", 1, 2)
    own_broker.client.acl_setuser(
        "limited", enabled=True, passwords=["+pw"], keys=["*"], channels=["*"],
        categories=["+@all"], commands=[f"-{forbidden}"],
    )  # fmt: skip
    connection = own_broker.connection(
        url=f"{own_broker.scheme}://limited:pw@127.0.0.1:{own_broker.server.port}/0"
    )

    with pytest.raises(ScriptRefused, match=forbidden.upper()):
        own_broker.consumer(connection, "q")
        connection.drain_events(timeout=1)

    assert own_broker.get_all("q") == [1, 2]


@pytest.mark.phonon_only("stock's keys have other names")
@pytest.mark.real_server("fakeredis has no ACL users")
def test_the_rights_that_are_documented_are_enough(own_broker: Broker, pump: PumpFactory) -> None:
    page = Path(__file__).parents[2] / "docs/howto/acl.md"
    _, found, rules = page.read_text().partition("ACL SETUSER shop on >secret ")
    assert found
    rules = rules.partition("```")[0].split()
    own_broker.client.execute_command("ACL", "SETUSER", "shop", "reset", "on", ">pw", *rules)
    url = f"{own_broker.scheme}://shop:pw@127.0.0.1:{own_broker.server.port}/0"
    connection = own_broker.connection(url=url)
    inbox = Inbox()
    news, topic = Exchange("news", type="fanout"), Exchange("topic", type="topic")
    queues = [
        Queue("plain", expires=30), Queue("n", news), Queue("t", topic, routing_key="a.#"),
    ]  # fmt: skip
    own_broker.consumer(connection, queues, inbox)
    producer = own_broker.connection(url=url).Producer()
    producer.publish("plain", routing_key="plain", priority=3, expiration=60)
    producer.publish("topic", exchange=topic, routing_key="a.b", declare=[topic])

    running = pump(connection)
    running.until(inbox.has(2))
    running.until(
        lambda: producer.publish("news", exchange=news, declare=[news]) or "news" in inbox.bodies
    )
    connection.release()

    assert not own_broker.size("plain")
    own_broker.exists("plain")
    denied = own_broker.client.acl_log()
    assert not denied, denied


@pytest.mark.phonon_only("stock's keys have other names")
@pytest.mark.real_server("fakeredis has no ACL users")
def test_a_user_of_a_single_queue_declares_one_that_expires(own_broker: Broker) -> None:
    """The names of expired queues, which it may not look at, are left to others."""
    own_broker.send("other", 1)
    own_broker.client.acl_setuser(
        "single", enabled=True, passwords=["+pw"], channels=["*"], categories=["+@all"],
        keys=["feed*:{mine}*", "feeds", "feeds.*", "node.*", "exchange.*", "phonon.*", "_kombu.*"],
    )  # fmt: skip
    connection = own_broker.connection(
        url=f"{own_broker.scheme}://single:pw@127.0.0.1:{own_broker.server.port}/0"
    )
    producer = connection.Producer()
    producer.publish(1, routing_key="mine", declare=[Queue("mine", expires=30)])
    assert own_broker.get_all("mine") == [1]


# What other clients put into a queue ----------------------------------------------------------


FOREIGN_ITEMS = [
    b"", b"\xff\x00 not text", b"not json", b"{", b"[]", b'"text"', b"null", b"{}",
    b'{"properties": {}}', b'{"body": "x", "properties": []}', b'{"body": "x", "headers": "y"}',
]  # fmt: skip


@pytest.mark.phonon_only("stock's queues hold the messages themselves")
@pytest.mark.parametrize("item", FOREIGN_ITEMS)
def test_a_foreign_item_that_is_no_message_is_stalled(
    broker: Broker, pump: PumpFactory, item: bytes
) -> None:
    """Any client that knows the key names may put a job; the worker goes on with the next."""
    broker.send("q", "before")
    broker.client.hset("feed.items:{q}", "odd", item)
    broker.client.zadd("feed.published:{q}", {"odd": 1})
    broker.client.lpush("feed.ids:{q}", "odd")
    broker.send("q", "after")
    connection = broker.connection()
    inbox = Inbox()
    broker.consumer(connection, "q", inbox, prefetch_count=4)
    running = pump(connection)

    running.until(inbox.has(2))
    running.until(lambda: broker.client.scard("feed.stalled:{q}"))

    assert inbox.bodies == ["before", "after"]
    assert broker.client.smembers("feed.stalled:{q}") == {b"odd"}
    assert broker.client.hget("feed.items:{q}", "odd") == item
    connection.release()
    assert broker.get_all("q") == []


@pytest.mark.phonon_only("stock's queues hold the messages themselves")
def test_an_id_without_an_item_does_not_stop_the_queue(broker: Broker, pump: PumpFactory) -> None:
    broker.send("q", "before")
    broker.client.lpush("feed.ids:{q}", "ghost")
    broker.send("q", "after")
    connection = broker.connection()
    inbox = Inbox()
    broker.consumer(connection, "q", inbox, prefetch_count=4)

    pump(connection).until(inbox.has(2))

    assert inbox.bodies == ["before", "after"]
