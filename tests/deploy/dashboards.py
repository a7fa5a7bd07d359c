"""Grafana's dashboards as data: their panels, and their queries as Prometheus is asked them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.support.processes import ROOT

FOLDER = ROOT / "deploy" / "grafana" / "dashboards"
NAMES = ("operators", "team-budget")
_variable = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_label_values = re.compile(r"label_values\((?P<series>.+), (?P<label>\w+)\)")


def load(name: str) -> dict[str, Any]:
    """The dashboard of this name."""
    dashboard: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return dashboard


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel that shows something; a row is a heading alone."""
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from panel.get("panels", ())


def expressions(panel: Mapping[str, Any], values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each of the panel's queries, with ``values`` for Grafana's variables, and how its lines are called."""
    for target in panel["targets"]:
        yield substitute(target["expr"], values), target["legendFormat"]


def substitute(text: str, values: Mapping[str, str]) -> str:
    """``text`` with the value of each ``$variable``. Raises KeyError where there is none."""
    return _variable.sub(lambda found: values[found[1] or found[2]], text)


def variable_query(variable: Mapping[str, Any], values: Mapping[str, str]) -> tuple[str, str]:
    """The series and the label that a template variable takes its values from."""
    found = _label_values.fullmatch(substitute(variable["query"]["query"], values))
    assert found is not None, f"{variable['name']} is not made by label_values"
    return found["series"], found["label"]
