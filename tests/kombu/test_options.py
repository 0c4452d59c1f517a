"""Transport options that make no sense are refused when the connection is made, by their name."""

from __future__ import annotations

import math
from typing import Any

import pytest

from phonon_kombu.errors import ConfigurationError
from tests.kombu.exam import Broker, round_trip

pytestmark = pytest.mark.phonon_only("stock takes them as they come")

WRONG: list[dict[str, Any]] = [
    {"hash_tags": "no"},
    {"hash_tags": 2},
    {"fanout_patterns": "no"},
    {"fanout_prefix": 7},
    {"delayed_delivery": "no"},
    {"retry_on_timeout": "x"},
    {"socket_keepalive": "yes"},
    {"sentinel_fanout_compat": "x"},
    {"node_ttl": math.nan},
    {"node_ttl": math.inf},
    {"node_ttl": 1e300},
    {"heartbeat_interval": math.nan},
    {"presence_grace": math.inf},
    {"presence_grace": 100},
    {"claim_timeout": math.nan},
    {"claim_timeout": 1e300},
    {"polling_interval": math.nan},
    {"polling_interval": True},
    {"socket_timeout": 0},
    {"socket_timeout": -1},
    {"socket_timeout": math.nan},
    {"socket_connect_timeout": 0},
    {"health_check_interval": -1},
    {"max_connections": 0},
    {"max_connections": 2.5},
    {"visibility_timeout": "bogus"},
    {"visibility_timeout": -1},
    {"max_deliveries": 2**70},
    {"confirm_publish": 2**70},
    {"body_encoding": "rot13"},
    {"body_encoding": 5},
    {"client_name": "has space"},
    {"client_name": "naïve"},
    {"client_name": 5},
    {"global_keyprefix": 5},
    {"global_keyprefix": None},
    {"deadletter_queue": 5},
    {"master_name": 5},
    {"min_other_sentinels": -1},
    {"sentinel_kwargs": "ssl"},
    {"socket_keepalive_options": "x"},
    {"priority_order": 1},
    {"queue_order_strategy": "bogus"},
]


@pytest.mark.parametrize("options", WRONG, ids=str)
def test_a_value_that_makes_no_sense(broker: Broker, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ConfigurationError, match=f"transport option {name}"):
        broker.connection(transport_options=options).connect()
    assert broker.client.keys() == []


@pytest.mark.parametrize("options", [["hash_tags"], "hash_tags", 5], ids=str)
def test_options_that_are_no_dict(broker: Broker, options: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"transport options.*{type(options).__name__}"):
        broker.connection(transport_options=options).connect()


@pytest.mark.parametrize("name", [5, None, b"hash_tags"], ids=str)
def test_a_name_that_is_no_text(broker: Broker, name: Any) -> None:
    with pytest.raises(ConfigurationError, match="unknown transport option"):
        broker.connection(transport_options={name: True}).connect()


@pytest.mark.parametrize(
    "options",
    [
        {"hash_tags": False, "fanout_prefix": "x.", "fanout_patterns": 0, "retry_on_timeout": 1},
        {"socket_timeout": None, "client_name": None, "body_encoding": None, "claim_timeout": None},
        {"client_name": "host:1234/worker-1", "visibility_timeout": 43200.5, "polling_interval": 1},
        {"node_ttl": 2, "presence_grace": 2, "heartbeat_interval": 1, "health_check_interval": 0},
        {"node_ttl": 1, "heartbeat_interval": 0.5, "max_deliveries": None, "max_connections": None},
    ],
    ids=str,
)
def test_values_that_make_sense(broker: Broker, options: dict[str, Any]) -> None:
    round_trip(broker, broker.connection(transport_options=options))
