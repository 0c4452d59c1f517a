"""Queues as such: get, acknowledge, size, purge, delete, and names of every kind."""

from __future__ import annotations

import pytest
from kombu import Exchange, Queue
from kombu.exceptions import ChannelError

from tests.kombu.exam import Broker, DrainPump, Inbox, PumpFactory

NAMES = {
    "spaces": "a queue  with spaces ",
    "braces": "{tag}:jobs{}",
    "open-brace": "{",
    "lines": "first\nsecond\r\n\tthird",
    "unicode": "väljakö ✓ 🚀",
    "glob": "a*b?[c]\\d",
    "colons": "feed.ids:{q}::x",
    "quotes": 'it\'s "quoted" -- \x00 nul',
    "long": "q" * 10_240,
}


def test_messages_are_taken_in_the_order_of_publishing(broker: Broker) -> None:
    broker.send("q", *range(30))

    with broker.connection() as connection:
        channel = connection.default_channel
        received = []
        for _ in range(30):
            message = channel.basic_get("q")
            received.append(message.payload)
            message.ack()
        assert channel.basic_get("q") is None

    assert received == list(range(30))


def test_an_acknowledged_message_is_gone(broker: Broker) -> None:
    broker.send("q", 1, 2)
    broker.take("q", 1)

    assert broker.size("q") == 1
    assert broker.get_all("q") == [2]
    assert broker.get_all("q") == []


def test_a_message_that_was_got_is_held_until_acknowledged(broker: Broker) -> None:
    broker.send("q", "only")
    with broker.connection() as connection:
        message = connection.default_channel.basic_get("q")
        assert broker.size("q") == 0
        assert broker.get_all("q") == []
        message.ack()

    assert broker.get_all("q") == []


def test_get_without_acknowledgement(broker: Broker) -> None:
    broker.send("q", 1, 2)
    with broker.connection() as connection:
        message = connection.default_channel.basic_get("q", no_ack=True)
        assert message.payload == 1

    assert broker.get_all("q") == [2]


def test_consuming_without_acknowledgement(broker: Broker, pump: PumpFactory) -> None:
    broker.send("q", *range(40))
    connection = broker.connection()
    inbox = Inbox(ack=False)
    broker.consumer(connection, "q", inbox, no_ack=True)

    pump(connection).until(inbox.has(40))
    connection.release()

    assert inbox.bodies == list(range(40))
    assert broker.get_all("q") == []


def test_purge_returns_how_many_it_removed(broker: Broker) -> None:
    for priority in (0, 3, 9):
        broker.send("q", 1, 2, 3, priority=priority)
    with broker.connection() as connection:
        assert connection.default_channel.queue_purge("q") == 9
        assert connection.default_channel.queue_purge("q") == 0

    assert broker.get_all("q") == []


@pytest.mark.real_server("fakeredis takes 10 ms and more for a command: too slow for so many")
def test_purge_of_many_messages(broker: Broker) -> None:
    with broker.connection() as connection:
        producer = connection.Producer()
        with producer.batch():
            for number in range(3_000):
                producer.publish(number, routing_key="q", declare=[Queue("q")])
        assert broker.size("q") == 3_000
        assert connection.default_channel.queue_purge("q") == 3_000

    assert broker.size("q") == 0


def test_purge_leaves_what_a_consumer_holds(broker: Broker) -> None:
    broker.send("q", "held", "waiting")
    connection = broker.connection()
    message = connection.default_channel.basic_get("q")

    with broker.connection() as other:
        assert other.default_channel.queue_purge("q") == 1
    message.requeue()

    assert broker.get_all("q") == ["held"]


def test_size_counts_ready_messages_of_every_priority(broker: Broker) -> None:
    broker.send("q", 1, 2, priority=0)
    broker.send("q", 3, priority=6)
    assert broker.size("q") == 3

    with broker.connection() as connection:
        connection.default_channel.basic_get("q")
        assert broker.size("q") == 2

    assert broker.size("q") == 3


def test_a_declaration_returns_the_size(broker: Broker) -> None:
    broker.send("q", 1, 2)

    with broker.connection() as connection:
        answer = Queue("q", channel=connection.default_channel).queue_declare()

    assert answer.queue == "q"
    assert answer.message_count == 2


