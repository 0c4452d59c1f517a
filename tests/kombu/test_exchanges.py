"""Direct and topic exchanges, bindings, and what other processes know of them."""

from __future__ import annotations

from typing import Any

import pytest
from kombu import Connection, Exchange, Queue, binding
from kombu.exceptions import ChannelError
from kombu.transport.virtual.base import UndeliverableWarning

from tests.kombu.exam import Broker, DrainPump, Inbox, Peer
from tests.servers import wait_for

DIRECT = Exchange("direct-x", type="direct")
TOPIC = Exchange("topic-x", type="topic")


def declare(connection: Connection, *queues: Queue) -> list[Queue]:
    """Declare queues with their exchanges and bindings; returns them bound to the channel."""
    bound = [queue(connection.default_channel) for queue in queues]
    for queue in bound:
        queue.declare()
    return bound


def publish(connection: Connection, exchange: Exchange, key: str, body: Any) -> None:
    connection.Producer(exchange=exchange).publish(body, routing_key=key)


def test_a_direct_exchange_routes_by_the_exact_key(broker: Broker) -> None:
    with broker.connection() as connection:
        declare(
            connection,
            Queue("red", DIRECT, routing_key="red"),
            Queue("blue", DIRECT, routing_key="blue"),
            Queue("all", DIRECT, bindings=[binding(DIRECT, "red"), binding(DIRECT, "blue")]),
        )
        for key in ("red", "blue", "reddish", "Red", ""):
            publish(connection, DIRECT, key, key)

    assert broker.get_all("red") == ["red"]
    assert broker.get_all("blue") == ["blue"]
    assert broker.get_all("all") == ["red", "blue"]


def test_every_queue_bound_by_the_same_key_gets_a_copy(broker: Broker) -> None:
    with broker.connection() as connection:
        declare(connection, *(Queue(name, DIRECT, routing_key="k") for name in "abc"))
        publish(connection, DIRECT, "k", {"x": 1})

    assert [broker.get_all(name) for name in "abc"] == [[{"x": 1}]] * 3


def test_a_queue_bound_twice_by_one_key_gets_one_copy(broker: Broker) -> None:
    for _ in range(2):
        with broker.connection() as connection:
            declare(connection, Queue("q", DIRECT, routing_key="k"))
            declare(connection, Queue("q", DIRECT, routing_key="k"))
            publish(connection, DIRECT, "k", "one")

    assert broker.get_all("q") == ["one", "one"]


TOPIC_CASES = [
    ("stock.nyse", ["stock.nyse"], ["stock", "stock.nyse.ibm", "xstock.nyse", "stockxnyse"]),
    ("stock.*", ["stock.nyse", "stock.x"], ["stock", "stock.nyse.ibm", "other.nyse"]),
    ("*.nyse", ["stock.nyse", "bond.nyse"], ["nyse", "a.b.nyse", "stock.nyse.ibm"]),
    ("stock.*.ibm", ["stock.nyse.ibm"], ["stock.ibm", "stock.a.b.ibm"]),
    ("stock.#", ["stock.nyse", "stock.nyse.ibm"], ["bond.nyse", "mystock.nyse"]),
    ("#.ibm", ["nyse.ibm", "stock.nyse.ibm"], ["stock.nyse", "nyse.ibm.x"]),
    ("#", ["stock", "stock.nyse", "a.b.c.d"], []),
    ("*", ["stock", "x"], ["a.b"]),
    ("a+b.(c)", ["a+b.(c)"], ["aab.c", "a+b.c"]),
]


@pytest.mark.parametrize(
    ("pattern", "matching", "other"), TOPIC_CASES, ids=[c[0] for c in TOPIC_CASES]
)
def test_a_topic_exchange_routes_by_pattern(
    broker: Broker, pattern: str, matching: list[str], other: list[str]
) -> None:
    with broker.connection() as connection:
        declare(connection, Queue("q", TOPIC, routing_key=pattern))
        for key in [*other, *matching]:
            publish(connection, TOPIC, key, key)

    assert broker.get_all("q") == matching


