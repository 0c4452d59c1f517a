"""Dead-letter exchanges: what a queue drops or a consumer rejects arrives elsewhere."""

from __future__ import annotations

import time
from typing import Any

import pytest
from kombu import Exchange, Queue

from phonon_kombu.control import Operator
from phonon_kombu.thoonk import Thoonk
from phonon_kombu.transport import deadletters
from tests.kombu.exam import Broker, DrainPump, Inbox, PumpFactory
from tests.servers import wait_for

pytestmark = pytest.mark.phonon_only("stock knows no queue arguments")


def lettered(name: str = "q", exchange: str = "", key: str | None = "dead", **more: Any) -> Queue:
    """A queue whose dead letters go to the queue `dead`, or where the exchange leads."""
    arguments = {"x-dead-letter-exchange": exchange, **more}
    if key is not None:
        arguments["x-dead-letter-routing-key"] = key
    return Queue(name, queue_arguments=arguments)


def arrive(broker: Broker, count: int = 1, queue: str | Queue = "dead") -> list[Any]:
    """The dead letters, when they are there."""
    return broker.take(queue, count)


def stats(broker: Broker, name: str = "q") -> Any:
    return Thoonk(broker.url).job(name).stats()


def test_a_rejected_message(broker: Broker) -> None:
    broker.send(lettered(), "bad", headers={"mine": 1})
    with broker.connection() as connection:
        message = connection.default_channel.basic_get("q")
        message.reject()
        wait_for(lambda: broker.size("dead") == 1, message="it did not arrive")
        assert stats(broker).claimed == stats(broker).dead == 0
    (letter,) = arrive(broker)
    assert letter.payload == "bad" and letter.headers["mine"] == 1
    (death,) = letter.headers["x-death"]
    assert abs(death.pop("time") - time.time()) < 60
    assert death == {
        "count": 1, "reason": "rejected", "queue": "q", "exchange": "", "routing-keys": ["q"],
    }  # fmt: skip
    first = {n: letter.headers[f"x-first-death-{n}"] for n in ("reason", "queue", "exchange")}
    assert first == {"reason": "rejected", "queue": "q", "exchange": ""}


def test_the_letters_of_one_task_are_found_by_its_id(broker: Broker) -> None:
    with broker.connection() as connection:
        for n in range(2):
            broker.send(lettered(), n, headers={"task": "shop.add", "id": "t"})
            connection.default_channel.basic_get("q").reject()
        wait_for(lambda: broker.size("dead") == 2, message="they did not arrive")
    with Operator(broker.url) as operator:
        assert [job.id for job in operator.find("t", "dead")] == ["t", "t~1"]


def test_deaths_are_counted_by_queue_and_reason(broker: Broker) -> None:
    """Two rounds: rejected in q, expired in the queue where it waits, back to q."""
    q = lettered(key="wait")
    wait = lettered("wait", key="q", **{"x-message-ttl": 50})
    with broker.connection() as connection:
        for queue in (q, wait):
            queue(connection.default_channel).declare()
        broker.send(q, "again")
        inbox = Inbox(ack=False, on_message=lambda m: m.reject() if inbox.count < 3 else m.ack())
        broker.consumer(connection, q, inbox)
        DrainPump(connection).until(inbox.has(3), 20)
    deaths = inbox.messages[2].headers["x-death"]
    assert [(d["queue"], d["reason"], d["count"]) for d in deaths] == [
        ("wait", "expired", 2), ("q", "rejected", 2),
    ]  # fmt: skip
    assert inbox.messages[2].headers["x-first-death-queue"] == "q"
    assert inbox.messages[2].headers["x-last-death-queue"] == "wait"


def test_a_delay_queue_that_nobody_consumes(broker: Broker, pump: PumpFactory) -> None:
    """Somebody who consumes from elsewhere looks after it; the consumer declares nothing of it."""
    with broker.connection() as declaring:
        lettered("delay", key="work", **{"x-message-ttl": 300})(declaring.default_channel).declare()
    connection = broker.connection()
    consumer = broker.consumer(connection, "work")
    running = pump(connection)
    running.run(0.1)
    started = time.monotonic()
    broker.send("delay", "ripe")
    running.until(consumer.on_message.has(1), 20)
    assert 0.25 < time.monotonic() - started < 10
    assert consumer.on_message.messages[0].headers["x-death"][0]["reason"] == "expired"


