"""The comparison itself: that it runs, tells the truth, and leaves nothing behind. Speed is not tested."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import psutil
import pytest

from tests.benchmarks import compare, throughput
from tests.benchmarks.figures import (
    Crowd,
    Figures,
    Percentiles,
    Slice,
    percentile,
    summarize_crowd,
    summarize_latency,
    summarize_throughput,
)
from tests.benchmarks.servers import BARE, DIRECT, LIGHTMETER, NGINX, Subject, find_nginx
from tests.benchmarks.table import WANTED, WORKERS, verdicts
from tests.support.processes import ROOT, python_module, running, wait_for
from tests.support.requirements import program

COMMAND = python_module("tests.benchmarks.compare")


@pytest.fixture
def temporary_folder() -> Iterator[Path]:
    """Where the comparison makes its own. Not in ``tmp_path``: a socket's path is too short for that."""
    with tempfile.TemporaryDirectory(prefix="lm-") as folder:
        yield Path(folder)


def slice_of(rate: float, failed: int = 0, cpu_s: float = 0.5) -> Slice:
    return Slice(rate, requests=1_000, failed=failed, seconds=1.0, cpu_s=cpu_s, store_cpu_s=0.04, provider_cpu_s=0.01)


def runs(process: psutil.Process) -> bool:
    """Whoever takes over the children of a process that is gone may leave one that has ended a zombie for a while."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def percentiles_of_p50(p50_ms: float) -> Percentiles:
    return Percentiles(p50_ms, p50_ms * 2, p50_ms * 3, samples=100, failed=0)


# --- A whole run ------------------------------------------------------------------------------------------------------


def test_a_short_run_fills_every_row(tmp_path: Path, temporary_folder: Path) -> None:
    program("wrk", "wrk")
    nginx = [NGINX] if find_nginx() else []
    path = tmp_path / "figures.json"
    options = ("--seconds", "0.3", "--rounds", "1", "--crowds", "60:0.5")
    ended = subprocess.run(
        [*COMMAND, *options, "--json", str(path)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary_folder)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    for line in (*throughput.LOADS, "latency", "60"):
        assert f"\n{line}: " in ended.stdout
    assert list(temporary_folder.iterdir()) == []
    figures = json.loads(path.read_text())
    check_loads(figures, nginx)
    check_latencies(figures, nginx)
    assert ended.stdout.count(" wanted at ") == len(figures["wanted"]) == 8 - (not nginx)
    for memory in figures["measured"]["memory"].values():
        assert min(memory.values()) > 0


def check_loads(figures: dict[str, Any], nginx: list[str]) -> None:
    assert figures["failed_requests"] == 0
    assert figures["measured"]["metered_images"] > 0
    everybody, some = [DIRECT, *nginx, BARE, LIGHTMETER], [BARE, LIGHTMETER]
    subjects = {"small": [*everybody, WORKERS], "large": everybody, "events": some, "gemini": some, "uploads": some}
    for kind, names in subjects.items():
        summary = figures["summary"][kind]
        assert list(summary) == names
        for line in summary.values():
            assert min(line["cpu_us"], line["rate"], line["of_bare"], line["busy"]) > 0
        assert summary[BARE]["of_bare"] == summary[BARE]["cpu_of_bare"] == 1
        assert min(summary[LIGHTMETER]["store_cpu_us"], summary[LIGHTMETER]["provider_cpu_us"]) > 0


def check_latencies(figures: dict[str, Any], nginx: list[str]) -> None:
    latency = figures["summary"]["latency"]
    assert sorted(latency) == sorted([DIRECT, *nginx, BARE, LIGHTMETER])
    for line in latency.values():
        assert 0 < line["p50_ms"] <= line["p99_ms"] <= line["p999_ms"]
    assert len({line["samples"] for line in latency.values()}) == 1
    crowd_of = figures["summary"]["crowds"]["60"]
    assert list(crowd_of) == [BARE, LIGHTMETER]
    for line in crowd_of.values():
        assert line["added"]["samples"] == 60
        assert line["cpu_us"] > 0


def test_ctrl_c_stops_every_server_and_removes_the_folder(tmp_path: Path, temporary_folder: Path) -> None:
    program("wrk", "wrk")
    with running(
        [*COMMAND, "--only", "small", "--workers", "0"], tmp_path / "output", {"TMPDIR": str(temporary_folder)}
    ) as comparison:
        comparison.wait_for_output("small, round 1")
        children = psutil.Process(comparison.process.pid).children(recursive=True)
        assert len(children) >= 4
        assert comparison.stop(signal.SIGINT) == 1
    wait_for(lambda: not any(map(runs, children)), f"an end of all of {children}", timeout_s=5)
    assert list(temporary_folder.iterdir()) == []


def test_without_wrk_it_says_how_to_get_it() -> None:
    ended = subprocess.run(
        COMMAND, cwd=ROOT, env={**os.environ, "PATH": ""}, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert "apt-get install wrk" in ended.stderr


# --- Parts of it ------------------------------------------------------------------------------------------------------


def test_the_small_request_is_as_large_as_it_is_said_to_be() -> None:
    assert len(throughput.SMALL.request.body) == 163


def test_who_translates_is_asked_in_openais_words_and_the_others_in_geminis() -> None:
    def asked(name: str) -> throughput.Request:
        return throughput.GEMINI.request_to(Subject(name, "http://127.0.0.1:1", psutil.Process()))

    assert asked(LIGHTMETER).path == "/v1/images/generations"
    assert asked(BARE).path == asked(DIRECT).path == "/v1beta/models/image-1:generateContent"
    assert asked(BARE).mark != asked(LIGHTMETER).mark


def test_a_percentile_is_a_sample_that_was_taken() -> None:
    samples = [float(number) for number in range(100, 0, -1)]
    assert (percentile(samples, 0.5), percentile(samples, 0.99)) == (50.0, 99.0)
    assert percentile([7.0], 0.99) == 7.0


def test_a_ratio_compares_slices_of_one_round() -> None:
    # The machine was three times slower in the second round; the ratio is the same.
    load = {
        BARE: [slice_of(9_000), slice_of(3_000), slice_of(9_000)],
        LIGHTMETER: [slice_of(6_300), slice_of(2_100), slice_of(6_300)],
    }
    summary = summarize_throughput(load)
    assert summary[LIGHTMETER].of_bare == pytest.approx(0.7)
    assert summary[LIGHTMETER].rate == 6_300
    assert summary[LIGHTMETER].cpu_us == pytest.approx(500)


@pytest.mark.parametrize(("factor", "met"), [(1.0, True), (1.5, False)])
def test_a_verdict_says_what_was_met(factor: float, met: bool) -> None:
    figures = Figures(seconds=1, rounds=1)
    lightmeter = slice_of(100 / factor, cpu_s=0.4 * factor)
    figures.loads["small"] = {BARE: [slice_of(100)], LIGHTMETER: [lightmeter], WORKERS: [slice_of(80, cpu_s=0.43)]}
    figures.loads["large"] = {NGINX: [slice_of(110)], BARE: [slice_of(85)], LIGHTMETER: [lightmeter]}
    figures.latency = {DIRECT: [percentiles_of_p50(1.0)], LIGHTMETER: [percentiles_of_p50(2.1 * factor)]}
    figures.crowds[9_000] = {LIGHTMETER: crowd_of(9_000, full_mb=100 + 200 * factor)}
    found = {verdict.name: verdict for verdict in verdicts(figures, DIRECT)}
    assert list(found) == [wanted.name for wanted in WANTED]
    assert found["small: requests/s, of bare"].met is found["large: GB/s, of nginx"].met is met
    assert found["large: processor time, of bare"].value == pytest.approx(0.8 * factor)
    assert found["large: GB/s, of nginx"].value == pytest.approx(100 / 110 / factor)
    assert found["p99 added at half load, ms"].value == pytest.approx(4.2 * factor - 2)
    assert found["9,000 in flight: kB each"].met is met
    assert found["small: us of the store"].value == pytest.approx(40)
    assert found["two workers: work of one"].value == pytest.approx(2 * 0.4 * factor / 0.43)


def test_what_was_not_measured_has_no_verdict() -> None:
    assert verdicts(Figures(seconds=1, rounds=1), DIRECT) == []


def test_a_percentile_is_added_to_the_direct_calls_of_its_round() -> None:
    rounds = [percentiles_of_p50(p50_ms) for p50_ms in (1.0, 5.0, 1.2)]
    slower = [percentiles_of_p50(p50_ms) for p50_ms in (2.0, 6.5, 2.0)]
    line = summarize_latency({DIRECT: rounds, BARE: slower}, DIRECT)[BARE]
    assert line.added_p50_ms == pytest.approx(1.0)
    assert line.added_p999_ms == pytest.approx(3.0)


def crowd_of(count: int, full_mb: float, failed: int = 0) -> Crowd:
    added = Percentiles(1.0, 2.0, 3.0, samples=count - failed, failed=failed)
    return Crowd(count, 0.9, 0.3, 0.1, start_mb=100.0, full_mb=full_mb, added=added)


def test_a_crowd_is_told_for_each_request() -> None:
    line = summarize_crowd({LIGHTMETER: crowd_of(1_000, full_mb=130.0)})[LIGHTMETER]
    assert line.cpu_us == pytest.approx(900)
    assert line.kilobytes == pytest.approx(30)


def test_failed_requests_are_added_up() -> None:
    figures = Figures(seconds=1, rounds=1)
    figures.loads["small"] = {BARE: [slice_of(1.0, failed=2)], LIGHTMETER: [slice_of(1.0), slice_of(1.0, failed=1)]}
    assert figures.failed_requests == 3
    assert figures.counted_requests == 1_999
    figures.loads["gemini"] = {BARE: [slice_of(1.0, failed=4)], LIGHTMETER: [slice_of(1.0)]}
    assert figures.failed_requests == 7
    assert figures.counted_requests == 2_999
    figures.crowds[50] = {LIGHTMETER: crowd_of(50, full_mb=200.0, failed=5)}
    assert figures.failed_requests == 12
    assert figures.counted_requests == 3_044


@pytest.mark.parametrize("text", ["many:10", "1000", "0:10", "10:0", "10:x"])
def test_a_crowd_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        compare.main.make_context("bench", ["--crowds", text])


def test_a_crowd_that_needs_more_files_than_may_be_open_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.Crowds((1_000, 9_000), 10).that_fit(20_000).counts == (1_000, 9_000)
    assert compare.Crowds((1_000, 9_000), 10).that_fit(4_096).counts == (1_000,)
    assert "9,000 at a time are left out: 4,096 files" in capsys.readouterr().err
