"""``make bench``: Lightmeter beside a direct call, nginx and a bare forwarder, one worker process each."""

from __future__ import annotations

import http
import json
import os
import platform
import resource
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
import psutil

from tests.benchmarks import throughput
from tests.benchmarks.figures import (
    SUBJECT,
    Crowd,
    Figures,
    Memory,
    Percentiles,
    Slice,
    percentile,
    percentiles_of,
    summarize_crowd,
    summarize_latency,
    summarize_throughput,
)
from tests.benchmarks.provider import WAIT_PATH
from tests.benchmarks.servers import (
    DIRECT,
    NGINX,
    Bench,
    Subject,
    call,
    find_nginx,
    resident_megabytes,
    running_bench,
)
from tests.benchmarks.table import table, verdicts
from tests.support.processes import ROOT, python_module

KINDS = ("crowds", *throughput.LOADS, "latency")
EVERYBODY = {"small", "large"}
"""The loads that every subject is put under; of the others, those that only pass on tell nothing new."""
HALF = 0.5
PROBE_S = 1.0
MEMORY_LOOK_S = 0.05
CROWD_LATE_S = 60
FILES_BESIDE = 500
"""What a program may open beside its connections."""
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


@dataclass(frozen=True, slots=True)
class Crowds:
    """How many wait at a time, for how long."""

    counts: tuple[int, ...]
    wait_ms: int

    def that_fit(self, files: int) -> Crowds:
        """Those that a gateway may have while so many files may be open: it has two connections for each."""
        most = (files - FILES_BESIDE) // 2
        for count in self.counts:
            if count > most:
                _print(
                    f"{count:,} at a time are left out: {files:,} files may be open, and each takes two (ulimit -Hn)"
                )
        return replace(self, counts=tuple(count for count in self.counts if count <= most))


def _read_crowds(_context: click.Context, _parameter: click.Parameter, text: str) -> Crowds:
    counts, _, seconds = text.partition(":")
    try:
        crowds = Crowds(tuple(int(count) for count in counts.split(",")), round(float(seconds) * 1000))
    except ValueError:
        raise click.BadParameter(f"{text!r}: such as 1000,9000:10") from None
    if min(*crowds.counts, crowds.wait_ms) < 1:
        raise click.BadParameter(f"{text!r}: none of them may be 0")
    return crowds