def test_expiration_is_noted_and_taken_off(broker: Broker) -> None:
    queue = lettered()
    with broker.connection() as connection:
        queue(connection.default_channel).declare()
        broker.send("q", "x", expiration=0.1)
        (letter,) = arrive(broker)
    assert letter.headers["x-death"][0]["original-expiration"] == "100"
    assert "expiration" not in letter.properties


def test_the_oldest_of_a_full_queue(broker: Broker) -> None:
    queue = lettered(**{"x-max-length": 2})
    with broker.connection() as connection:
        queue(connection.default_channel).declare()
        broker.send("q", 1, 2, 3, 4)
        letters = arrive(broker, 2)
    assert [m.payload for m in letters] == [1, 2]
    assert {m.headers["x-death"][0]["reason"] for m in letters} == {"maxlen"}
    assert broker.get_all("q") == [3, 4]


def test_a_named_exchange_and_the_original_routing_key(broker: Broker) -> None:
    dlx = Exchange("dlx", type="topic")
    with broker.connection() as connection:
        channel = connection.default_channel
        Queue("some", dlx, routing_key="in.*")(channel).declare()
        Queue("all", dlx, routing_key="#")(channel).declare()
        Queue("others", dlx, routing_key="out.*")(channel).declare()
        source = Queue(
            "q", Exchange("source"), routing_key="in.mail",
            queue_arguments={"x-dead-letter-exchange": "dlx"},
        )  # fmt: skip
        broker.send(source, "lost property")
        channel.basic_get("q").reject()
        for name in ("some", "all"):
            (letter,) = arrive(broker, queue=name)
            assert letter.delivery_info["exchange"] == "dlx"
            assert letter.delivery_info["routing_key"] == "in.mail"
            assert letter.headers["x-death"][0]["exchange"] == "source"
        assert broker.size("others") == 0


def test_letters_stay_until_something_is_bound(broker: Broker) -> None:
    with broker.connection() as connection:
        channel = connection.default_channel
        broker.send(lettered(exchange="dlx", key="k"), "early")
        channel.basic_get("q").reject()
        assert stats(broker).dead == 1
        Queue("late", Exchange("dlx"), routing_key="k")(channel).declare()
        (letter,) = arrive(broker, queue="late")
        assert letter.payload == "early"


def test_a_circle_without_a_rejection_ends(broker: Broker) -> None:
    """As in RabbitMQ: it would go round for ever."""
    with broker.connection() as connection:
        lettered("q", key="r", **{"x-message-ttl": 20})(connection.default_channel).declare()
        lettered("r", key="q", **{"x-message-ttl": 20})(connection.default_channel).declare()
        broker.send("q", "round and round")
        wait_for(
            lambda: stats(broker).publishes == 1 and stats(broker, "r").publishes == 1
            and not any((stats(broker, n).ready or stats(broker, n).dead) for n in "qr"),
            15, message="it still goes round",
        )  # fmt: skip


def test_a_rejected_message_without_an_exchange_is_dropped(broker: Broker) -> None:
    broker.send("q", "x")
    with broker.connection() as connection:
        connection.default_channel.basic_get("q").reject()
        assert stats(broker).finishes == 1 and stats(broker).dead == 0
    assert broker.size("q") == 0


@pytest.mark.parametrize("times", [1, 2])
def test_a_forwarder_that_dies_in_the_middle(broker: Broker, times: int) -> None:
    """What was put and not taken off the list is put again, under the same id: there is one."""
    with broker.connection() as connection:
        channel = connection.default_channel
        broker.send(lettered(), "x")
        channel.letters.forward_now = lambda queue: None
        channel.basic_get("q").reject()
        (entry,) = broker.client.lrange("feed.dead:{q}", 0, -1)
        for _ in range(times):
            assert channel.letters._deliver("q", entry, "", b"dead")
        channel.letters.forward("q")
        assert broker.size("dead") == 1 and stats(broker).dead == 0


