"""What is published arrives as it was: bodies, encodings, headers and properties."""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import Any

import pytest
from kombu import Exchange, Queue
from kombu.exceptions import ContentDisallowed, EncodeError

from tests.kombu.exam import Broker, Inbox, PumpFactory

BODIES: dict[str, Any] = {
    "text": "a plain sentence",
    "unicode": "grüße ✓ 🚀 \u2028 end",
    "control": 'quote " backslash \\ newline \n nul \x00 separator \x06\x16',
    "bytes": b"just ascii",
    "binary": bytes(range(256)),
    "invalid-utf8": b"\xff\xfe\xc3\x28",
    "dict": {"a": 1, "nested": {"list": [1, 2.5, None, True, "x"]}},
    "list": [[1, 2], {"three": 3}],
    "number": 12345678901234567890,
    "big-text": "x✓" * 200_000,
    "big-binary": bytes(range(256)) * 4_000,
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_arrives_as_it_was_sent(broker: Broker, name: str) -> None:
    broker.send("q", BODIES[name])

    (message,) = broker.take("q", 1)

    assert message.payload == BODIES[name]
    assert type(message.payload) is type(BODIES[name])


@pytest.mark.parametrize("body", ["", b""])
def test_an_empty_body_stays_empty(broker: Broker, body: Any) -> None:
    broker.send("q", body)

    (message,) = broker.take("q", 1)

    assert message.payload in ("", b"")


def test_a_round_trip_by_either_loop(broker: Broker, pump: PumpFactory) -> None:
    connection = broker.connection()
    inbox = Inbox()
    broker.consumer(connection, "q", inbox)
    running = pump(connection)

    for number in range(20):
        broker.send("q", {"number": number})
        running.until(inbox.has(number + 1))
    broker.send("q", *range(20, 60))
    running.until(inbox.has(60))

    assert inbox.bodies == [{"number": n} for n in range(20)] + list(range(20, 60))
    connection.release()
    assert broker.size("q") == 0
    assert broker.get_all("q") == []


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_typed_values_in_a_body(broker: Broker, serializer: str) -> None:
    body = {
        "when": datetime.datetime(2026, 2, 3, 4, 5, 6, 789000, tzinfo=datetime.timezone.utc),
        "id": uuid.UUID("12345678-1234-5678-1234-567812345678"),
        "price": decimal.Decimal("1.10"),
    }
    broker.send("q", body, serializer=serializer)

    (message,) = broker.take("q", 1)

    assert message.payload == body


@pytest.mark.parametrize("method", ["zlib", "bzip2", "lzma"])
@pytest.mark.parametrize("body", [{"text": "ä" * 5000}, "x" * 5000, bytes(range(256)) * 20])
def test_compression(broker: Broker, method: str, body: Any) -> None:
    broker.send("q", body, compression=method)

    (message,) = broker.take("q", 1)

    assert message.payload == body
    assert message.headers["compression"]


def test_headers_keep_their_types(broker: Broker) -> None:
    headers = {
        "text": "ünï", "number": 7, "float": 0.5, "none": None, "yes": True,
        "list": [1, [2]], "dict": {"a": {"b": 1}},
        "when": datetime.datetime(2026, 2, 3, 4, 5, 6, tzinfo=datetime.timezone.utc),
        "id": uuid.UUID("12345678-1234-5678-1234-567812345678"),
        "price": decimal.Decimal("1.10"),
    }  # fmt: skip
    broker.send("q", "body", headers=headers)

    (message,) = broker.take("q", 1)

    assert {name: message.headers[name] for name in headers} == headers


def test_a_first_delivery_is_not_marked_redelivered(broker: Broker) -> None:
    broker.send("q", "body")

    (message,) = broker.take("q", 1)

    assert not message.headers.get("redelivered")
    assert not message.delivery_info.get("redelivered")
    assert not message.headers.get("x-delivery-count")


def test_properties_are_kept(broker: Broker) -> None:
    properties = {
        "correlation_id": "c-1", "reply_to": "answers", "message_id": "m-1", "type": "kind",
        "app_id": "exam", "user_id": "guest", "timestamp": 1234567890, "cluster_id": "x",
    }  # fmt: skip
    broker.send("q", "body", priority=5, expiration=90.5, delivery_mode=1, **properties)

    (message,) = broker.take("q", 1)

    assert {name: message.properties[name] for name in properties} == properties
    assert message.properties["priority"] == 5
    assert message.properties["expiration"] == "90500"
    assert message.properties["delivery_mode"] == 1


def test_content_type_and_encoding_are_kept(broker: Broker) -> None:
    broker.send("q", "{}", content_type="application/x-own", content_encoding="utf-8")
    broker.send("q", b"\x00\xff", content_type="application/x-bin", content_encoding="binary")

    text, binary = broker.take("q", 2)

    assert (text.content_type, text.content_encoding) == ("application/x-own", "utf-8")
    assert (binary.content_type, binary.content_encoding) == ("application/x-bin", "binary")
    assert text.body in ("{}", b"{}")
    assert binary.body == b"\x00\xff"


def test_delivery_info_names_exchange_and_routing_key(broker: Broker) -> None:
    exchange = Exchange("news", type="topic")
    queue = Queue("q", exchange, routing_key="sport.#")
    with broker.connection() as connection:
        connection.Producer(exchange=exchange).publish(
            "goal", routing_key="sport.football", declare=[queue]
        )

    (message,) = broker.take(queue, 1)

    assert message.delivery_info["exchange"] == "news"
    assert message.delivery_info["routing_key"] == "sport.football"


def test_delivery_tags_are_distinct(broker: Broker) -> None:
    broker.send("q", *range(50))

    tags = [message.delivery_tag for message in broker.take("q", 50)]

    assert len(set(tags)) == 50


@pytest.mark.parametrize("first", ["publish", "ack"])
@pytest.mark.parametrize("target", ["q", "other"])
def test_a_received_message_can_be_published_again_with_its_properties(
    broker: Broker, first: str, target: str
) -> None:
    """What programs do that move or copy messages: nothing tells the new one from the old."""
    broker.send("q", {"a": 1}, correlation_id="c-1", headers={"own": 1})
    with broker.connection() as connection:
        message = connection.default_channel.basic_get("q")
        if first == "ack":
            message.ack()
        connection.Producer().publish(
            message.body, routing_key=target, declare=[Queue(target)], headers=message.headers,
            content_type=message.content_type, content_encoding=message.content_encoding,
            **message.properties,
        )  # fmt: skip
        if first == "publish":
            message.ack()

    (again,) = broker.take(target, 1)
    assert again.payload == {"a": 1}
    assert again.properties["correlation_id"] == "c-1"
    assert broker.size("q") == 0


def test_the_same_message_can_be_published_many_times(broker: Broker) -> None:
    broker.send("q", *["same"] * 5, headers={"id": "same", "task": "t"}, correlation_id="same")
    with broker.connection() as connection:
        producer = connection.Producer()
        for _ in range(3):
            producer.publish("same", routing_key="q", delivery_tag="same", message_id="same")

    assert broker.size("q") == 8
    assert broker.get_all("q") == ["same"] * 8


def test_a_body_that_cannot_be_encoded_is_refused(broker: Broker) -> None:
    with pytest.raises(EncodeError):
        broker.send("q", object(), serializer="json")

    assert broker.size("q") == 0


def test_a_content_type_that_is_not_accepted(broker: Broker) -> None:
    broker.send("q", {"a": 1}, serializer="pickle")
    with broker.connection() as connection:
        message = connection.default_channel.basic_get("q")
        message.accept = {"application/json"}
        with pytest.raises(ContentDisallowed):
            message.decode()
        message.reject()

    assert broker.size("q") == 0


@pytest.mark.parametrize("writer", ["base64", "utf-8", None])
@pytest.mark.parametrize("reader", ["base64", "utf-8"])
@pytest.mark.parametrize("body", ["text ✓", {"json": "✓"}])
def test_body_encoding_of_sender_and_receiver_may_differ(
    broker: Broker, writer: str | None, reader: str, body: Any
) -> None:
    with broker.connection(transport_options={"body_encoding": writer}) as connection:
        connection.Producer().publish(body, routing_key="q", declare=[Queue("q")])

    (message,) = broker.take("q", 1, transport_options={"body_encoding": reader})

    assert message.payload == body


@pytest.mark.phonon_only("stock codes every body as base64, a third longer")
def test_text_is_stored_as_text(broker: Broker) -> None:
    broker.send("q", {"note": "find me in redis"})

    with broker.server.client(broker.db).pipeline() as pipe:
        for key in broker.key_names():
            pipe.dump(key)
        stored = b"".join(pipe.execute())

    assert b"find me in redis" in stored
    assert [m.payload for m in broker.take("q", 1)] == [{"note": "find me in redis"}]