def test_a_topic_queue_with_several_patterns_gets_one_copy(broker: Broker) -> None:
    with broker.connection() as connection:
        queue = Queue("q", TOPIC, bindings=[binding(TOPIC, "a.*"), binding(TOPIC, "#.b")])
        declare(connection, queue)
        publish(connection, TOPIC, "a.b", "both")

    assert broker.get_all("q") == ["both"]


def test_a_queue_bound_to_several_exchanges(broker: Broker) -> None:
    with broker.connection() as connection:
        queue = Queue("q", bindings=[binding(DIRECT, "k"), binding(TOPIC, "t.*")])
        declare(connection, queue)
        publish(connection, DIRECT, "k", "direct")
        publish(connection, TOPIC, "t.x", "topic")

    assert broker.get_all("q") == ["direct", "topic"]


def test_a_message_that_no_binding_matches_is_dropped(broker: Broker) -> None:
    with broker.connection() as connection:
        declare(connection, Queue("q", DIRECT, routing_key="k"))
        publish(connection, DIRECT, "unknown", "nobody wants this")
        publish(connection, Exchange("unbound", type="topic"), "k", "nor this")

    assert broker.get_all("q") == []
    assert broker.size("unknown") == 0


def test_the_dead_letter_queue_takes_what_no_binding_matches(broker: Broker) -> None:
    options = {"deadletter_queue": "undelivered"}
    with broker.connection(transport_options=options) as connection:
        declare(connection, Queue("q", DIRECT, routing_key="k"))
        with pytest.warns(UndeliverableWarning):
            publish(connection, DIRECT, "unknown", "lost and found")

    assert broker.get_all("undelivered") == ["lost and found"]


def test_passive_declaration_of_an_exchange(broker: Broker) -> None:
    with broker.connection() as connection:
        channel = connection.default_channel
        with pytest.raises(ChannelError):
            channel.exchange_declare("direct-x", passive=True)
        channel.exchange_declare("direct-x", type="direct")
        channel.exchange_declare("direct-x", passive=True)


def test_deleting_an_exchange_ends_its_routing(broker: Broker) -> None:
    with broker.connection() as connection:
        declare(connection, Queue("q", DIRECT, routing_key="k"))
        connection.default_channel.exchange_delete("direct-x")
        publish(connection, DIRECT, "k", "too late")

    assert broker.get_all("q") == []


@pytest.mark.phonon_only("stock's unbind leaves the binding in Redis")
def test_unbinding_ends_the_routing_by_that_key_only(broker: Broker) -> None:
    with broker.connection() as connection:
        queue = Queue("q", DIRECT, bindings=[binding(DIRECT, "a"), binding(DIRECT, "b")])
        (bound,) = declare(connection, queue, Queue("other", DIRECT, routing_key="a"))[:1]
        bound.unbind_from(DIRECT, routing_key="a")
        publish(connection, DIRECT, "a", "a")
        publish(connection, DIRECT, "b", "b")
        bound.bind_to(DIRECT, routing_key="a")
        publish(connection, DIRECT, "a", "again")

    assert broker.get_all("q") == ["b", "again"]
    assert broker.get_all("other") == ["a", "again"]


# Other processes. A publisher keeps what it knows about bindings; a change that any process
# has made must count from the moment that the call which made it has returned.


def publish_from(peer: Peer, exchange: Exchange, key: str, body: Any) -> None:
    peer("publish", body=body, exchange=exchange.name, type=exchange.type, routing_key=key)


@pytest.mark.parametrize("exchange", [DIRECT, TOPIC], ids=["direct", "topic"])
def test_a_process_that_declared_no_binding_publishes_by_them(
    broker: Broker, exchange: Exchange
) -> None:
    peer = broker.peer()
    publish_from(peer, exchange, "k", "before any binding")
    with broker.connection() as connection:
        for number in range(5):
            declare(connection, Queue(f"q{number}", exchange, routing_key="k"))
            publish_from(peer, exchange, "k", number)

    assert [broker.get_all(f"q{n}") for n in range(5)] == [list(range(n, 5)) for n in range(5)]


