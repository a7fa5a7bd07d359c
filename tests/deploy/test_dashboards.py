from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import pytest

from tests.deploy import dashboards
from tests.support.processes import ROOT

GRAFANA = ROOT / "deploy" / "grafana"
COLUMNS = 24


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
