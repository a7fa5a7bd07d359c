"""What is made of the figures: ratios, who holds a budget, the manual's section and the picture. Nothing is run."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import click
import pytest

from tests.benchmarks import peers, throughput
from tests.benchmarks.peers.__main__ import _chosen
from tests.benchmarks.peers.figures import (
    BARE,
    LIGHTMETER,
    LITELLM,
    LITELLM_BUDGET,
    NGINX,
    NGINX_BUFFERED,
    NGINX_LUA,
    ORDER,
    PORTKEY,
    Budget,
    Enforcement,
    Found,
    Run,
    Slice,
    cpu_us,
    gigabytes,
    percentiles_ms,
    verdicts,
)
from tests.benchmarks.peers.load import NothingAnswered, read
from tests.benchmarks.peers.packages import HERE
from tests.benchmarks.peers.page import BEGIN, END, PICTURE, WIDTH, insert, write_section
from tests.benchmarks.peers.picture import draw, how_it_holds
from tests.support.processes import ROOT

EXACT, LATE, NONE = Budget(10, 40, 10, 0), Budget(10, 40, 40, 0), Budget(10, 40, 40, 40)
SVG = "{http://www.w3.org/2000/svg}"


def slice_of(rate: float, *, failed: int = 0, cpu_s: float = 0.5, requests: int = 1_000) -> Slice:
    return Slice(rate, requests, failed, cpu_s, store_cpu_s=0.1, p50_ms=0.5, p99_ms=2.0)


def found_of(*rates: float, budget: Budget = NONE, failed: int = 0) -> Found:
    slices = [slice_of(rate, failed=failed) for rate in rates]
    return Found("1.2.3", slices, slices, slices, memory_mb=80, store_memory_mb=9, budgets={"": budget})


def run_of(**found: Found) -> Run:
    names = {"lightmeter": LIGHTMETER, "portkey": PORTKEY, "litellm": LITELLM, "budget": LITELLM_BUDGET, "nginx": NGINX}
    measured = {names[name]: each for name, each in found.items()}
    return Run("2 cores", "26 November 2026, 12:00 UTC", 2, 3, 0.1, measured)


# --- Figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "then", "enforcement"),
    [
        (10, 0, Enforcement.EXACT),
        (11, 0, Enforcement.LATE),
        (40, 0, Enforcement.LATE),
        (40, 40, Enforcement.NONE),
        (9, 0, Enforcement.UNKNOWN),
        (10, 1, Enforcement.UNKNOWN),
        (0, 0, Enforcement.UNKNOWN),
    ],
)
def test_a_budget_holds_where_no_more_got_through_than_it_has_room_for(
    first: int, then: int, enforcement: Enforcement
) -> None:
    assert Budget(10, 40, first, then).enforcement is enforcement


def test_a_ratio_is_made_within_a_round() -> None:
    # The machine was slow in the second round for everybody.
    run = run_of(lightmeter=found_of(6_000, 600, 5_000), portkey=found_of(2_000, 200, 2_000))
    (verdict,) = verdicts(run.found)
    assert verdict.ratio == pytest.approx(3)
    assert verdict.met
    assert verdict.cpu_ratio == pytest.approx(1)


def test_what_is_little_has_one_figure_more() -> None:
    assert [gigabytes(value) for value in (1.234, 0.1, 0.0042)] == ["1.23", "0.10", "0.004"]


def test_nothing_is_wanted_beside_who_was_not_measured() -> None:
    assert verdicts(run_of(lightmeter=found_of(1)).found) == []
    assert verdicts(run_of(portkey=found_of(1), nginx=found_of(1)).found) == []


def test_processor_time_is_that_of_one_request() -> None:
    slices = [slice_of(1, cpu_s=0.1, requests=1_000), slice_of(1, cpu_s=0.3, requests=1_000)]
    assert cpu_us(slices) == pytest.approx((200, 100))
    assert percentiles_ms(slices) == (0.5, 2.0)


@pytest.mark.parametrize("kind", ["small", "large"])
def test_what_wrk_tells_is_read(kind: str) -> None:
    load = throughput.LOADS[kind]
    size = 10 * load.answer_bytes
    output = (
        "Running\n"
        f'FIGURES {{"requests": 12, "bytes": {size}, "micros": 2000000, "failed": 2, "p50": 500, "p99": 2500}}\n'
    )
    slice_ = read(output, load, 0.5, 0.1)
    assert slice_.rate == pytest.approx(size / 2 / 1e9 if load.in_gigabytes else 5)
    assert (slice_.requests, slice_.failed, slice_.p50_ms, slice_.p99_ms) == (10, 2, 0.5, 2.5)


def test_answers_that_are_cut_or_missing_are_no_figures() -> None:
    template = 'FIGURES {{"requests": {}, "bytes": 99, "micros": 1000000, "failed": {}, "p50": 0, "p99": 0}}'
    with pytest.raises(NothingAnswered):
        read(template.format(3, 3), throughput.SMALL, 0, 0)
    with pytest.raises(RuntimeError, match="cut"):
        read(template.format(1, 0), throughput.SMALL, 0, 0)
    with pytest.raises(RuntimeError, match="no figures"):
        read("unable to connect", throughput.SMALL, 0, 0)


# --- The section of the manual ----------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_that_was_measured() -> None:
    run = run_of(litellm=found_of(100), lightmeter=found_of(6_000, budget=EXACT), nginx=found_of(17_000, failed=3))
    rows = [line for line in write_section(run).splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[1:]] == [f"| {NGINX} (9 failed)", f"| {LIGHTMETER}", f"| {LITELLM}"]
    assert len({row.count("|") for row in rows}) == 1
    assert "| 6,000 | 500 | 100 | 0.50, 2.00 |" in rows[2]
    assert "holds: 10 of 40, then 0 |" in rows[2]


def test_who_holds_a_budget_is_said_in_words() -> None:
    run = run_of(lightmeter=found_of(6_000, budget=EXACT), portkey=found_of(2_000), budget=found_of(90))
    run.found[LITELLM_BUDGET].budgets = {"priced by tokens": EXACT, "priced by the image": LATE}
    section = write_section(run)
    assert f"- To ten images exactly: {LIGHTMETER}, {LITELLM_BUDGET} (priced by tokens)." in section
    assert f"- Only for those that come later: {LITELLM_BUDGET} (priced by the image)." in section
    assert f"- Not at all: {PORTKEY}." in section
    assert "of Portkey: 3.00 times as much, where 2 are wanted: met." in section


def test_who_is_left_out_is_named_with_the_reason() -> None:
    run = run_of(lightmeter=found_of(1))
    run.left_out[PORTKEY] = "there is no node"
    assert f"{PORTKEY} is left out: there is no node." in write_section(run)


def test_a_machine_that_had_other_work_is_said_to_have_had_it() -> None:
    run = run_of(lightmeter=found_of(1))
    assert "Other work" not in write_section(run)
    run.load = 14.2
    assert "a load average of 14" in " ".join(write_section(run).split())


def test_its_lines_fit_the_manual() -> None:
    run = run_of(
        lightmeter=found_of(1), portkey=found_of(1), litellm=found_of(1), budget=found_of(1), nginx=found_of(1)
    )
    lines = write_section(run).splitlines()
    assert [line for line in lines if len(line) > WIDTH and not line.startswith("|")] == []


def test_the_section_replaces_what_stood_between_the_marks() -> None:
    text = f"# Before\n\n{BEGIN}\nold\n{END}\n\nafter\n"
    once = insert(text, "new\n")
    assert once == f"# Before\n\n{BEGIN}\n\nnew\n\n{END}\n\nafter\n"
    assert insert(once, "new\n") == once
    with pytest.raises(ValueError, match="marks"):
        insert("# No marks", "new")


def test_the_manual_has_a_place_for_it() -> None:
    text = (ROOT / "tests/benchmarks/README.md").read_text()
    assert insert(text, "new") != text


# --- The picture ------------------------------------------------------------------------------------------------------


def test_the_picture_has_a_bar_for_each_in_each_of_its_parts() -> None:
    run = run_of(lightmeter=found_of(6_000, budget=EXACT), portkey=found_of(3_000), nginx=found_of(12_000))
    picture = ET.fromstring(draw(run))  # noqa: S314  # ours
    bars = [each for each in picture.iter(f"{SVG}rect") if each.get("height") == "16"]
    widths = [float(bar.get("width", 0)) for bar in bars[:3]]
    assert len(bars) == 9
    assert [bar.get("class") for bar in bars[:3]] == ["none", "exact", "none"]
    assert [width / widths[0] for width in widths] == [1, pytest.approx(0.5, rel=0.01), pytest.approx(0.25, rel=0.01)]
    texts = [each.text for each in picture.iter(f"{SVG}text")]
    assert {"6,000", "3,000", "12,000", LIGHTMETER, "budget holds exactly", "no budget"} <= set(texts)


def test_the_picture_stays_within_its_frame() -> None:
    names = dict.fromkeys(ORDER)
    run = Run("2 cores & more", "today", 2, 3, 0.1, {name: found_of(10**6, budget=LATE) for name in names})
    picture = ET.fromstring(draw(run))  # noqa: S314  # ours
    width, height = float(picture.get("width", 0)), float(picture.get("height", 0))
    assert all(float(each.get("y", 0)) + float(each.get("height", 0)) <= height for each in picture.iter(f"{SVG}rect"))
    texts = list(picture.iter(f"{SVG}text"))
    assert all(float(each.get("y", 0)) < height and float(each.get("x", 0)) < width for each in texts)
    assert "2 cores & more, today" in [each.text for each in texts]


def test_the_picture_knows_light_and_dark() -> None:
    text = draw(run_of(lightmeter=found_of(1)))
    assert "prefers-color-scheme: dark" in text
    assert "<script" not in text


def test_the_colour_says_where_a_budget_does_not_hold_at_every_price() -> None:
    found = found_of(1)
    found.budgets = {"a": LATE, "b": EXACT}
    assert how_it_holds(found) is Enforcement.LATE
    found.budgets = {"a": EXACT, "b": EXACT}
    assert how_it_holds(found) is Enforcement.EXACT
    assert how_it_holds(Found("1")) is Enforcement.NONE


def test_the_manual_shows_the_picture() -> None:
    assert PICTURE == "peers.svg"
    assert write_section(run_of(lightmeter=found_of(1))).startswith("![")


# --- What is installed ------------------------------------------------------------------------------------------------


def test_every_version_is_written_down() -> None:
    lines = (HERE / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"#.*|[A-Za-z0-9_.-]+==[A-Za-z0-9.]+", line)] == []
    assert [line for line in lines if line.startswith("litellm==")] != []


def test_each_file_is_explained() -> None:
    told = peers.__doc__ or ""
    files = {path.name for path in HERE.iterdir() if path.suffix in {".py", ".lua", ".cjs"}}
    assert files - {"__init__.py", "test_peers.py"} == set(re.findall(r"^(\w+\.\w+) ", told, re.MULTILINE))
    assert set(ORDER) == {
        NGINX,
        NGINX_BUFFERED,
        BARE,
        LIGHTMETER,
        NGINX_LUA,
        PORTKEY,
        LITELLM,
        LITELLM_BUDGET,
    }


def test_peers_are_chosen_by_the_beginnings_of_their_names() -> None:
    assert _chosen("") == list(ORDER)
    assert _chosen("Portkey, nginx +") == [name for name in ORDER if name in (PORTKEY, NGINX_LUA)]
    with pytest.raises(click.BadParameter, match="no peer's name begins with 'lua'"):
        _chosen("portkey,lua")
