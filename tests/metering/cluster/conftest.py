"""The store that the tests of this folder get is a Cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.clusters import Cluster, cluster_of
from tests.support.stores import BACKENDS


@pytest.fixture(scope="session", params=BACKENDS)
def shared_cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three primaries with their replicas, one for each kind and each test process."""
    with cluster_of(request.param, tmp_path_factory.mktemp(request.param)) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """A real Cluster with nothing in it."""
    for node in shared_cluster.primaries:
        node.ask("FLUSHALL")
    return shared_cluster


@pytest.fixture
def store_url(cluster: Cluster) -> str:
    """Its address."""
    return cluster.url
