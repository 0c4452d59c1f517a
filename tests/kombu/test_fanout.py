"""Fanout exchanges (PUB/SUB): a copy for every queue that is being consumed, nothing stored."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from kombu import Connection, Exchange, Queue
from kombu.pidbox import Mailbox

from tests.kombu.exam import Broker, DrainPump, Inbox, Pump, PumpFactory, tune_in
from tests.servers import wait_for

NEWS = Exchange("news", type="fanout")


def publish(connection: Connection, body: Any, key: str = "") -> None:
    connection.Producer(exchange=NEWS).publish(body, routing_key=key)


def listen(broker: Broker, *names: str, key: str = "") -> list[tuple[Pump, Inbox]]:
    """Consume queues bound to NEWS, each over a connection of its own, until all are subscribed."""
    listeners: list[tuple[Pump, Inbox]] = []
    for name in names:
        connection, inbox = broker.connection(), Inbox()
        broker.consumer(connection, Queue(name, NEWS, routing_key=key), inbox)
        listeners.append((DrainPump(connection), inbox))
    return listeners


def test_every_queue_gets_a_copy(broker: Broker) -> None:
    listeners = listen(broker, "a", "b", "c")
    tune_in(broker, NEWS, *listeners)

    with broker.connection() as connection:
        for number in range(5):
            publish(connection, number)
    for pump, inbox in listeners:
        pump.until(inbox.has(5))
        pump.run(0.1)

    assert [inbox.bodies for _, inbox in listeners] == [list(range(5))] * 3


def test_another_process_publishes(broker: Broker) -> None:
    ((pump, inbox),) = listen(broker, "a")
    tune_in(broker, NEWS, (pump, inbox))

    broker.peer()("publish", body="from afar", exchange="news", type="fanout")
    pump.until(inbox.has(1))

    assert inbox.bodies == ["from afar"]


def test_nothing_is_kept_for_those_who_do_not_listen(broker: Broker) -> None:
    with broker.connection() as connection:
        Queue("absent", NEWS)(connection.default_channel).declare()
        publish(connection, "unheard")

    assert broker.size("absent") == 0
    assert broker.get_all("absent") == []


def test_routing_keys_select_among_the_subscribers(broker: Broker) -> None:
    ((workers, worker_inbox),) = listen(broker, "workers", key="worker.#")
    ((everything, all_inbox),) = listen(broker, "everything", key="#")

    with broker.connection() as connection:

        def heard(inbox: Inbox) -> bool:
            publish(connection, "probe", "worker.probe")
            return inbox.count > 0

        workers.until(lambda: heard(worker_inbox))
        everything.until(lambda: heard(all_inbox))
        for key in ("worker.online", "task.sent", "worker.heartbeat"):
            publish(connection, key, key)
    everything.until(lambda: "worker.heartbeat" in all_inbox.bodies)
    workers.until(lambda: "worker.heartbeat" in worker_inbox.bodies)
    workers.run(0.1)

    def news(inbox: Inbox) -> list[str]:
        return [body for body in inbox.bodies if body != "probe"]

    assert news(all_inbox) == ["worker.online", "task.sent", "worker.heartbeat"]
    assert news(worker_inbox) == ["worker.online", "worker.heartbeat"]


def test_fanout_and_direct_queues_on_one_channel(broker: Broker, pump: PumpFactory) -> None:
    connection = broker.connection()
    inbox = Inbox()
    broker.consumer(connection, [Queue("plain"), Queue("a", NEWS)], inbox)
    running = pump(connection)
    tune_in(broker, NEWS, (running, inbox))

    with broker.connection() as sender:
        publish(sender, "to all")
    broker.send("plain", "to one")
    running.until(inbox.has(2))
    running.run(0.1)

    assert sorted(inbox.bodies) == ["to all", "to one"]


def test_acknowledging_and_rejecting_a_broadcast(broker: Broker, pump: PumpFactory) -> None:
    connection = broker.connection()
    inbox = Inbox(ack=False)
    broker.consumer(connection, Queue("a", NEWS), inbox, prefetch_count=2)
    running = pump(connection)
    tune_in(broker, NEWS, (running, inbox))

    with broker.connection() as sender:
        for number in range(4):
            publish(sender, number)
            running.until(inbox.has(number + 1))
            message = inbox.messages[-1]
            message.ack() if number % 2 else message.reject()

    assert inbox.bodies == [0, 1, 2, 3]


def test_no_copy_after_cancel(broker: Broker, pump: PumpFactory) -> None:
    connection = broker.connection()
    inbox = Inbox()
    consumer = broker.consumer(connection, [Queue("plain"), Queue("a", NEWS)], inbox)
    running = pump(connection)
    tune_in(broker, NEWS, (running, inbox))
    consumer.cancel_by_queue("a")
    running.run(0.1)

    with broker.connection() as sender:
        publish(sender, "too late")
    broker.send("plain", "still here")
    running.until(inbox.has(1))
    running.run(0.1)

    assert inbox.bodies == ["still here"]


@pytest.mark.phonon_only("stock delivers to the queue bound last on a channel, and not to others")
def test_two_queues_of_one_exchange_on_one_channel(broker: Broker, pump: PumpFactory) -> None:
    connection = broker.connection()
    inboxes = [Inbox(), Inbox()]
    for number, inbox in enumerate(inboxes):
        broker.consumer(connection, Queue(f"q{number}", NEWS), inbox)
    running = pump(connection)
    tune_in(broker, NEWS, *((running, inbox) for inbox in inboxes))

    with broker.connection() as sender:
        publish(sender, "to both")
    running.until(lambda: all(inbox.count for inbox in inboxes))
    running.run(0.1)

    assert [inbox.bodies for inbox in inboxes] == [["to both"], ["to both"]]


@pytest.mark.phonon_only("stock polls no queue whose name any connection ever bound to a fanout")
def test_a_name_once_used_for_a_fanout_queue_serves_for_a_plain_one(
    broker: Broker, pump: PumpFactory
) -> None:
    with broker.connection() as connection:
        inbox = Inbox()
        broker.consumer(connection, Queue("a", NEWS), inbox)
        tune_in(broker, NEWS, (DrainPump(connection), inbox))
    connection = broker.connection()
    broker.consumer(connection, "a", inbox)
    broker.send("a", "plain")

    pump(connection).until(inbox.has(1))

    assert inbox.bodies == ["plain"]


def test_databases_do_not_hear_each_other(broker: Broker, pump: PumpFactory) -> None:
    connection = broker.connection()
    inbox = Inbox()
    broker.consumer(connection, Queue("a", NEWS), inbox)
    running = pump(connection)
    tune_in(broker, NEWS, (running, inbox))

    with broker.connection(url=broker.server.url(broker.scheme, 5)) as stranger:
        publish(stranger, "from database 5")
    with broker.connection() as sender:
        publish(sender, "from database 0")
    running.until(inbox.has(1))
    running.run(0.1)

    assert inbox.bodies == ["from database 0"]


def test_a_mailbox_asks_a_node_and_gets_its_answer(broker: Broker, pump: PumpFactory) -> None:
    """Celery's remote control: a broadcast, answered through a direct exchange."""
    mailbox = Mailbox("exam", type="fanout")
    connection = broker.connection()
    node = mailbox(connection).Node("node1", state=7, channel=connection.default_channel)
    node.handlers["times"] = lambda state, by: state * by
    node.listen()
    running = pump(connection)
    done = threading.Event()
    thread = threading.Thread(target=lambda: running.until(done.is_set, 30))
    thread.start()
    try:
        asker = mailbox(broker.connection())
        wait_for(lambda: asker.multi_call("times", {"by": 1}, timeout=0.5, limit=1))
        answers = [
            asker.multi_call("times", {"by": number}, timeout=10, limit=1) for number in (2, 3)
        ]
    finally:
        done.set()
        thread.join()

    assert answers == [[{"node1": 14}], [{"node1": 21}]]
