from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.domain.errors import StoreUnavailable
from proxy.domain.limits import Limits, TeamRecord
from proxy.metering.accounts import team_figures
from proxy.metering.accounts.registry import TeamRegistry
from proxy.metering.accounts.team_figures import TeamFigures
from proxy.metering.pages import Page
from proxy.telemetry.metrics import Metrics
from tests.metering.conftest import Bench
from tests.support.polling import eventually

REFRESH_S = 0.02


class Failing(TeamRegistry):
    """A registry whose store is away when it should be."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench.runner, bench.pool, bench.store)
        self.away = False
        self.asked = 0
        self.flowing = asyncio.Event()
        self.flowing.set()

    async def page(self, *, cursor: str | None, limit: int, prefix: str = "") -> Page[TeamRecord]:
        self.asked += 1
        await self.flowing.wait()
        if self.away:
            raise StoreUnavailable
        return await super().page(cursor=cursor, limit=limit)


def quota(metrics: Metrics, team: str, state: str, limit: str = "quota_units") -> float | None:
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            if sample.labels == {"team": team, "state": state, "limit": limit}:
                return sample.value
    return None


def figures(registry: TeamRegistry, metrics: Metrics) -> TeamFigures:
    assert metrics.teams is not None
    return TeamFigures(registry, metrics.teams, refresh_s=REFRESH_S)


async def test_the_start_shows_what_the_store_has_and_time_shows_the_rest(bench: Bench) -> None:
    metrics = Metrics(label_teams=5)
    await bench.teams.create("acme", name="", limits=Limits(quota_units=90_000, quota_units_per_day=50_000))
    key = await bench.make_key()
    await bench.admit(key, "req_1", 5_000)
    shown = figures(bench.teams, metrics)
    await shown.start()
    try:
        assert quota(metrics, "acme", "limit") == 90_000
        assert quota(metrics, "acme", "limit", "quota_units_per_day") == 50_000
        assert quota(metrics, "acme", "limit", "quota_units_per_month") is None
        assert quota(metrics, "acme", "reserved", "quota_units_per_month") == 5_000
        await bench.teams.update("acme", {"quota_units": 10_000})
        await bench.admit(key, "req_2", 5_000)
        await eventually(lambda: quota(metrics, "acme", "reserved") == 10_000)
        assert quota(metrics, "acme", "limit") == 10_000
        assert quota(metrics, "acme", "posted") == 0
    finally:
        await shown.stop()


async def test_only_so_many_teams_are_shown_and_none_that_is_revoked(bench: Bench) -> None:
    metrics = Metrics(label_teams=2)
    for team in ("aa", "bb", "cc", "dd"):
        await bench.teams.create(team, name="", limits=Limits(quota_units=1))
    await bench.teams.revoke("aa")
    shown = figures(bench.teams, metrics)
    await shown.start()
    await shown.stop()
    assert [quota(metrics, team, "limit") for team in ("aa", "bb", "cc", "dd")] == [None, 1, 1, None]


async def test_the_last_figures_stay_while_the_store_is_away(bench: Bench) -> None:
    metrics, registry = Metrics(label_teams=5), Failing(bench)
    await bench.teams.create("acme", name="", limits=Limits(quota_units=7))
    shown = figures(registry, metrics)
    await shown.start()
    try:
        registry.away = True
        asked = registry.asked
        await eventually(lambda: registry.asked > asked + 1)
        assert quota(metrics, "acme", "limit") == 7
        registry.away = False
        await bench.teams.update("acme", {"quota_units": 8})
        await eventually(lambda: quota(metrics, "acme", "limit") == 8)
    finally:
        await shown.stop()


async def test_a_store_that_does_not_answer_does_not_keep_the_gateway_from_starting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team_figures, "FIRST_READING_S", 0.05)
    metrics, registry = Metrics(label_teams=5), Failing(bench)
    await bench.teams.create("acme", name="", limits=Limits(quota_units=7))
    registry.flowing.clear()
    shown = figures(registry, metrics)
    await asyncio.wait_for(shown.start(), 1)
    try:
        assert quota(metrics, "acme", "limit") is None
        registry.flowing.set()
        await eventually(lambda: quota(metrics, "acme", "limit") == 7)
    finally:
        await shown.stop()


async def test_teams_of_a_node_that_is_away_stay_as_they_were(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics(label_teams=5)
    for team in ("here", "there"):
        await bench.teams.create(team, name="", limits=Limits(quota_units=1))
    registry = Failing(bench)
    shown = figures(registry, metrics)
    assert {name: found["quota_units"].limit for name, found in (await shown.read()).items()} == {"here": 1, "there": 1}
    registry.away = True
    get = bench.teams.get

    async def get_here(team: str) -> TeamRecord:
        if team == "there":
            raise StoreUnavailable
        return await get(team)

    monkeypatch.setattr(registry, "get", get_here)
    for team in ("here", "there"):
        await bench.teams.update(team, {"quota_units": 2})
    assert {name: found["quota_units"].limit for name, found in (await shown.read()).items()} == {"here": 2, "there": 1}