@pytest.mark.real_server("fakeredis takes 10 ms and more for a command: too slow for so many")
@pytest.mark.phonon_only("stock's unbind leaves the binding in Redis")
@pytest.mark.parametrize("exchange", [DIRECT, TOPIC], ids=["direct", "topic"])
def test_a_binding_moved_by_one_process_moves_for_the_others(
    broker: Broker, exchange: Exchange
) -> None:
    peer = broker.peer()
    expected: dict[str, list[int]] = {"q0": [], "q1": []}
    with broker.connection() as connection:
        queues = declare(connection, Queue("q0", exchange), Queue("q1", exchange))
        for number in range(40):
            old, new = queues[(number + 1) % 2], queues[number % 2]
            old.unbind_from(exchange, routing_key="k")
            new.bind_to(exchange, routing_key="k")
            publish_from(peer, exchange, "k", number)
            expected[new.name].append(number)

    assert {name: broker.get_all(name) for name in expected} == expected


def test_deleting_a_queue_ends_routing_to_it_from_other_processes(broker: Broker) -> None:
    peer = broker.peer()
    with broker.connection() as connection:
        doomed, _ = declare(
            connection,
            Queue("doomed", DIRECT, routing_key="k"),
            Queue("kept", DIRECT, routing_key="k"),
        )
        publish_from(peer, DIRECT, "k", 1)
        doomed.delete()
        publish_from(peer, DIRECT, "k", 2)

    assert broker.size("doomed") == 0
    assert broker.get_all("kept") == [1, 2]


@pytest.mark.phonon_only("stock reads the bindings for every message")
def test_the_version_of_a_deleted_exchange_ends_and_publishers_notice(broker: Broker) -> None:
    """Also one that kept a table from before the version's end, which is a day later."""
    peer = broker.peer()
    version = f"exchange.version:{{{DIRECT.name}}}"
    with broker.connection() as connection:
        declare(connection, Queue("q", DIRECT, routing_key="k"))
        assert broker.client.ttl(version) == -1
        publish_from(peer, DIRECT, "k", 1)
        before = int(broker.client.get(version))
        connection.default_channel.exchange_delete(DIRECT.name)
        assert 86_000 < broker.client.ttl(version) <= 86_400

        publish_from(peer, DIRECT, "k", "dropped")
        broker.client.pexpire(version, 1)
        wait_for(lambda: not broker.client.exists(version))
        publish_from(peer, DIRECT, "k", "dropped")
        declare(connection, Queue("q", DIRECT, routing_key="k"))
        # No version comes again: a table that was kept all the while would be taken for this one.
        assert int(broker.client.get(version)) > before
        assert broker.client.ttl(version) == -1
        publish_from(peer, DIRECT, "k", 2)

    assert broker.get_all("q") == [1, 2]


def test_consumers_in_different_processes_share_a_bound_queue(broker: Broker) -> None:
    queue = Queue("q", TOPIC, routing_key="job.#")
    with broker.connection() as connection:
        declare(connection, queue)
        for number in range(6):
            publish(connection, TOPIC, f"job.{number}", number)
    elsewhere = broker.peer()("hold", queue="q", count=3)

    with broker.connection() as connection:
        inbox = Inbox()
        broker.consumer(connection, queue, inbox)
        DrainPump(connection).until(inbox.has(3))

    assert sorted(elsewhere + inbox.bodies) == list(range(6))


# Where a message goes back to.


@pytest.mark.phonon_only("stock looks the bindings up again, and drops what they don't match")
def test_a_requeued_message_returns_to_its_queue_whatever_became_of_the_binding(
    broker: Broker,
) -> None:
    with broker.connection() as connection:
        (queue,) = declare(connection, Queue("q", TOPIC, routing_key="a.#"))
        publish(connection, TOPIC, "a.b", "kept")
        message = queue.get()
        queue.unbind_from(TOPIC, routing_key="a.#")
        message.requeue()
        assert broker.size("q") == 1
        held = queue.get()
        assert held.payload == "kept"

    assert broker.get_all("q") == ["kept"]


@pytest.mark.phonon_only("stock gives a requeued message to every queue that the key matches")
def test_a_requeued_message_returns_to_its_queue_only(broker: Broker) -> None:
    with broker.connection() as connection:
        first, _ = declare(
            connection,
            Queue("first", DIRECT, routing_key="k"),
            Queue("second", DIRECT, routing_key="k"),
        )
        publish(connection, DIRECT, "k", "copy")
        first.get().requeue()

    assert broker.get_all("first") == ["copy"]
    assert broker.get_all("second") == ["copy"]
