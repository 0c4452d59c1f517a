"""A real cluster for tests of phonon: its fixtures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from phonon_kombu.phonon.connections import Connections
from tests.cluster.cluster import Cluster

NAMES = [f"resource {n}" for n in range(24)]


@pytest.fixture(name="cluster", scope="module")
def cluster_fixture() -> Iterator[Cluster]:
    """Three nodes."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(name="client")
def client_fixture(cluster: Cluster) -> Iterator[redis.RedisCluster]:
    """A plain client of the emptied cluster."""
    with cluster.client() as client:
        client.flushall(target_nodes="primaries")
        yield client


@pytest.fixture(name="made")
def made_fixture(cluster: Cluster, client: redis.RedisCluster) -> Iterator[Connections]:
    """Connections to the emptied cluster."""
    with Connections(cluster.url, presence_grace=0.5) as made:
        yield made
