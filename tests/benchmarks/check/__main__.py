"""``make bench-check``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from types import FrameType
from typing import NoReturn

import click
import psutil

from tests.benchmarks import throughput
from tests.benchmarks.check import baseline, timing, verdict
from tests.benchmarks.check.baseline import Figures, this_interpreter
from tests.benchmarks.check.counting import CASES, Counting, Counts, find_valgrind
from tests.benchmarks.check.other import NoSuchTreeError, other_tree
from tests.benchmarks.servers import BARE, BESIDE, LIGHTMETER
from tests.support.processes import ROOT

TRIES = 3
"""How often what is past the bound is counted before it is refused, of which the least counts: chance only adds."""
RECORDED_OF = 3
"""A release's figure is the middle one of so many."""


def _read_cases(_context: click.Context, _parameter: click.Parameter, text: str) -> list[str]:
    cases = text.split(",")
    if not set(cases) <= set(CASES):
        raise click.BadParameter(f"{text!r}: there are {', '.join(CASES)}.")
    return cases


@click.command()
@click.option("--beside", help="Compare with this folder or commit in one run, not with what was recorded.")
@click.option("--record", is_flag=True, help="Write what was counted down as the release's: before it is tagged.")
@click.option("--functions", is_flag=True, help="Print the functions that take most, or, beside another, changed most.")
@click.option("--by-time", is_flag=True, help="By processor time, in turns; needs --beside, wrk and a quiet machine.")
@click.option("--only", "cases", default=",".join(CASES), callback=_read_cases, show_default=True, metavar="CASES")
@click.option("--rounds", type=click.IntRange(1, 100), default=9, show_default=True, help="Of --by-time.")
@click.option(
    "--seconds", type=click.FloatRange(0.1, 600), default=2, show_default=True, help="One slice of --by-time."
)
def main(
    beside: str | None,
    cases: list[str],
    rounds: int,
    seconds: float,
    *,
    record: bool,
    functions: bool,
    by_time: bool,
) -> None:
    """Does a request take more of the processor than in the last release? Status 1 where it is past 5 % more."""
    if by_time and beside is None:
        raise click.UsageError("--by-time needs --beside: a time can only be compared within one run")
    if record and (beside is not None or len(cases) < len(CASES)):
        raise click.UsageError("--record counts every case of this tree, and nothing else")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lightmeter-check-")))
            other = None if beside is None else stack.enter_context(other_tree(beside))
            if by_time:
                assert other is not None
                changes = _time(folder, other, cases, rounds, seconds)
                return _judge(changes, "us a request", beside or "", is_compared_in_run=True)
            counts = _count_until_sure(folder, other, cases, record=record)
    except (NoSuchTreeError, OSError, RuntimeError, TimeoutError, subprocess.SubprocessError, psutil.Error) as error:
        raise click.ClickException(str(error)) from error
    if counts is None:
        return None
    if functions:
        _print_functions(counts, cases)
    if beside is not None:
        return _judge_beside(counts, beside)
    return _judge_by_record(counts, record=record)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _time(folder: Path, other: Path, cases: Sequence[str], rounds: int, seconds: float) -> list[verdict.Change]:
    wrk = throughput.find_wrk()
    if wrk is None:
        raise click.ClickException("wrk is missing: apt-get install wrk")
    return timing.measure(wrk, folder, other, cases, rounds, seconds, _tell)


def _count_until_sure(
    folder: Path, other: Path | None, cases: Sequence[str], *, record: bool
) -> dict[str, Counts] | None:
    counts = _count(folder / "0", other, cases)
    if counts is None:
        return None
    if record:
        again = [_count(folder / str(number), other, cases) or counts for number in range(1, RECORDED_OF)]
        return merge([counts, *again], median)
    for number in range(1, TRIES):
        before = counts[BESIDE].instructions if other else _recorded_ratios()
        measure = dict.fromkeys(cases, 1.0) if other else counts[BARE].instructions
        if before is None:
            break
        now = verdict.ratios(counts[LIGHTMETER].instructions, measure)
        refused = [change.case for change in verdict.changes_of_ratios(now, before) if not change.is_allowed]
        if not refused:
            break
        _tell(f"once more, to be sure: {', '.join(refused)}")
        again_of = _count(folder / str(number), other, refused)
        assert again_of is not None
        counts = merge([counts, again_of], min)
    return counts


