"""What is called flat, and how it is told and drawn."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from tests.benchmarks.memory.__main__ import PICTURE, main, read_samples, write_samples
from tests.benchmarks.memory.drawing import Panel, draw
from tests.benchmarks.memory.sampling import Sample
from tests.benchmarks.memory.trend import Band, bands, trend_of
from tests.benchmarks.memory.verdict import judge, store_bytes_a_request
from tests.support.processes import ROOT

MEGABYTE = 10**6
REQUESTS_A_SECOND = 100


def sample(second: int, **changes: int) -> Sample:
    flat = {
        "answered": REQUESTS_A_SECOND * second,
        "memory_bytes": 100 * MEGABYTE,
        "store_bytes": 10 * MEGABYTE + 600 * REQUESTS_A_SECOND * second,
        "descriptors": 80,
        "tasks": 60,
        "files": 6,
    }
    return Sample(float(second), **{**flat, **changes})


def run(seconds: int, leak_bytes_a_second: float) -> list[Sample]:
    """Large bodies come and go in it, and it fills for its first quarter."""
    samples = []
    for second in range(seconds):
        filled = 20 * MEGABYTE * min(1, 4 * second / seconds)
        memory = 100 * MEGABYTE + filled + (0, 60, 0, 30)[second * 7 % 13 % 4] * MEGABYTE + leak_bytes_a_second * second
        samples.append(sample(second, memory_bytes=int(memory)))
    return samples


@pytest.mark.parametrize(("leak", "is_flat"), [(0, True), (-10_000, True), (1_000, True), (10_000, False)])
def test_a_leak_is_seen_behind_bodies_that_come_and_go(leak: float, is_flat: bool) -> None:
    memory, *others = judge(run(1_800, leak))
    assert memory.is_flat is is_flat
    assert memory.trend.growth == pytest.approx(leak * 1_200 / MEGABYTE, abs=0.5)
    assert all(other.is_flat for other in others)


@pytest.mark.parametrize("name", ["descriptors", "tasks", "files"])
def test_whatever_piles_up_is_told_by_its_name(name: str) -> None:
    samples = [sample(second, **{name: 50 + second // 60}) for second in range(1_800)]
    (told,) = (verdict for verdict in judge(samples) if not verdict.is_flat)
    assert str(told).endswith("IT GROWS")


def test_single_peaks_do_not_move_a_trend() -> None:
    points = [(float(at), 1000.0 if at % 7 == 0 else 10.0) for at in range(100)]
    trend = trend_of(points)
    assert trend.middle == pytest.approx(10)
    assert trend.slope == pytest.approx(0)


def test_a_trend_leaves_the_first_third_out() -> None:
    points = [(float(at), 2.0 * at if at < 30 else 60.0) for at in range(90)]
    trend = trend_of(points)
    assert (trend.start_s, trend.end_s, trend.growth) == (30, 89, 0)
    assert trend_of([(float(at), 3.0 * at) for at in range(90)]).at(50) == pytest.approx(150)


def test_too_few_samples_say_nothing() -> None:
    with pytest.raises(ValueError, match="5 points"):
        trend_of([(float(at), 1.0) for at in range(5)])


def test_a_band_has_the_least_and_the_most_of_its_samples() -> None:
    points = [(0.0, 3.0), (1.0, 1.0), (2.0, 2.0), (3.0, 5.0), (4.0, 9.0)]
    assert bands(points, 2) == [Band(0, 1, 3), Band(2, 2, 5)]


def test_the_store_grows_by_its_ledger() -> None:
    assert store_bytes_a_request(run(90, 0)) == pytest.approx(600)


def test_a_picture_is_well_formed_and_inside_its_frame() -> None:
    panels = [verdict.panel for verdict in judge(run(120, 0))]
    picture = ET.fromstring(draw([*panels, Panel("<odd> & more", panels[0].bands, panels[0].trend)], "a title"))  # noqa: S314
    frame = [float(each) for each in picture.attrib["viewBox"].split()]
    names = [each.tag.rpartition("}")[2] for each in picture]
    assert names.count("polygon") == len(panels) + 1
    for shape in picture.findall("{*}polyline") + picture.findall("{*}polygon"):
        for point in shape.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= frame[2]
            assert 0 <= y <= frame[3]
    line = picture.findall("{*}polyline")[0].attrib["points"].split()
    assert all(float(one.split(",")[0]) < float(other.split(",")[0]) for one, other in pairwise(line))


def test_the_manual_tells_what_its_picture_shows() -> None:
    manual = (ROOT / "tests" / "benchmarks" / "README.md").read_text(encoding="utf-8")
    picture, told = PICTURE.read_text(encoding="utf-8"), " ".join(manual.split())
    for pattern in (r"[\d,]+ requests in \d+ minutes", r"[\d.]+ to [\d.]+ MB"):
        shown = re.search(pattern, picture)
        assert shown is not None
        assert shown[0] in told
    change = re.search(r"MB; the least changed by (-[\d.]+) MB in the last (\d+) minutes", picture)
    assert change is not None
    assert f"fell by {change[1][1:]} MB in the last {change[2]} minutes" in told


@pytest.mark.parametrize(("leak", "status"), [(0, 0), (50_000, 1)])
def test_the_command_ends_with_status_1_where_it_grows(tmp_path: Path, leak: float, status: int) -> None:
    samples, table, picture = run(300, leak), tmp_path / "samples.csv", tmp_path / "soak.svg"
    write_samples(table, samples)
    assert read_samples(table) == samples
    result = CliRunner().invoke(main, ["--read", "--samples", str(table), "--to", str(picture)])
    assert result.exit_code == status
    assert ("IT GROWS" in result.output) == bool(status)
    assert "600 bytes a request" in result.output
    assert picture.read_text().startswith("<svg")