def test_a_task_keeps_its_id(broker: Broker) -> None:
    headers = {"task": "t", "id": "the-task", "x-deduplication-id": "only"}
    with broker.connection() as connection:
        broker.send(lettered(), 1, headers=headers)
        connection.default_channel.basic_get("q").reject()
        wait_for(lambda: broker.size("dead") == 1)
        assert Thoonk(broker.url).job("dead").get_ids() == ["the-task"]


def test_one_that_cannot_be_put_does_not_hold_up_others(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full queue, an entry that is none, headers that make no sense."""
    monkeypatch.setattr(deadletters, "RETRY_SECONDS", 0.5)
    full = Queue("dead", queue_arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    with broker.connection() as connection:
        channel = connection.default_channel
        full(channel).declare()
        for queue in (lettered(), lettered("other", key="elsewhere")):
            queue(channel).declare()
        broker.client.rpush("feed.dead:{q}", b"nonsense", b"rejected soon 3 abc")
        broker.send("q", 1, 2, headers={"x-death": [{"queue": 1, "count": "many"}, 5]})
        for _ in range(2):
            channel.basic_get("q").reject()
        broker.send("other", 3)
        channel.basic_get("other").reject()
        assert [m.payload for m in arrive(broker, 1, "elsewhere")] == [3]
        assert broker.size("dead") == 1 and stats(broker).dead == 3
        assert [m.payload for m in arrive(broker, 2, full)] == [1, 2]
        # Taken off the list when it has been put: somebody may be quicker to consume it.
        wait_for(lambda: stats(broker).dead == 2, message="the list keeps what was put")


def test_more_than_are_looked_at_at_once(broker: Broker) -> None:
    """Six hundred that can go nowhere, and one behind them."""
    with broker.connection() as connection:
        channel = connection.default_channel
        broker.send(lettered(), "x")
        broker.client.rpush("feed.dead:{q}", *[b"nonsense"] * 600)
        channel.basic_get("q").reject()
        assert [m.payload for m in arrive(broker)] == ["x"]
        wait_for(lambda: stats(broker).dead == 600)


def test_a_queue_that_is_none_holds_up_nobody(broker: Broker) -> None:
    """Not the consumer that rejects, no other queue, and not the other queues of a letter."""
    with broker.connection() as connection:
        channel = connection.default_channel
        for key in ("feed.config:{wrong}", "feed.config:{a}"):
            broker.client.set(key, "not a hash")
        broker.send(lettered("a0", key="elsewhere"), 1)
        broker.client.sadd("feeds.lettered", "a")
        broker.send(lettered(key="wrong"), 2)
        for queue in ("a0", "q"):
            channel.basic_get(queue).reject()
        assert [m.payload for m in arrive(broker, 1, "elsewhere")] == [1]
        assert stats(broker).dead == 1
        broker.client.delete("feed.config:{wrong}", "feed.config:{a}")
        assert [m.payload for m in arrive(broker, 1, "wrong")] == [2]


def test_one_of_two_queues_is_full(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other does not get it again each time that the full one is tried."""
    monkeypatch.setattr(deadletters, "RETRY_SECONDS", 0.0)
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    dlx = Exchange("dlx", type="topic")
    with broker.connection() as connection:
        channel = connection.default_channel
        for queue in (Queue("full", dlx, routing_key="#", queue_arguments=full),
                      Queue("free", dlx, routing_key="#")):  # fmt: skip
            queue(channel).declare()
        connection.Producer().publish("first", routing_key="full")
        # Declared here only: who declares it looks after it, too.
        lettered(exchange="dlx", key="k")(channel).declare()
        connection.Producer().publish("x", routing_key="q")
        channel.basic_get("q").reject()
        for _ in range(3):
            channel.basic_get("free", no_ack=True)
            channel.flush()
            channel.letters.forward("q")
        assert stats(broker, "free").publishes == 1
        channel.basic_get("full").ack()
        wait_for(lambda: stats(broker, "full").publishes == 2 and stats(broker).dead == 0)
        assert stats(broker, "free").publishes == 1
