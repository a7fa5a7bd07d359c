"""``make bench``: Lightmeter beside a direct call, nginx and a bare forwarder, one worker process each."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
import psutil

from tests.benchmarks import throughput
from tests.benchmarks.figures import (
    Figures,
    Memory,
    Percentiles,
    Slice,
    percentile,
    percentiles_of,
    summarize_latency,
    summarize_throughput,
    table,
    verdicts,
)
from tests.benchmarks.latency import RATE_HZ
from tests.benchmarks.servers import (
    DIRECT,
    PATH,
    Bench,
    Subject,
    find_nginx,
    resident_megabytes,
    running_bench,
)
from tests.support.processes import ROOT, python_module

KINDS = (*throughput.LOADS, "latency")
LATENCY_LATE_S = 60
"""How long after its time the latency generator may take to end."""


class ProgramMissing(click.ClickException):
    """A program that the comparison cannot do without."""

    exit_code = 2


def _read_kinds(_context: click.Context, _parameter: click.Parameter, text: str) -> frozenset[str]:
    kinds = frozenset(text.split(","))
    if not kinds <= set(KINDS):
        raise click.BadParameter(f"{text!r}: there are {', '.join(KINDS)}.")
    return kinds


@click.command()
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=4, show_default=True, help="One slice of load.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="Slices for each subject.")
@click.option("--only", "kinds", default=",".join(KINDS), callback=_read_kinds, show_default=True, metavar="KINDS")
@click.option(
    "--beside",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Another checkout of Lightmeter, with its .venv, as one more subject: the commit before.",
)
@click.option("--limits", "limited", is_flag=True, help="Lightmeter once more, with every limit on key and team.")
@click.option("--workers", type=click.IntRange(2, 60), help="Lightmeter once more, with so many workers.")
@click.option("--json", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures here.")
def main(
    seconds: float,
    rounds: int,
    kinds: frozenset[str],
    beside: Path | None,
    limited: bool,
    workers: int | None,
    path: Path | None,
) -> None:
    """How fast is Lightmeter beside a bare forwarder and nginx? A figure that is not met is no failure."""
    wrk = throughput.find_wrk()
    if wrk is None:
        raise ProgramMissing("wrk is missing: apt-get install wrk")
    if find_nginx() is None:
        click.echo("nginx is missing, and left out: apt-get install nginx-light", err=True)
    # What was started is stopped, and the temporary folder goes. A shell's background jobs would not hear of Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    figures = Figures(seconds, rounds)
    try:
        with tempfile.TemporaryDirectory(prefix="lightmeter-bench-") as folder:
            Comparison(figures, Path(folder), wrk).run(kinds, beside, limited=limited, workers=workers or 0)
    except (OSError, RuntimeError, subprocess.TimeoutExpired, psutil.Error) as error:
        raise click.ClickException(str(error)) from error
    click.echo(table(figures, DIRECT, _titles(figures)))
    if path is not None:
        path.write_text(json.dumps(describe(figures), indent=2) + "\n")
    if figures.failed_requests:
        raise click.ClickException(f"{figures.failed_requests:,} requests failed; the figures tell nothing")


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


class Comparison:
    """One run, whose figures are collected in ``figures``."""

    def __init__(self, figures: Figures, folder: Path, wrk: str) -> None:
        self._figures = figures
        self._folder = folder
        self._wrk = wrk

    def run(self, kinds: frozenset[str], beside: Path | None, *, limited: bool, workers: int = 0) -> None:
        """Start every subject, measure what is asked for, and stop them."""
        figures = self._figures
        _print("starting the servers")
        with running_bench(self._folder, beside, limited=limited, workers=workers) as bench:
            at_start = _memory(bench)
            after_small: Mapping[str, float] = {}
            after_large: Mapping[str, float] = {}
            if "small" in kinds:
                figures.small = self._press(bench, throughput.SMALL, "small")
                after_small = _memory(bench)
            if "large" in kinds:
                figures.large = self._press(bench, throughput.LARGE, "large")
                after_large = _memory(bench)
            if "events" in kinds:
                figures.events = self._press(bench, throughput.EVENTS, "events")
            if "gemini" in kinds:
                figures.gemini = self._press(bench, throughput.GEMINI, "gemini")
            if "latency" in kinds:
                self._measure_latency(bench)
            figures.memory = {
                name: Memory(start_mb, after_small.get(name), after_large.get(name))
                for name, start_mb in at_start.items()
            }
            figures.metered_images = bench.metered_images()
            if figures.metered_images < figures.counted_requests:
                raise RuntimeError(
                    f"Lightmeter answered {figures.counted_requests:,} requests, "
                    f"and metered {figures.metered_images:,} images"
                )

    def _press(self, bench: Bench, load: throughput.Load, kind: str) -> dict[str, list[Slice]]:
        slices: dict[str, list[Slice]] = {subject.name: [] for subject in bench.subjects}
        for subject in bench.subjects:
            throughput.warm_up(subject, load)

        def measure(subject: Subject) -> None:
            slices[subject.name].append(throughput.press(self._wrk, subject, load, self._figures.seconds, self._folder))

        self._in_rounds(bench, kind, measure)
        return slices

    def _in_rounds(self, bench: Bench, kind: str, measure: Callable[[Subject], None]) -> None:
        """Every subject in every round, each round in another order: none is always the first or after the same."""
        order = list(bench.subjects)
        for number in range(1, self._figures.rounds + 1):
            for subject in order:
                _print(f"{kind}, round {number} of {self._figures.rounds}: {subject.name}")
                measure(subject)
            order.append(order.pop(0))

    def _measure_latency(self, bench: Bench) -> None:
        figures = self._figures
        latency: dict[str, list[Percentiles]] = {subject.name: [] for subject in bench.subjects}
        late_ms: list[float] = []
        for number in range(1, figures.rounds + 1):
            _print(f"latency, round {number} of {figures.rounds}: all in turns")
            told = _run_generator(bench, figures.seconds)
            late_ms += told["late_ms"]
            for name, samples in told["samples"].items():
                if not samples["latencies_ms"]:
                    raise RuntimeError(f"{name} answered no request at {RATE_HZ} a second")
                latency[name].append(percentiles_of(samples["latencies_ms"], samples["failed"]))
        figures.latency = latency
        figures.late_p99_ms = percentile(late_ms, 0.99)


def _run_generator(bench: Bench, seconds: float) -> dict[str, Any]:
    body = throughput.SMALL.request.body.decode()
    head = f"Host: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    subjects = {
        one.name: {
            "port": one.port,
            "request": f"POST {PATH} HTTP/1.1\r\n{head}Authorization: Bearer {one.key}\r\n\r\n{body}",
        }
        for one in bench.subjects
    }
    plan = {"subjects": subjects, "seconds": seconds}
    ended = subprocess.run(
        python_module("tests.benchmarks.latency"),
        cwd=ROOT,
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        timeout=seconds * len(bench.subjects) + LATENCY_LATE_S,
        start_new_session=True,
        check=False,
    )
    if ended.returncode:
        raise RuntimeError(f"the latency generator ended with status {ended.returncode}:\n{ended.stderr}")
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


def _memory(bench: Bench) -> dict[str, float]:
    memory = {one.name: one.megabytes() for one in bench.forwarders}
    stores = {f"{one.name}'s store": resident_megabytes(one.store) for one in bench.forwarders if one.store}
    return memory | stores


def _titles(figures: Figures) -> dict[str, str]:
    rounds = f"median of {figures.rounds} round(s) of {figures.seconds:g} s"
    small, large = throughput.SMALL, throughput.LARGE
    events, gemini = throughput.EVENTS, throughput.GEMINI
    return {
        "small": f"Small: {len(small.request.body)}-byte request, one URL back, {small.connections} connections, "
        + rounds,
        "large": f"Large: one image of {large.answer_bytes:,} bytes back, {large.connections} connections, {rounds}",
        "events": f"Events: one image of {events.answer_bytes:,} bytes as an event, {events.connections} connections, "
        + rounds,
        "gemini": f"Gemini: one image of {gemini.answer_bytes:,} bytes, put into OpenAI's words by Lightmeter alone, "
        f"{gemini.connections} connections, {rounds}",
        "latency": f"Latency: the small request, {RATE_HZ} a second whatever the answers take, {rounds}",
    }


def describe(figures: Figures) -> dict[str, Any]:
    """All figures for programs: what was measured, and what is made of it."""
    return {
        "machine": {
            "cpus": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "lightmeter": version("lightmeter"),
            "aiohttp": version("aiohttp"),
        },
        "failed_requests": figures.failed_requests,
        "summary": {
            **{
                name: {one: asdict(line) for one, line in summarize_throughput(load).items()}
                for name, load in figures.loads.items()
            },
            "latency": {one: asdict(line) for one, line in summarize_latency(figures.latency, DIRECT).items()},
        },
        "wanted": [asdict(verdict) for verdict in verdicts(figures, DIRECT)],
        "measured": asdict(figures),
    }


def _print(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    sys.exit(main())
