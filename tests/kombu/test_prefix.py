"""``global_keyprefix``: every key and channel of ours begins with it, and applications with
different prefixes share a database without seeing each other."""

from __future__ import annotations

import pytest
from kombu import Exchange, Queue

from tests.kombu.exam import Broker, Inbox, PumpFactory, tune_in

PREFIX = "my app:{x}:"
OPTIONS = {"transport_options": {"global_keyprefix": PREFIX}}


def test_no_key_without_the_prefix(own_broker: Broker, pump: PumpFactory) -> None:
    """All that the exam does elsewhere, in short: then look at every key and channel."""
    broker = own_broker  # no heart of another test beats there
    connection = broker.connection(**OPTIONS)
    topic, news = Exchange("t", type="topic"), Exchange("news", type="fanout")
    routed = Queue("routed", topic, routing_key="a.#")
    queues = [
        Queue("q"), routed, Queue("heard", news), Queue("brief", topic, "b.#", expires=60)
    ]  # fmt: skip
    inbox = Inbox(ack=False)
    consumer = broker.consumer(connection, queues, inbox, prefetch_count=20)
    running = pump(connection)
    tune_in(broker, news, (running, inbox), **OPTIONS)
    producer = connection.Producer()
    for priority in (0, 5, 9):
        producer.publish({"n": priority}, routing_key="q", priority=priority)
    producer.publish("topic", exchange=topic, routing_key="a.b")
    producer.publish("brief", exchange=topic, routing_key="b.b", expiration=60)
    producer.publish("news", exchange=news, routing_key="")
    with producer.batch():
        producer.publish("batched", routing_key="q")

    running.until(inbox.has(7))
    first, second, third = (m for m in inbox.messages if isinstance(m.payload, dict))
    first.requeue()
    second.reject()
    running.until(inbox.has(8))
    keys_and_channels = [*broker.key_names(), *broker.client.pubsub_channels()]
    consumer.cancel()
    third.ack()
    connection.default_channel.basic_get("q")
    keys_and_channels += broker.key_names()
    connection.default_channel.queue_purge("q")
    routed(connection.default_channel).delete()
    connection.release()
    keys_and_channels += broker.key_names()

    assert keys_and_channels
    assert [k for k in keys_and_channels if not k.startswith(PREFIX.encode())] == []


def test_two_applications_in_one_database(broker: Broker, pump: PumpFactory) -> None:
    news = Exchange("news", type="fanout")
    inboxes = {}
    pumps = []
    for prefix in ("one.", "two.", ""):
        connection = broker.connection(transport_options={"global_keyprefix": prefix})
        inboxes[prefix] = Inbox()
        broker.consumer(connection, ["q", Queue("heard", news)], inboxes[prefix])
        pumps.append(pump(connection))
        options = {"transport_options": {"global_keyprefix": prefix}}
        tune_in(broker, news, (pumps[-1], inboxes[prefix]), **options)

    for prefix in inboxes:
        with broker.connection(transport_options={"global_keyprefix": prefix}) as sender:
            sender.Producer().publish([prefix, "queue"], routing_key="q")
            sender.Producer(exchange=news).publish([prefix, "news"])
    for running, inbox in zip(pumps, inboxes.values(), strict=True):
        running.until(inbox.has(2))
        running.run(0.1)

    for prefix, inbox in inboxes.items():
        assert sorted(inbox.bodies) == [[prefix, "news"], [prefix, "queue"]]


@pytest.mark.phonon_only("stock looks for a queue without the prefix")
def test_the_prefix_does_not_reach_the_application(broker: Broker) -> None:
    with broker.connection(**OPTIONS) as connection:
        connection.Producer().publish("x", routing_key="q", declare=[Queue("q")])
        channel = connection.default_channel
        assert channel.queue_declare("q", passive=True).message_count == 1
        message = channel.basic_get("q")
        assert message.delivery_info["routing_key"] == "q"
        message.ack()
