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

import psutil
import pytest

from tests.benchmarks import throughput
from tests.benchmarks.figures import Figures, Percentiles, Slice, percentile, summarize_throughput, verdicts
from tests.benchmarks.latency import is_whole
from tests.benchmarks.servers import BARE, DIRECT, LIGHTMETER, NGINX, Subject, find_nginx
from tests.support.processes import ROOT, python_module, running, wait_for
from tests.support.requirements import program

COMMAND = python_module("tests.benchmarks.compare")


@pytest.fixture
def temporary_folder() -> Iterator[Path]:
    """Where the comparison makes its own. Not in ``tmp_path``: a socket's path is too short for that."""
    with tempfile.TemporaryDirectory(prefix="lm-") as folder:
        yield Path(folder)


def slice_of(rate: float, failed: int = 0) -> Slice:
    return Slice(rate, requests=1_000, failed=failed, seconds=1.0, cpu_s=0.5, store_cpu_s=0.0)


def runs(process: psutil.Process) -> bool:
    """Whoever takes over the children of a process that is gone may leave one that has ended a zombie for a while."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def percentiles_of_p50(p50_ms: float) -> Percentiles:
    return Percentiles(p50_ms, p50_ms * 2, samples=100, failed=0)


# --- A whole run ------------------------------------------------------------------------------------------------------


def test_a_short_run_fills_every_row(tmp_path: Path, temporary_folder: Path) -> None:
    program("wrk", "wrk")
    subjects = [DIRECT, *([NGINX] if find_nginx() else []), BARE, LIGHTMETER]
    path = tmp_path / "figures.json"
    ended = subprocess.run(
        [*COMMAND, "--seconds", "0.4", "--rounds", "1", "--json", str(path)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary_folder)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    large = "one image of 4,000,000 bytes"
    titles = ("Small: 163-byte request", f"Large: {large}", f"Events: {large}", f"Gemini: {large}", "Latency: ")
    for title in (*titles, "Resident memory"):
        assert title in ended.stdout
    for subject in subjects:
        assert ended.stdout.count(f"\n  {subject:<18}") == len(titles) + (subject != DIRECT)
    assert ended.stdout.count("wanted at least") == 2
    assert list(temporary_folder.iterdir()) == []
    check_figures(json.loads(path.read_text()), subjects)


def check_figures(figures: dict[str, Any], subjects: list[str]) -> None:
    assert figures["failed_requests"] == 0
    assert figures["measured"]["metered_images"] > 0
    for kind in throughput.LOADS:
        assert list(figures["summary"][kind]) == subjects
        for line in figures["summary"][kind].values():
            assert min(line["rate"], line["of_bare"], line["cpu_us"], line["busy"]) > 0
        assert figures["summary"][kind][BARE]["of_bare"] == 1
        assert figures["summary"][kind][LIGHTMETER]["store_cpu_us"] > 0
    assert sorted(figures["summary"]["latency"]) == sorted(subjects)
    for line in figures["summary"]["latency"].values():
        assert 0 < line["p50_ms"] <= line["p99_ms"]
        assert line["samples"] == 80
    for memory in figures["measured"]["memory"].values():
        assert min(memory.values()) > 0
    assert len(figures["wanted"]) == 3


def test_ctrl_c_stops_every_server_and_removes_the_folder(tmp_path: Path, temporary_folder: Path) -> None:
    program("wrk", "wrk")
    with running([*COMMAND, "--only", "small"], tmp_path / "output", {"TMPDIR": str(temporary_folder)}) as comparison:
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


@pytest.mark.parametrize(("rate", "p50_ms", "met"), [(60.0, 1.9, True), (59.0, 2.0, False)])
def test_a_verdict_says_what_was_met(rate: float, p50_ms: float, met: bool) -> None:
    figures = Figures(seconds=1, rounds=1)
    figures.small = {BARE: [slice_of(100.0)], LIGHTMETER: [slice_of(rate)]}
    figures.latency = {DIRECT: [percentiles_of_p50(1.0)], LIGHTMETER: [percentiles_of_p50(p50_ms)]}
    assert [verdict.met for verdict in verdicts(figures, DIRECT)] == [met, met]


def test_failed_requests_are_added_up() -> None:
    figures = Figures(seconds=1, rounds=1)
    figures.small = {BARE: [slice_of(1.0, failed=2)], LIGHTMETER: [slice_of(1.0), slice_of(1.0, failed=1)]}
    assert figures.failed_requests == 3
    assert figures.counted_requests == 1_999
    figures.gemini = {BARE: [slice_of(1.0, failed=4)], LIGHTMETER: [slice_of(1.0)]}
    assert figures.failed_requests == 7
    assert figures.counted_requests == 2_999


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Le", False),
    ],
)
def test_an_answer_ends_where_it_says(answer: bytes, whole: bool) -> None:
    assert is_whole(answer) is whole