def test_a_passive_declaration_of_an_unknown_queue_is_a_404(broker: Broker) -> None:
    with broker.connection() as connection, pytest.raises(ChannelError) as caught:
        connection.default_channel.queue_declare("never declared", passive=True)

    assert caught.value.code == 404 or caught.value.reply_code == "404"
    assert "never declared" in str(caught.value)


@pytest.mark.phonon_only("to stock a queue without messages does not exist")
def test_an_empty_declared_queue_exists(broker: Broker) -> None:
    with broker.connection() as connection:
        Queue("q", channel=connection.default_channel).declare()
    assert broker.exists("q")

    broker.send("q", 1)
    broker.take("q", 1)
    assert broker.exists("q")
    assert broker.peer()("size", queue="q") == 0


def test_a_deleted_queue_is_gone_with_its_messages(broker: Broker) -> None:
    queue = Queue("q", Exchange("x"), routing_key="k")
    broker.send(queue, 1, 2, 3)
    with broker.connection() as connection:
        bound = queue(connection.default_channel)
        bound.declare()
        bound.delete()

        assert not broker.exists("q")
        assert connection.default_channel.basic_get("q") is None
        bound.declare()
        assert broker.size("q") == 0


@pytest.mark.phonon_only("stock deletes only what this connection has bound to an exchange")
def test_a_queue_that_another_connection_declared_can_be_deleted(broker: Broker) -> None:
    broker.send("plain", 1, 2)
    broker.send(Queue("bound", Exchange("x"), routing_key="k"), 1, 2)

    with broker.connection() as connection:
        connection.default_channel.queue_delete("plain")
        connection.default_channel.queue_delete("bound")

    assert not broker.exists("plain")
    assert not broker.exists("bound")


def test_a_queue_with_messages_is_not_deleted_if_it_should_be_empty(broker: Broker) -> None:
    queue = Queue("q", Exchange("x"), routing_key="k")
    broker.send(queue, 1)
    with broker.connection() as connection:
        bound = queue(connection.default_channel)
        bound.declare()
        bound.delete(if_empty=True)
        assert broker.size("q") == 1
        connection.default_channel.queue_purge("q")
        bound.delete(if_empty=True)

    assert not broker.exists("q")


def test_acknowledging_a_message_of_a_deleted_queue_is_harmless(broker: Broker) -> None:
    queue = Queue("q", Exchange("x"), routing_key="k")
    broker.send(queue, 1, 2)
    with broker.connection() as connection:
        bound = queue(connection.default_channel)
        bound.declare()
        message = bound.get()
        bound.delete()
        message.ack()
        bound.declare()
        assert bound.get() is None


def test_a_server_named_queue(broker: Broker) -> None:
    with broker.connection() as connection:
        channel = connection.default_channel
        first, second = Queue("", channel=channel), Queue("", channel=channel)
        first.queue_declare()
        second.queue_declare()
        assert first.name
        assert first.name != second.name
        connection.Producer().publish("x", routing_key=first.name)

    assert broker.get_all(first.name) == ["x"]


@pytest.mark.parametrize("kind", NAMES)
def test_queue_names_of_every_kind(broker: Broker, kind: str) -> None:
    name = NAMES[kind]
    broker.send(name, 1, 2)
    broker.send("bystander", "mine")
    assert broker.size(name) == 2
    assert [message.payload for message in broker.take(name, 1)] == [1]

    with broker.connection() as connection:
        inbox = Inbox(ack=False)
        broker.consumer(connection, name, inbox)
        DrainPump(connection).until(inbox.has(1))
        inbox.messages[0].reject(requeue=True)
    assert broker.size(name) == 1
    with broker.connection() as connection:
        assert connection.default_channel.queue_purge(name) == 1

    assert broker.get_all("bystander") == ["mine"]


@pytest.mark.parametrize("kind", sorted(NAMES.keys() - {"long"}))
def test_bound_queues_exchanges_and_keys_of_every_kind(broker: Broker, kind: str) -> None:
    name = NAMES[kind]
    queue = Queue(name, Exchange(f"x {name}", type="direct"), routing_key=f"k {name}")
    broker.send(queue, "routed")

    assert [message.payload for message in broker.take(queue, 1)] == ["routed"]


def test_queues_whose_names_contain_each_other(broker: Broker) -> None:
    names = ["a", "a:b", "{a}", "a{b}", "aa", "A"]
    for name in names:
        broker.send(name, name)

    assert [broker.get_all(name) for name in names] == [[name] for name in names]