@click.command()
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=2, show_default=True, help="One slice of load.")
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="Slices for each subject.")
@click.option("--only", "kinds", default=",".join(KINDS), callback=_read_kinds, show_default=True, metavar="KINDS")
@click.option(
    "--beside",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Another checkout of Lightmeter, with its .venv, as one more subject: the commit before.",
)
@click.option("--limits", "limited", is_flag=True, help="Lightmeter once more, with every limit on key and team.")
@click.option(
    "--workers",
    type=click.IntRange(0, 60),
    default=2,
    show_default=True,
    help="Small: Lightmeter once more, with so many.",
)
@click.option(
    "--crowds",
    default="1000,9000:10",
    callback=_read_crowds,
    show_default=True,
    metavar="COUNTS:SECONDS",
    help="So many requests in flight at a time, while the provider waits so long.",
)
@click.option("--json", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures here.")
def main(
    seconds: float,
    rounds: int,
    kinds: frozenset[str],
    beside: Path | None,
    limited: bool,
    workers: int,
    crowds: Crowds,
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
    # Thousands of connections; what is started has the same limit.
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    figures = Figures(seconds, rounds)
    plan = Plan(kinds, beside, limited=limited, workers=workers, crowds=crowds.that_fit(hard))
    try:
        with tempfile.TemporaryDirectory(prefix="lightmeter-bench-") as folder:
            Comparison(figures, Path(folder), wrk).run(plan)
    except (OSError, RuntimeError, subprocess.TimeoutExpired, psutil.Error) as error:
        raise click.ClickException(str(error)) from error
    click.echo(table(figures, DIRECT, _titles(figures, crowds.wait_ms)))
    if path is not None:
        path.write_text(json.dumps(describe(figures), indent=2) + "\n")
    if figures.failed_requests:
        raise click.ClickException(f"{figures.failed_requests:,} requests failed; the figures tell nothing")


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and whom beside the usual."""

    kinds: frozenset[str]
    beside: Path | None
    limited: bool
    workers: int
    crowds: Crowds


class Comparison:
    """One run, whose figures are collected in ``figures``."""

    def __init__(self, figures: Figures, folder: Path, wrk: str) -> None:
        self._figures = figures
        self._folder = folder
        self._wrk = wrk

    def run(self, plan: Plan) -> None:
        """Start every subject, measure what is asked for, and stop them."""
        figures = self._figures
        _print("starting the servers")
        workers = plan.workers if "small" in plan.kinds else 0
        with running_bench(self._folder, plan.beside, limited=plan.limited, workers=workers) as bench:
            at_start = _memory(bench)
            # First of all: what else they have done leaves memory behind that a crowd would fill.
            for count in plan.crowds.counts if "crowds" in plan.kinds else ():
                figures.crowds[count] = self._gather(bench, count, plan.crowds.wait_ms, at_start)
            after: dict[str, Mapping[str, float]] = {}
            for kind in throughput.LOADS:
                if kind in plan.kinds:
                    figures.loads[kind] = self._press(bench, kind)
                    after[kind] = _memory(bench)
            if "latency" in plan.kinds:
                self._measure_latency(bench)
            figures.memory = {
                name: Memory(start_mb, after.get("small", {}).get(name), after.get("large", {}).get(name))
                for name, start_mb in at_start.items()
            }
            figures.metered_images = bench.metered_images()
            if figures.metered_images < figures.counted_requests:
                raise RuntimeError(
                    f"Lightmeter answered {figures.counted_requests:,} requests, "
                    f"and metered {figures.metered_images:,} images"
                )

    def _press(self, bench: Bench, kind: str) -> dict[str, list[Slice]]:
        load = throughput.LOADS[kind]
        subjects = [one for one in bench.subjects if _takes_part(one, kind)]
        slices: dict[str, list[Slice]] = {subject.name: [] for subject in subjects}
        for subject in subjects:
            throughput.warm_up(subject, load)

        def measure(subject: Subject) -> None:
            slices[subject.name].append(throughput.press(self._wrk, subject, load, self._figures.seconds, self._folder))

        # Every subject in every round, each round in another order: none is always the first or after the same.
        for number in range(1, self._figures.rounds + 1):
            for subject in subjects:
                _print(f"{kind}, round {number} of {self._figures.rounds}: {subject.name}")
                measure(subject)
            subjects.append(subjects.pop(0))
        return slices

    def _gather(self, bench: Bench, count: int, wait_ms: int, at_start: Mapping[str, float]) -> dict[str, Crowd]:
        crowd_of = {}
        for subject in bench.forwarders:
            if subject.name == NGINX or subject.workers:
                continue
            throughput.warm_up(subject, throughput.SMALL)
            _print(f"{count:,} that wait {wait_ms / 1000:g} s: {subject.name}")
            _ask_to_wait(bench.provider, wait_ms)
            try:
                crowd_of[subject.name] = _press_crowd(subject, count, wait_ms, at_start[subject.name])
            finally:
                _ask_to_wait(bench.provider, 0)
        return crowd_of

    def _measure_latency(self, bench: Bench) -> None:
        figures = self._figures
        subjects = [one for one in bench.subjects if not one.workers]
        figures.rate_hz = round(HALF * self._full_rate_hz(bench))
        latency: dict[str, list[Percentiles]] = {subject.name: [] for subject in subjects}
        late_ms: list[float] = []
        for number in range(1, figures.rounds + 1):
            _print(f"latency, round {number} of {figures.rounds}: all in turns")
            told = _run_generator(subjects, figures.seconds, figures.rate_hz)
            late_ms += told["late_ms"]
            for name, samples in told["samples"].items():
                if not samples["latencies_ms"]:
                    raise RuntimeError(f"{name} answered no request at {figures.rate_hz:,} a second")
                latency[name].append(percentiles_of(samples["latencies_ms"], samples["failed"]))
        figures.latency = latency
        figures.late_p99_ms = percentile(late_ms, 0.99)

    def _full_rate_hz(self, bench: Bench) -> float:
        small = self._figures.loads.get("small")
        if small is not None:
            return summarize_throughput(small)[SUBJECT].rate
        subject = next(one for one in bench.subjects if one.name == SUBJECT)
        throughput.warm_up(subject, throughput.SMALL)
        return throughput.press(self._wrk, subject, throughput.SMALL, PROBE_S, self._folder).rate


def _takes_part(subject: Subject, kind: str) -> bool:
    if subject.workers:
        return kind == "small"
    return kind in EVERYBODY or subject.name not in {DIRECT, NGINX}


def _ask_to_wait(provider: Subject, wait_ms: int) -> None:
    status, _ = call(provider.port, "POST", WAIT_PATH, provider.key, str(wait_ms).encode())
    if status != http.HTTPStatus.OK:
        raise RuntimeError(f"the provider answers {status} where it is asked to wait")


def _press_crowd(subject: Subject, count: int, wait_ms: int, start_mb: float) -> Crowd:
    wait_s = wait_ms / 1000
    plan = {"port": subject.port, "request": throughput.SMALL.request.wire(subject.key).decode()}
    plan |= {"count": count, "timeout_s": wait_s + CROWD_LATE_S}
    before = (*subject.cpu_seconds(), subject.provider_cpu_seconds())
    with subprocess.Popen(
        python_module("tests.benchmarks.generators.crowd"),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(plan))
            process.stdin.close()
            if not process.stdout.readline():
                raise RuntimeError(f"the crowd before {subject.name} ended with status {process.wait()}")
            # All is sent. The first of them are answered when the provider has waited, and until then no memory goes.
            full_mb = subject.megabytes()
            while not select.select([process.stdout], [], [], MEMORY_LOOK_S)[0]:
                full_mb = max(full_mb, subject.megabytes())
            told = json.loads(process.stdout.readline())
        finally:
            process.kill()
    after = (*subject.cpu_seconds(), subject.provider_cpu_seconds())
    if told["failed"]:
        _print(f"{subject.name}: failed, by status: {told['failed']}")
    added_ms = [took_ms - wait_ms for took_ms in told["latencies_ms"]] or [0.0]
    added = percentiles_of(added_ms, sum(told["failed"].values()))
    cpu_s = [later - earlier for earlier, later in zip(before, after, strict=True)]
    added = replace(added, samples=len(told["latencies_ms"]))
    return Crowd(count, cpu_s[0], cpu_s[1], cpu_s[2], start_mb, full_mb, added)


def _run_generator(subjects: Sequence[Subject], seconds: float, rate_hz: float) -> dict[str, Any]:
    requests = {
        one.name: {"port": one.port, "request": throughput.SMALL.request.wire(one.key).decode()} for one in subjects
    }
    plan = {"subjects": requests, "seconds": seconds, "rate_hz": rate_hz}
    ended = subprocess.run(
        python_module("tests.benchmarks.generators.latency"),
        cwd=ROOT,
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        timeout=seconds * len(subjects) + LATENCY_LATE_S,
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


def _titles(figures: Figures, wait_ms: int) -> dict[str, str]:
    rounds = f"median of {figures.rounds} round(s) of {figures.seconds:g} s"

    def title(kind: str, what: str) -> str:
        return f"{what}, {throughput.LOADS[kind].connections} connections, {rounds}"

    large = throughput.LARGE.answer_bytes
    return {
        "small": title("small", f"{len(throughput.SMALL.request.body)}-byte request, one URL back"),
        "large": title("large", f"one image of {large:,} bytes back"),
        "events": title("events", f"{large:,} bytes as {throughput.PARTIAL_IMAGES} partial images and a whole one"),
        "gemini": title("gemini", f"one image of {large:,} bytes, put into OpenAI's words by Lightmeter alone"),
        "uploads": title("uploads", f"an edit whose form has a file of {throughput.UPLOAD_BYTES:,} bytes"),
        "latency": f"the small request, {figures.rate_hz:,.0f} a second whatever the answers take, half of what "
        f"Lightmeter can; {rounds}",
        "crowd": f"so many small requests in flight at a time; what is added to the {wait_ms / 1000:g} s that the "
        "provider waits",
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
            "crowds": {
                str(count): {one: asdict(line) for one, line in summarize_crowd(crowd_of).items()}
                for count, crowd_of in figures.crowds.items()
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
