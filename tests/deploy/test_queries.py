from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

from tests.deploy import dashboards
from tests.deploy.prometheus import Prometheus, QueryError, running_prometheus
from tests.deploy.traffic import DEPLOYED, MODELS, TEAMS, make_callers, running_traffic, spare_provider
from tests.support.gateways import configuration, running_gateway, sample_provider
from tests.support.requirements import program

LIMITS = {"quota_units", "quota_units_per_day", "quota_units_per_month"}
VALUES = {
    "__rate_interval": "4s",
    "instance": ".*",
    "model": ".*",
    "team": "design",
    "limit": "quota_units",
    "pace": "1h",
}
PATIENCE_S = 15.0
MAY_BE_EMPTY = {
    "Runs out on": "the day or the month of a limit may end before the limit is reached; the panel says so then",
}
"""Panels by title that need not have data for limits with a window, and why."""

GAUGE = "Used of the limit, now and at the end of its window"

_comparison = re.compile(r" (==|<=|>=|<|>) (?!bool\b)")


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes a gateway while all kinds of requests come in."""
    binary = program("prometheus", "prometheus")
    with sample_provider(tmp_path) as provider:
        toml = configuration(
            f"embedded:{tmp_path}/data",
            provider.url,
            models=[*MODELS, DEPLOYED],
            others=[spare_provider(provider)],
            metrics={"team_refresh_seconds": 0.5},
            accounting={"units_per_usd": 100_000, "ledger_shippers": ["books"]},
        )
        with running_gateway(tmp_path, toml) as gateway:
            callers = make_callers(gateway)
            target = gateway.admin_url.removeprefix("http://")
            with (
                running_prometheus(binary, tmp_path / "prometheus", [target]) as running,
                running_traffic(gateway, callers, senders=3, pause_s=lambda _: 0.05),
            ):
                yield running


def panel_queries() -> Iterator[tuple[str, str]]:
    for name in dashboards.NAMES:
        for panel in dashboards.panels(dashboards.load(name)):
            for limit in sorted(LIMITS):
                for expression, legend in dashboards.expressions(panel, {**VALUES, "limit": limit}):
                    may_be_empty = limit != "quota_units" and panel["title"] in MAY_BE_EMPTY
                    # Prometheus refuses a query that does not parse, also where it may have no data.
                    asked = f"count({expression}) or vector(0)" if may_be_empty else expression
                    yield f"{name}: {panel['title']} ({legend}, {limit})", asked


def rule_queries(prometheus: Prometheus) -> Iterator[tuple[str, str]]:
    rules = prometheus.rules()
    assert {rule["type"] for rule in rules} == {"recording", "alerting"}
    for rule in rules:
        # With "bool", a comparison tells 0 or 1 of each series that it looks at, and not only of those where it holds.
        yield f"{rule['name']} {rule.get('labels')}", _comparison.sub(r" \1 bool ", rule["query"])


def empty_ones(prometheus: Prometheus, queries: dict[str, str]) -> dict[str, str]:
    """Those without data, and what Prometheus says of them. What is no number is no data."""
    told = {}
    for name, expression in queries.items():
        try:
            if all(sample["value"][1] == "NaN" for sample in prometheus.query(expression)):
                told[name] = f"no data: {expression}"
        except QueryError as error:
            told[name] = f"{error}: {expression}"
    return told


def check_gauge_and_forecast(prometheus: Prometheus) -> None:
    """The gauge is past its end exactly where the panel beside it has a time at which the limit runs out."""
    by_title = {panel["title"]: panel for panel in dashboards.panels(dashboards.load("team-budget"))}
    for limit in sorted(LIMITS - {"quota_units"}):
        values = {**VALUES, "limit": limit}
        (gauge,) = [text for text, legend in dashboards.expressions(by_title[GAUGE], values) if legend == "at the end"]
        ((runs_out, _legend),) = dashboards.expressions(by_title["Runs out on"], values)
        (agree,) = prometheus.query(f"(({gauge}) > bool 1) == bool (count({runs_out}) or vector(0))")
        assert agree["value"][1] == "1", limit


def test_every_query_of_dashboards_rules_and_alerts_returns_data(prometheus: Prometheus) -> None:
    queries = {**dict(panel_queries()), **dict(rule_queries(prometheus))}
    assert len(queries) > 80
    wrong = {"no such series": "lightmeter_nothing", "no number": "vector(0) / 0", "no query": "sum(("}
    assert set(empty_ones(prometheus, wrong)) == set(wrong)
    deadline = monotonic() + PATIENCE_S
    while told := empty_ones(prometheus, queries):
        assert monotonic() < deadline, "\n".join(f"{name}: {what}" for name, what in told.items())
        queries = {name: queries[name] for name in told}
        sleep(0.2)
    for name in dashboards.NAMES:
        for variable in dashboards.load(name)["templating"]["list"]:
            if variable["type"] == "query":
                assert prometheus.label_values(*dashboards.variable_query(variable, VALUES)), variable["name"]
    check_gauge_and_forecast(prometheus)
    assert set(TEAMS) <= set(prometheus.label_values("lightmeter_team_quota_units", "team"))
    assert set(prometheus.label_values('lightmeter_team_quota_units{team="design"}', "limit")) == LIMITS
