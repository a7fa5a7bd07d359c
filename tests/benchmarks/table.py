"""What people read of a run: one table, and what was wanted beside what was found. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tests.benchmarks.figures import (
    SUBJECT,
    Figures,
    Memory,
    summarize_crowd,
    summarize_latency,
    summarize_throughput,
)

NGINX, WORKERS = "nginx", "2 workers"
LINE_WIDTH, SUBJECT_WIDTH, WIDTH = 12, 18, 12
KILOBYTES_CROWD = 9_000
"""How many have to be in flight for the bound on the memory of each: with few, it is noise."""


# --- What is wanted ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """A figure, and the one that is wanted."""

    name: str
    value: float
    wanted: str
    met: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """A bound, and where its figure comes from; None where that was not measured."""

    name: str
    bound: float
    is_most: bool
    find: Callable[[Figures, str], float | None]

    def verdict(self, figures: Figures, direct: str) -> Verdict | None:
        """What was found, where it was measured."""
        value = self.find(figures, direct)
        if value is None:
            return None
        met = value <= self.bound if self.is_most else value >= self.bound
        return Verdict(self.name, value, f"{'at most' if self.is_most else 'at least'} {self.bound:g}", met)


def _cpu_of_bare(kind: str) -> Callable[[Figures, str], float | None]:
    def find(figures: Figures, _direct: str) -> float | None:
        load = figures.loads.get(kind)
        return summarize_throughput(load)[SUBJECT].cpu_of_bare if load else None

    return find


def _rate_of_bare(kind: str) -> Callable[[Figures, str], float | None]:
    def find(figures: Figures, _direct: str) -> float | None:
        load = figures.loads.get(kind)
        return summarize_throughput(load)[SUBJECT].of_bare if load else None

    return find


def _large_of_nginx(figures: Figures, _direct: str) -> float | None:
    load = figures.loads.get("large", {})
    if NGINX not in load:
        return None
    summary = summarize_throughput(load)
    return summary[SUBJECT].of_bare / summary[NGINX].of_bare


def _store_us(figures: Figures, _direct: str) -> float | None:
    load = figures.loads.get("small")
    return summarize_throughput(load)[SUBJECT].store_cpu_us if load else None


def _added_p99_ms(figures: Figures, direct: str) -> float | None:
    return summarize_latency(figures.latency, direct)[SUBJECT].added_p99_ms if figures.latency else None


def _kilobytes(figures: Figures, _direct: str) -> float | None:
    crowd_of = figures.crowds.get(KILOBYTES_CROWD)
    return summarize_crowd(crowd_of)[SUBJECT].kilobytes if crowd_of else None


def _work_of_two(figures: Figures, _direct: str) -> float | None:
    load = figures.loads.get("small", {})
    if WORKERS not in load:
        return None
    summary = summarize_throughput(load)
    return 2 * summary[SUBJECT].cpu_of_bare / summary[WORKERS].cpu_of_bare


WANTED = (
    Wanted("small: processor time, of bare", 1.3, True, _cpu_of_bare("small")),
    Wanted("small: requests/s, of bare", 0.8, False, _rate_of_bare("small")),
    Wanted("small: us of the store", 40, True, _store_us),
    Wanted("large: processor time, of bare", 0.9, True, _cpu_of_bare("large")),
    Wanted("large: GB/s, of bare", 1.1, False, _rate_of_bare("large")),
    Wanted("large: GB/s, of nginx", 0.9, False, _large_of_nginx),
    Wanted("p99 added at half load, ms", 3, True, _added_p99_ms),
    Wanted("9,000 in flight: kB each", 32, True, _kilobytes),
    Wanted("two workers: work of one", 1.8, False, _work_of_two),
)


def verdicts(figures: Figures, direct: str) -> list[Verdict]:
    """The wanted figures that were measured."""
    found = (wanted.verdict(figures, direct) for wanted in WANTED)
    return [verdict for verdict in found if verdict is not None]


# --- The table --------------------------------------------------------------------------------------------------------


def table(figures: Figures, direct: str, titles: Mapping[str, str]) -> str:
    """All of it for people; ``titles`` say what each line is."""
    lines: list[str] = []
    if figures.loads:
        lines += _loads(figures, titles)
    if figures.latency or figures.crowds:
        lines += _latencies(figures, direct, titles)
    lines += ["Resident memory, MB", *_memory_lines(figures.memory), "", "Lightmeter, wanted and found"]
    lines += [
        f"  {verdict.name:<34}{verdict.value:>8.2f}   wanted {verdict.wanted:<15}{'met' if verdict.met else 'not met'}"
        for verdict in verdicts(figures, direct)
    ]
    return "\n".join(lines)


def _line(line: str, subject: str, *cells: str) -> str:
    return f"{line:<{LINE_WIDTH}}{subject:<{SUBJECT_WIDTH}}" + "".join(f"{cell:>{WIDTH}}" for cell in cells)


def _loads(figures: Figures, titles: Mapping[str, str]) -> Iterator[str]:
    yield _line("", "", "CPU us each", "of bare", "store us", "provider us", "a second", "of bare", "busy", "failed")
    for kind, load in figures.loads.items():
        for index, (name, line) in enumerate(summarize_throughput(load).items()):
            rate = f"{line.rate:,.0f}" if kind in {"small", "uploads"} else f"{line.rate:.2f} GB"
            yield _line(
                "" if index else kind,
                name,
                f"{line.cpu_us:,.0f}",
                f"{line.cpu_of_bare:.2f}",
                f"{line.store_cpu_us:,.0f}" if line.store_cpu_us else "",
                f"{line.provider_cpu_us:,.0f}" if line.provider_cpu_us else "",
                rate,
                f"{line.of_bare:.2f}",
                f"{line.busy:.0%}",
                str(line.failed),
            )
    yield ""
    yield from (f"{kind}: {titles[kind]}" for kind in figures.loads)
    yield ""


def _latencies(figures: Figures, direct: str, titles: Mapping[str, str]) -> Iterator[str]:
    yield _line("", "", "added p50", "p99", "p99.9 ms", "direct p50", "kB each", "CPU us each", "samples", "failed")
    for index, (name, line) in enumerate(summarize_latency(figures.latency, direct).items() if figures.latency else ()):
        added = [f"{value:.2f}" for value in (line.added_p50_ms, line.added_p99_ms, line.added_p999_ms)]
        cells = ["", "", "", f"{line.p50_ms:.2f}"] if name == direct else [*added, ""]
        yield _line("" if index else "latency", name, *cells, "", "", f"{line.samples:,}", str(line.failed))
    for count, crowd_of in figures.crowds.items():
        for index, (name, waiting) in enumerate(summarize_crowd(crowd_of).items()):
            yield _line(
                "" if index else f"{count:,}",
                name,
                f"{waiting.added.p50_ms:.2f}",
                f"{waiting.added.p99_ms:.2f}",
                f"{waiting.added.p999_ms:.2f}",
                "",
                f"{waiting.kilobytes:.1f}",
                f"{waiting.cpu_us:,.0f}",
                f"{waiting.added.samples:,}",
                str(waiting.added.failed),
            )
    yield ""
    if figures.latency:
        late = f"; 99 % were sent within {figures.late_p99_ms:.2f} ms of their time" if figures.late_p99_ms else ""
        yield f"latency: {titles['latency']}{late}"
    if figures.crowds:
        yield f"{', '.join(f'{count:,}' for count in figures.crowds)}: {titles['crowd']}"
    yield ""


def _memory_lines(memory: Mapping[str, Memory]) -> Iterator[str]:
    yield _line("", "", "at start", "after small", "after large")
    for name, line in memory.items():
        moments = (line.start_mb, line.after_small_mb, line.after_large_mb)
        yield _line("", name, *("" if moment is None else f"{moment:.1f}" for moment in moments))
