"""How often a delivery may fail, how long a claim may last, and what the options say of it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from kombu import Queue

from phonon_kombu.errors import ConfigurationError
from phonon_kombu.thoonk import Thoonk
from phonon_kombu.transport import options
from tests.kombu.exam import Broker, Inbox, PumpFactory

pytestmark = pytest.mark.phonon_only("stock delivers for ever, and its clock decides")


def fail_for_ever(broker: Broker, pump: PumpFactory, queue: Queue, **settings: Any) -> int:
    """Requeue the only message of the queue whenever it comes; how often it came."""
    broker.send(queue, "poison")
    connection = broker.connection(transport_options=settings)
    inbox = Inbox(ack=False, on_message=lambda message: message.requeue())
    broker.consumer(connection, queue, inbox)
    with Thoonk(broker.url) as thoonk:
        job = thoonk.job(queue.name)
        pump(connection).until(lambda: job.stats().stalled, 30)
        (stalled,) = job.get_ids("stalled")
        assert job.get_reason(stalled) == f"max_deliveries: failed {inbox.count} times"
        job.retry(stalled)
        assert job.get_failure_count(stalled) == 0
    assert [message.headers.get("x-delivery-count") for message in inbox.messages[:3]] == [
        None, 1, 2,
    ]  # fmt: skip
    return inbox.count


def test_the_default(broker: Broker, pump: PumpFactory) -> None:
    assert fail_for_ever(broker, pump, Queue("q")) == 20


def test_an_option(broker: Broker, pump: PumpFactory) -> None:
    assert fail_for_ever(broker, pump, Queue("q"), max_deliveries=4) == 4


def test_a_queue_argument_goes_before(broker: Broker, pump: PumpFactory) -> None:
    queue = Queue("q", queue_arguments={"x-delivery-limit": 3})
    assert fail_for_ever(broker, pump, queue, max_deliveries=5) == 3


def test_no_limit(broker: Broker, pump: PumpFactory) -> None:
    queue = Queue("q", queue_arguments={"x-delivery-limit": -1})
    broker.send(queue, "x")
    connection = broker.connection(transport_options={"max_deliveries": 2})
    inbox = Inbox(ack=False, on_message=lambda m: m.requeue() if inbox.count < 30 else m.ack())
    broker.consumer(connection, queue, inbox)
    pump(connection).until(inbox.has(30), 30)


def test_claim_timeouts_are_written_down(broker: Broker) -> None:
    """By option and by argument, which goes before; a declaration without either leaves them."""
    connection = broker.connection(transport_options={"claim_timeout": 7})
    channel = connection.default_channel
    Queue("by option")(channel).declare()
    Queue("by argument", queue_arguments={"x-consumer-timeout": 1500})(channel).declare()
    other = broker.connection().default_channel
    for name, expected in (("by option", b"7000"), ("by argument", b"1500")):
        Queue(name)(other).declare()
        assert broker.client.hget(f"feed.config:{{{name}}}", "claim_timeout") == expected


@pytest.mark.parametrize(
    "given",
    [
        {"max_deliveries": 0}, {"max_deliveries": "3"}, {"max_deliveries": 1.5},
        {"claim_timeout": 0}, {"claim_timeout": "1h"}, {"presence_grace": 0},
        {"node_ttl": -1}, {"heartbeat_interval": 31}, {"node_ttl": True},
    ],
    ids=str,
)  # fmt: skip
def test_options_that_make_no_sense(broker: Broker, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(given))):
        broker.connection(transport_options=given).default_channel  # noqa: B018


@pytest.mark.parametrize(
    "arguments", [{"x-delivery-limit": 0}, {"x-consumer-timeout": -5}], ids=str
)
def test_arguments_that_make_no_sense(broker: Broker, arguments: dict[str, Any]) -> None:
    channel = broker.connection().default_channel
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        Queue("q", queue_arguments=arguments)(channel).declare()


def test_a_visibility_timeout_is_explained_once(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    options.explain_visibility_timeout.cache_clear()
    with caplog.at_level(logging.INFO, "phonon_kombu.transport"):
        for _ in range(2):
            settings = {"visibility_timeout": 3600}
            broker.connection(transport_options=settings).default_channel  # noqa: B018
    said = [r.getMessage() for r in caplog.records if "visibility_timeout" in r.getMessage()]
    assert len(said) == 1 and "claim_timeout" in said[0]