def merge(counted: Sequence[dict[str, Counts]], choose: Callable[[list[float]], float]) -> dict[str, Counts]:
    """The first, with what ``choose`` takes of the counts of each case."""
    first = counted[0]
    for name, counts in first.items():
        for case in counts.instructions:
            all_of = [one[name].instructions[case] for one in counted if case in one[name].instructions]
            counts.instructions[case] = choose(all_of)
    return first


def _recorded_ratios() -> dict[str, float] | None:
    known = baseline.read(baseline.PATH.read_text()).figures(this_interpreter())
    return None if known is None else verdict.ratios(known[LIGHTMETER], known[BARE])


def _count(folder: Path, other: Path | None, cases: Sequence[str]) -> dict[str, Counts] | None:
    valgrind = find_valgrind()
    if valgrind is None:
        words = "valgrind is missing, and nothing was counted: apt-get install valgrind"
        if os.environ.get("LIGHTMETER_TEST_REQUIRE_ALL") == "1":
            raise click.ClickException(words)
        click.echo(words)
        return None
    folder.mkdir()
    measure: dict[str, Path | None] = {BARE: None} if other is None else {BESIDE: other}
    return Counting(valgrind, folder, cases, _tell).run({LIGHTMETER: None, **measure})


def _judge_beside(counts: Mapping[str, Counts], beside: str) -> None:
    now, before = counts[LIGHTMETER].instructions, counts[BESIDE].instructions
    changes = [verdict.Change(case, now[case] / 1000, before[case] / 1000) for case in now]
    _judge(changes, "thousand instructions a request", beside, is_compared_in_run=True)


def _judge_by_record(counts: Mapping[str, Counts], *, record: bool) -> None:
    figures: Figures = {name: counted.instructions for name, counted in counts.items()}
    last = baseline.read(baseline.PATH.read_text())
    known = last.figures(this_interpreter())
    changes = []
    if known is None:
        # A release that nobody has counted on this interpreter is no reason to refuse a change.
        click.echo(f"nobody has recorded {last.version} on {this_interpreter()}: there is nothing to compare with")
    else:
        before = verdict.ratios(known[LIGHTMETER], known[BARE])
        changes = verdict.changes_of_ratios(verdict.ratios(figures[LIGHTMETER], figures[BARE]), before)
    for case in figures[LIGHTMETER]:
        click.echo(f"{case}: {figures[LIGHTMETER][case]:,.0f} instructions, bare {figures[BARE][case]:,.0f}")
    if not record:
        return _judge(changes, "times a bare forwarder's instructions", last.version, is_compared_in_run=False)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    recorded = last.with_figures(version, this_interpreter(), baseline.entry_of(figures))
    baseline.PATH.write_text(baseline.write(recorded))
    click.echo(f"recorded for {version} in {baseline.PATH.relative_to(ROOT)}")
    return None


def _judge(changes: Sequence[verdict.Change], unit: str, beside: str, *, is_compared_in_run: bool) -> None:
    for line in verdict.lines(changes, unit, beside) if changes else ():
        click.echo(line)
    refusal = verdict.refusal(changes, beside, is_compared_in_run=is_compared_in_run)
    if refusal:
        raise click.ClickException(refusal)


def _print_functions(counts: Mapping[str, Counts], cases: Sequence[str]) -> None:
    for case in cases:
        before: Counter[str] | None = counts[BESIDE].functions[case] if BESIDE in counts else None
        title = "instructions a request" if before is None else "more or fewer instructions a request"
        click.echo(f"{case}: {title}, in each function itself")
        for line in verdict.function_lines(counts[LIGHTMETER].functions[case], before, CASES[case].requests):
            click.echo(line)


def _tell(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    sys.exit(main())
