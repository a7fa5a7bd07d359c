from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.deploy import dashboards
from tests.deploy.test_rules import promtool
from tests.support.processes import ROOT

GRAFANA = ROOT / "deploy" / "grafana"
COLUMNS = 24
LOADED = {name: dashboards.load(name) for name in dashboards.NAMES}


@pytest.fixture(params=dashboards.NAMES)
def dashboard(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dashboards.load(request.param)


def test_every_file_is_a_dashboard_of_its_own() -> None:
    assert {path.stem for path in dashboards.FOLDER.glob("*.json")} == set(dashboards.NAMES)
    loaded = [dashboards.load(name) for name in dashboards.NAMES]
    assert len({each["uid"] for each in loaded}) == len({each["title"] for each in loaded}) == len(loaded)
    # Grafana gives the id itself; one in the file would take another dashboard's place.
    assert all(each["id"] is None for each in loaded)


def test_panels_can_be_told_apart(dashboard: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in dashboard["panels"]]
    titles = [(panel["type"], panel["title"]) for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    assert len(set(titles)) == len(titles)


def test_every_panel_has_title_unit_datasource_and_queries(dashboard: dict[str, Any]) -> None:
    for panel in dashboards.panels(dashboard):
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        assert panel["targets"], panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references), panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"], panel["title"]
            assert target["instant"] != target["range"], panel["title"]


def overlap(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    return all(
        one[start] < other[start] + other[length] and other[start] < one[start] + one[length]
        for start, length in (("x", "w"), ("y", "h"))
    )


def test_no_panel_lies_over_another(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] >= 0
        assert place["w"] > 0
        assert place["h"] > 0
        assert place["x"] + place["w"] <= COLUMNS
    for one, other in combinations(dashboard["panels"], 2):
        assert not overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def test_every_variable_in_a_query_is_one_of_the_dashboard(dashboard: dict[str, Any]) -> None:
    names = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert len(set(names)) == len(names)
    values = {"__rate_interval": "1m", **{name: name for name in names if name != "datasource"}}
    for panel in dashboards.panels(dashboard):
        for expression, _ in dashboards.expressions(panel, values):
            assert "$" not in expression


def test_the_data_source_is_chosen_by_itself(dashboard: dict[str, Any]) -> None:
    source = dashboard["templating"]["list"][0]
    # Grafana takes the default of this type where no current one is given.
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert source["current"] == {}
    provisioned = (GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text()
    assert "isDefault: true" in provisioned
    assert "type: prometheus" in provisioned


# --- What a reader sees -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcomes", "share"),
    [
        ({"delivered": 60, "refused": 600, "abandoned": 60, "rejected": 60, "ok": 60}, 1.0),
        ({"delivered": 60, "refused": 600, "failed": 20}, 0.75),
        ({"delivered": 30, "truncated": 10, "empty": 10, "expired": 10}, 0.5),
    ],
)
def test_what_a_provider_refuses_and_a_client_leaves_does_not_redden_delivered(
    outcomes: Mapping[str, int], share: float, tmp_path: Path
) -> None:
    (panel,) = [each for each in dashboards.panels(dashboards.load("operators")) if each["title"] == "Delivered"]
    ((expression, _legend),) = dashboards.expressions(panel, {"instance": ".*", "model": ".*", "__rate_interval": "5m"})
    series = [
        {"series": f'lightmeter_requests_total{{outcome="{outcome}"}}', "values": f"0+{count}x10"}
        for outcome, count in outcomes.items()
    ]
    percent = [{"labels": "{}", "value": share * 100}]
    expected = [{"expr": f"round({expression} * 100)", "eval_time": "10m", "exp_samples": percent}]
    one = {"interval": "1m", "input_series": series, "promql_expr_test": expected}
    test = {"evaluation_interval": "1m", "tests": [one]}
    # JSON is YAML.
    (tmp_path / "test.yml").write_text(json.dumps(test))
    tested = promtool("test", "rules", tmp_path / "test.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def data_links(panel: Mapping[str, Any]) -> Iterator[str]:
    fields = panel["fieldConfig"]
    listed = [fields["defaults"].get("links", [])]
    listed += [
        each["value"] for override in fields["overrides"] for each in override["properties"] if each["id"] == "links"
    ]
    for links in listed:
        yield from (link["url"] for link in links)


def test_every_link_leads_to_a_dashboard_and_gives_it_variables_that_it_has(dashboard: dict[str, Any]) -> None:
    known = {each["uid"]: {one["name"] for one in each["templating"]["list"]} for each in LOADED.values()}
    found = {url for panel in dashboards.panels(dashboard) for url in data_links(panel)}
    assert found
    for url in found:
        path, _, query = url.partition("?")
        given = re.findall(r"&var-(\w+)=", query)
        assert query.startswith("${__url_time_range}")
        assert given
        assert set(given) <= known[path.removeprefix("/d/")], url


def test_a_spike_is_one_click_from_the_budget_of_its_team() -> None:
    by_title = {panel["title"]: panel for panel in dashboards.panels(LOADED["operators"])}
    (url,) = data_links(by_title["Charged, by team"])
    assert url.startswith("/d/lightmeter-team-budget?")
    assert "var-team=${__field.labels.team:percentencode}" in url


def test_every_figure_of_units_is_called_so(dashboard: dict[str, Any]) -> None:
    of_units = [panel for panel in dashboards.panels(dashboard) if "units" in panel["targets"][0]["expr"]]
    units = {panel["title"]: panel["fieldConfig"]["defaults"]["unit"] for panel in of_units}
    assert sum("units" in unit for unit in units.values()) >= 3
    assert "short" not in units.values(), units
