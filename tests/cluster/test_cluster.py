"""Every script on a real cluster of three nodes, each queue on the node that serves its slot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from phonon_kombu.store import scripts
from phonon_kombu.store.keys import ExchangeKeys, FeedKeys, NodeKeys, QueueKeys
from phonon_kombu.thoonk.states import GRID
from tests.cluster.cluster import Cluster
from tests.cluster.names import ODD_NAMES
from tests.lua import cases_held, cases_waiting  # noqa: F401  they fill CASES
from tests.lua.cases import CASES, play
from tests.lua.feeds import run_feed_scripts
from tests.lua.machine import HOUR_MS, Machine
from tests.lua.pictures import check


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes."""
    with Cluster() as cluster:
        yield cluster


def on_cluster(cluster: Cluster, queue: str) -> Machine:
    """A queue on the node that serves it."""
    return Machine(cluster.node_of(QueueKeys(queue).items), queue)


def test_the_cluster_is_one(cluster: Cluster) -> None:
    """A key of another node's slot is refused: else the tests below would prove nothing."""
    machine = on_cluster(cluster, "q")
    elsewhere = next(node for node in cluster.nodes if node is not machine.server)
    machine.put("x")
    stranger = Machine(elsewhere, "q")
    with pytest.raises(Exception, match=r"MOVED|\d+ 127\.0\.0\.1:\d+"):
        stranger.put("x")
    machine.close()
    stranger.close()


@pytest.mark.parametrize("operation", GRID)
def test_grid_on_a_cluster(cluster: Cluster, operation: str) -> None:
    """All cases of an operation, each in a queue of its own somewhere in the cluster."""
    nodes = set()
    for number, case in enumerate(case for case in CASES if case.operation == operation):
        machine = on_cluster(cluster, f"{operation} {number}")
        nodes.add(machine.server.port)
        play(machine, case)
        machine.close()
    assert len(nodes) == 3


@pytest.mark.parametrize("queue", ODD_NAMES, ids=lambda name: repr(name)[:20])
def test_every_script_on_a_queue_with_an_odd_name(cluster: Cluster, queue: str) -> None:
    machine = on_cluster(cluster, queue)
    machine.client.flushdb()
    ran = set()
    run = machine.run

    def noting(name: str, *args: object, **given: bytes) -> object:
        ran.add(name)
        return run(name, *args, **given)

    machine.run = noting  # type: ignore[method-assign]
    machine.configure(expires=HOUR_MS)
    for level in range(10):
        machine.put(f"j{level}", level=level, ttl_ms=HOUR_MS)
    machine.put("{later}", delay_ms=1)
    machine.append("plain")
    machine.touch()
    assert machine.claim("A", 9, "highest").ids[0] == "j9"
    assert machine.cancel("A", "j9") == 1
    assert machine.finish("A", "j8") == 1
    assert machine.resolve("j7") == "j7"
    assert machine.claim("B", 1, "highest").ids == ["j9"]
    assert machine.reject("B", "j9") == [1, 0]
    machine.put("j9", level=9)
    assert (machine.pause(), machine.resume()) == (1, 1)
    assert machine.stall("j6") == "j6"
    assert machine.retry("j6") == "j6"
    assert machine.retract("j6") == "j6"
    assert machine.recover("A") >= 5
    machine.maintain()
    machine.run("job/shelve", "shelved", "item", "", 0, "why", "")
    machine.run("job/lookup", "shelved", "plain")
    machine.run("job/page", "ready", "", 10, "")
    machine.client.rpop(machine.keys.levels[9])
    assert machine.run("job/census")[0] == 1 + machine.run("job/census")[1]
    machine.run("job/scan", 0)
    assert machine.relist("j9") == 1
    check(machine.picture(), machine.stats())
    machine.purge()
    machine.run("queue/put", "id", "item", "")
    assert machine.run("queue/get") == "item"
    machine.close()

    exchange = ExchangeKeys(queue)
    machine = Machine(cluster.node_of(exchange.bindings))
    machine.keys = exchange  # type: ignore[assignment]
    assert machine.run("exchange/bind", "m") == 1
    assert machine.run("exchange/unbind", "m") == 1
    machine.close()
    ran |= {"exchange/bind", "exchange/unbind"}
    rooms = ("job/", "queue/", "exchange/")
    assert ran == {name for name in scripts.names() if name.startswith(rooms)}


@pytest.mark.parametrize("name", ODD_NAMES, ids=lambda name: repr(name)[:20])
def test_the_scripts_of_feeds(cluster: Cluster, name: str) -> None:
    machine = Machine(cluster.node_of(FeedKeys(name).items), name)
    machine.client.flushdb()
    assert run_feed_scripts(machine) == {
        script for script in scripts.names() if script.startswith(("feed/", "sorted_feed/"))
    }
    machine.close()


def test_the_scripts_about_nodes(cluster: Cluster) -> None:
    keys = NodeKeys()
    machine = Machine(cluster.node_of(keys.beats))
    machine.keys = keys  # type: ignore[assignment]
    assert machine.run("node/beat", "n", "7", "{}", "1") == [1, 0]
    assert machine.run("node/census", HOUR_MS) == [[], ["n", "7"], []]
    dead_ms = machine.run("node/bury", "n", "7", 0)
    assert machine.run("node/part", "n", dead_ms, "", held=keys.held("n")) == 1
    assert machine.run("node/elect", "n", HOUR_MS) == 0
    assert machine.run("lock/release", "n") == 1
    assert machine.run("lock/acquire", "n", HOUR_MS) == 1
    assert machine.run("lock/release", "n") == 1
    assert machine.run("node/probe", *scripts.commands()) == []
    machine.close()
