from __future__ import annotations

import math
from pathlib import Path

import pytest
from PIL import Image

from tests.deploy import dashboards
from tests.deploy.drawing import Drawn, Line, Picture, line_name
from tests.deploy.units import write_value
from tests.support.processes import ROOT

LARGEST_BYTES = 200_000


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "short", "0"),
        (1_234, "short", "1.23 K"),
        (12_500_000, "short", "12.5 Mil"),
        (0.0125, "percentunit", "1.25%"),
        (0, "s", "0 s"),
        (0.00025, "s", "250 µs"),
        (0.0042, "s", "4.2 ms"),
        (90, "s", "1.5 min"),
        (200_000, "s", "2.31 d"),
        (2_048, "bytes", "2 KiB"),
        (1_536, "Bps", "1.5 KiB/s"),
        (150_000_000, "si: units", "150 M units"),
        (12.5, "si: units/h", "12.5 units/h"),
        (20.94, "reqps", "20.9 req/s"),
        (1_764_000_000_000, "dateTimeAsIso", "2025-11-24 16:00"),
        (math.inf, "s", "∞"),
        (math.nan, "short", ""),
    ],
)
def test_figures_are_written_short(value: float, unit: str, text: str) -> None:
    assert write_value(value, unit) == text


def test_a_line_is_called_by_its_labels() -> None:
    assert line_name("{{provider}} {{ status }}", {"provider": "north", "status": "200"}) == "north 200"
    assert line_name("{{outcome}}", {}) == "value"


def test_every_panel_is_drawn_from_any_figures_and_from_none(tmp_path: Path) -> None:
    picture = Picture("title", "subtitle", 20)
    for panel in (panel for name in dashboards.NAMES for panel in dashboards.load(name)["panels"]):
        picture.add(Drawn(panel))
        for value in (0.0, -1.0, 1e-7, 3.5e12, math.nan, math.inf):
            labels = {"team": "acme"}
            points = [(1_764_000_000.0 + second, value) for second in range(5)]
            picture.add(Drawn(panel, [Line("one", labels, points), Line("limit", labels, points[:1], "B")]))
    picture.save(str(tmp_path / "drawn.png"))
    with Image.open(tmp_path / "drawn.png") as drawn:
        assert drawn.size == (picture.width, picture.height)


@pytest.mark.parametrize("name", dashboards.NAMES)
def test_the_manual_shows_a_picture_of_each_dashboard(name: str) -> None:
    path = f"grafana/{name}.png"
    assert f"]({path})" in (ROOT / "deploy" / "README.md").read_text()
    assert (ROOT / "deploy" / path).stat().st_size < LARGEST_BYTES
    with Image.open(ROOT / "deploy" / path) as picture:
        assert picture.format == "PNG"
