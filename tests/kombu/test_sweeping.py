"""Bindings of queues that vanished do not stay for ever."""

from __future__ import annotations

import pytest

from phonon_kombu.transport import routing
from tests.kombu.exam import Broker
from tests.servers import wait_for

TOO_MANY = routing.SWEEP_ABOVE + 20


@pytest.mark.phonon_only("stock's tables of bindings have no owner that can be asked")
def test_bindings_of_expired_reply_queues_are_dropped(broker: Broker) -> None:
    client = broker.server.client(broker.db)
    with broker.connection() as connection:
        channel = connection.default_channel
        channel.exchange_declare("replies", type="direct")
        for number in range(TOO_MANY):
            name = f"reply-{number}"
            channel.queue_declare(name, arguments={"x-expires": 200} if number else {})
            channel.queue_bind(name, "replies", name)
    assert client.scard("exchange.bindings:{replies}") == TOO_MANY
    wait_for(lambda: len(broker.key_names(b"feed.config:{reply-")) == 1, 10)

    with broker.connection() as connection:
        connection.Producer().publish("x", exchange="replies", routing_key="reply-0")

    assert client.scard("exchange.bindings:{replies}") == 1
    assert broker.size("reply-0") == 1
