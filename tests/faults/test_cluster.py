"""A gateway on a Cluster: it is killed, then a primary is; ``ledger verify`` finds every counter right."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from tests.faults.scene import audit, ready
from tests.faults.test_store_fails_over import ask_until
from tests.support.clusters import Cluster, cluster_of
from tests.support.gateways import RunningGateway, SampleProvider, configuration, running_gateway, sample_provider
from tests.support.processes import wait_for

TEAMS_A_NODE = 2
REQUESTS_CUT = 6


@pytest.fixture
def cluster(tmp_path: Path, backend: str) -> Iterator[Cluster]:
    with cluster_of(backend, tmp_path / "cluster") as made:
        yield made


def leave_requests_behind(folder: Path, toml: str, provider: SampleProvider, teams: list[str]) -> None:
    """A gateway that is killed while requests are under way."""
    with running_gateway(folder, toml) as gateway, ThreadPoolExecutor(REQUESTS_CUT) as threads:
        keys = [gateway.make_key(team=team) for team in teams[:REQUESTS_CUT]]
        for key in keys:
            threads.submit(gateway.generate, key, prompt="[sample delay_ms=20000] x")
        wait_for(lambda: len(provider.requests()) >= REQUESTS_CUT, "requests to be under way")
        gateway.server.stop(9)


def test_books_are_right_after_a_gateway_and_a_primary_were_killed(cluster: Cluster, tmp_path: Path) -> None:
    teams = {node.port: cluster.teams(node, TEAMS_A_NODE) for node in cluster.primaries}
    all_teams = [team for some in teams.values() for team in some]
    lost = cluster.primaries[-1]
    with sample_provider(tmp_path) as provider:
        toml = configuration(cluster.url, provider.url, store={"timeout": 1}, accounting={"lease_seconds": 2})
        leave_requests_behind(tmp_path / "gateway", toml, provider, all_teams)
        with running_gateway(tmp_path / "gateway", toml) as gateway, ThreadPoolExecutor(len(all_teams)) as threads:
            keys, done = {team: gateway.make_key(team=team) for team in all_teams}, Event()
            asking = {team: threads.submit(ask_until, done, gateway, key) for team, key in keys.items()}
            try:
                wait_for(lambda: provider.images_made() > 50, "requests to be under way")
                assert lost.server is not None
                lost.server.stop(9)
                assert ready(gateway) == (200, "ready")
                wait_for(lambda: cluster.owner(teams[lost.port][0]) is not lost, "the fail-over")
                made = provider.images_made()
                wait_for(lambda: provider.images_made() > made + 100, "requests to go on")
            finally:
                done.set()
            statuses = {team: set(each.result()) for team, each in asking.items()}
            assert all(statuses[team] <= {200, 503} for team in teams[lost.port])
            assert all(statuses[team] == {200} for team in all_teams if team not in teams[lost.port])
            check(gateway, keys)


def check(gateway: RunningGateway, keys: dict[str, str]) -> None:
    for key in keys.values():
        wait_for(lambda key=key: gateway.quota(key)["reserved"] == 0, "the leases to run out")  # type: ignore[misc]
    wait_for(lambda: "journal_pending_settlements 0.0" in gateway.metrics(), "the journal to be empty")
    found = audit(gateway)
    assert found.differences == []
    assert found.over_limit == []
    assert (found.teams, found.expired) == (len(keys), REQUESTS_CUT)
