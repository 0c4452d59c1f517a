"""Fixtures of the exam: the scheme under test, a broker for it, and the two ways to consume."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from kombu import VERSION, Connection
from kombu.transport import redis as stock

from tests.kombu.exam import PUMPS, Broker, Pump, PumpFactory, release
from tests.servers import RedisServer, server_name, start_server

#: What the exam is for. On fakeredis the stock transport would only examine fakeredis.
SCHEMES = ["phonon"] if server_name() == "fakeredis" else ["redis", "phonon"]
if os.environ.get("PHONON_TEST_SCHEMES"):
    SCHEMES = os.environ["PHONON_TEST_SCHEMES"].split(",")


#: Tests of what kombu 5.6 does not have, whatever the transport.
ONLY_57 = {
    "test_batch.py": "Producer.batch() came with 5.7",
    "test_no_key_without_the_prefix": "publishes in a batch",
    "test_thirty_consumers_get_each_of_2000_messages_once": "publishes in a batch",
    "test_drop_head_in_a_batch": "publishes in a batch",
    "test_unique_in_a_batch": "publishes in a batch",
    "test_confirmed_batches": "publishes in a batch",
    "test_purge_of_many_messages": "publishes in a batch",
    "test_a_topic_exchange_routes_by_pattern": "a * did not match exactly one word before 5.7",
    "test_a_credential_provider": "5.6.0 loses the provider on the way to the connection",
    "test_a_credential_provider_that_is_none": "the same",
    "test_failover.py": "the redis-py of that time fails at SENTINEL MASTER, which the tests ask",
}


def pytest_configure(config: pytest.Config) -> None:
    """Register the exam's markers."""
    for line in (
        "phonon_only(reason): stock redis:// fails this; the reason says how",
        "real_server(reason): asks for something that fakeredis does not have",
    ):
        config.addinivalue_line("markers", line)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one case for each scheme that the test is for."""
    if "scheme" in metafunc.fixturenames:
        only = metafunc.definition.get_closest_marker("phonon_only")
        assert only is None or only.args, "phonon_only wants a reason"
        metafunc.parametrize("scheme", ["phonon"] if only else SCHEMES, indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Bound every test; leave out the schemes not asked for, and on fakeredis what it lacks."""
    here = os.path.dirname(__file__)
    ours = [item for item in items if str(item.path).startswith(here)]
    for item in ours:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(60))
        item.add_marker(
            pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
        )
    dropped = {item for item in ours if "phonon_only" in item.keywords and "phonon" not in SCHEMES}
    if VERSION < (5, 7):
        dropped |= {item for item in ours if item.name.partition("[")[0] in ONLY_57}
        dropped |= {item for item in ours if item.path.name in ONLY_57}
    if server_name() == "fakeredis":
        dropped |= {item for item in ours if item.get_closest_marker("real_server")}
    items[:] = [item for item in items if item not in dropped]
    config.hook.pytest_deselected(items=list(dropped))


@pytest.fixture
def scheme(request: pytest.FixtureRequest) -> str:
    """The URL scheme under test: ``redis`` (stock) or ``phonon`` (ours)."""
    return str(request.param)


@pytest.fixture(autouse=True)
def tame_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one test not disturb the next, and not wait for stock's last command to time out.

    Stock never polls a queue again whose name was once bound to a fanout exchange: it keeps those
    names in one dict for all connections of the process, and thus for all tests.
    """
    stock.Channel._fanout_queues.clear()
    monkeypatch.setattr(stock.Transport, "brpop_timeout", 0.2)


@pytest.fixture
def broker(redis_server: RedisServer, redis_db: str, scheme: str) -> Iterator[Broker]:
    """An empty database of the session's server, and everything that the test opens on it."""
    if not redis_server.is_fake:
        # A test that failed may have left connections open that wait for this test's messages.
        for kind in ("normal", "pubsub"):
            redis_server.client().client_kill_filter(_type=kind, skipme=True)
    with Broker(scheme, redis_server) as broker:
        yield broker


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server that the test may stop, restart, freeze or configure."""
    server = start_server()
    yield server
    server.stop()


@pytest.fixture
def own_broker(own_server: RedisServer, scheme: str) -> Iterator[Broker]:
    """As ``broker``, on a server of the test's own: ``own_broker.server``."""
    with Broker(scheme, own_server) as broker:
        yield broker


@pytest.fixture(params=list(PUMPS))
def pump(request: pytest.FixtureRequest, scheme: str) -> Iterator[PumpFactory]:
    """Both ways to consume in turn: call it with a connection to get a ``Pump``."""
    made: list[Pump] = []

    def make(connection: Connection) -> Pump:
        made.append(PUMPS[request.param](connection))
        return made[-1]

    yield make
    for each in made:
        # As in a worker: the connection goes before the loop that it is registered with.
        release(scheme, each.connection)
        each.close()
