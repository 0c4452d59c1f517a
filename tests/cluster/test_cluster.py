"""Every script on a real cluster of three nodes, each queue on the node that serves its slot."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from phonon_kombu.store import scripts
from phonon_kombu.store.keys import ExchangeKeys, FeedKeys, QueueKeys
from phonon_kombu.thoonk.states import GRID
from tests.cluster.cluster import Cluster, Routed
from tests.cluster.names import ODD_NAMES
from tests.lua import cases_held, cases_waiting  # noqa: F401  they fill CASES
from tests.lua.cases import CASES, play
from tests.lua.feeds import run_feed_scripts
from tests.lua.machine import HOUR_MS, Machine
from tests.lua.paths import PATHS
from tests.lua.pictures import check

#: What has run within the fence, by operation or path.
ran: dict[str, set[str]] = {}


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
def test_grid_within_the_fence(cluster: Cluster, operation: str) -> None:
    """All cases of an operation, each in a queue of its own somewhere in the cluster."""
    nodes = set()
    for number, case in enumerate(case for case in CASES if case.operation == operation):
        machine = Routed(cluster, f"{operation}.{number}")
        nodes.add(machine.server.port)
        play(machine, case, fenced=True)
        ran.setdefault(operation, set()).update(machine.ran)
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
    machine.configure(type="queue")
    machine.run("queue/put", "id", "item", "", "queue")
    assert machine.run("queue/get", "queue") == "item"
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


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.__name__)
def test_path_within_the_fence(cluster: Cluster, path: Callable[[Machine], None]) -> None:
    """Chords, results, references, models and all the rest: each script as a user who may touch
    the keys that it declares, which are in one slot, and no other."""
    for node in cluster.nodes:
        node.client().flushdb()
    machine = Routed(cluster, path.__name__)
    path(machine)
    ran[path.__name__] = machine.ran
    machine.close()


def test_every_script_has_run_within_the_fence(cluster: Cluster) -> None:
    for operation in GRID.keys() - ran:  # where this test runs alone
        test_grid_within_the_fence(cluster, operation)
    for path in PATHS:
        if path.__name__ not in ran:
            test_path_within_the_fence(cluster, path)
    assert set().union(*ran.values()) == set(scripts.names())
