"""From slices and samples to medians, ratios and a table. Pure.

A ratio is worked out within a round, whose slices lie next to each other in time, and the median of the rounds is told:
what slows down the whole machine for a while changes a rate, but hardly a ratio.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

WANTED_SMALL = 0.60
WANTED_LARGE = 0.85
WANTED_ADDED_P50_MS = 1.0

MEASURE, SUBJECT = "bare", "lightmeter"
NAME_WIDTH, WIDTH = 18, 13


# --- What was measured ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice of load on one subject. ``rate`` is in requests/s or in GB/s."""

    rate: float
    requests: int
    failed: int
    seconds: float
    cpu_s: float
    store_cpu_s: float


@dataclass(frozen=True, slots=True)
class Percentiles:
    """One subject's answers at a constant rate within one round."""

    p50_ms: float
    p99_ms: float
    samples: int
    failed: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident megabytes of one process at three moments; None where that load was left out."""

    start_mb: float
    after_small_mb: float | None = None
    after_large_mb: float | None = None


@dataclass(slots=True)
class Figures:
    """Everything that one run measured, by the subjects' names, round by round."""

    seconds: float
    rounds: int
    small: dict[str, list[Slice]] = field(default_factory=dict)
    large: dict[str, list[Slice]] = field(default_factory=dict)
    events: dict[str, list[Slice]] = field(default_factory=dict)
    gemini: dict[str, list[Slice]] = field(default_factory=dict)
    latency: dict[str, list[Percentiles]] = field(default_factory=dict)
    late_p99_ms: float | None = None
    memory: dict[str, Memory] = field(default_factory=dict)
    metered_images: int = 0

    @property
    def loads(self) -> dict[str, dict[str, list[Slice]]]:
        """What was measured of throughput, by the kind of load."""
        kinds = {"small": self.small, "large": self.large, "events": self.events, "gemini": self.gemini}
        return {kind: load for kind, load in kinds.items() if load}

    @property
    def failed_requests(self) -> int:
        """Requests that got no proper answer, by wrk's count and the latency generator's."""
        slices = (slice_ for load in self.loads.values() for rounds in load.values() for slice_ in rounds)
        latencies = (percentiles for rounds in self.latency.values() for percentiles in rounds)
        return sum(slice_.failed for slice_ in slices) + sum(percentiles.failed for percentiles in latencies)

    @property
    def counted_requests(self) -> int:
        """The requests that Lightmeter answered by the load generators' count."""
        slices = [slice_ for load in self.loads.values() for slice_ in load.get(SUBJECT, [])]
        answered = sum(slice_.requests - slice_.failed for slice_ in slices)
        return answered + sum(percentiles.samples for percentiles in self.latency.get(SUBJECT, []))


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that ``share`` of all are not above."""
    return sorted(samples)[math.ceil(share * len(samples)) - 1]


def percentiles_of(samples: Sequence[float], failed: int) -> Percentiles:
    """The percentiles of some milliseconds."""
    return Percentiles(percentile(samples, 0.5), percentile(samples, 0.99), len(samples), failed)


# --- What is made of it -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Throughput:
    """One subject under full load: medians of its rounds, for each request where that is said."""

    rate: float
    of_bare: float
    cpu_us: float
    store_cpu_us: float
    busy: float
    """The share of the time that its process was on a CPU; where it is far below 1, something else was the limit."""
    failed: int


@dataclass(frozen=True, slots=True)
class Latency:
    """One subject at a constant rate: medians of its rounds; what is added is added to the direct call."""

    p50_ms: float
    p99_ms: float
    added_p50_ms: float
    added_p99_ms: float
    samples: int
    failed: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """A figure, and the one that is wanted."""

    name: str
    value: float
    wanted: str
    met: bool


def summarize_throughput(load: Mapping[str, Sequence[Slice]]) -> dict[str, Throughput]:
    """One line for each subject."""
    return {
        name: Throughput(
            rate=median(slice_.rate for slice_ in rounds),
            of_bare=median(one.rate / other.rate for one, other in zip(rounds, load[MEASURE], strict=True)),
            cpu_us=median(slice_.cpu_s / slice_.requests for slice_ in rounds) * 1e6,
            store_cpu_us=median(slice_.store_cpu_s / slice_.requests for slice_ in rounds) * 1e6,
            busy=median(slice_.cpu_s / slice_.seconds for slice_ in rounds),
            failed=sum(slice_.failed for slice_ in rounds),
        )
        for name, rounds in load.items()
    }


def summarize_latency(latency: Mapping[str, Sequence[Percentiles]], direct: str) -> dict[str, Latency]:
    """One line for each subject."""
    return {
        name: Latency(
            p50_ms=median(one.p50_ms for one in rounds),
            p99_ms=median(one.p99_ms for one in rounds),
            added_p50_ms=median(one.p50_ms - other.p50_ms for one, other in zip(rounds, latency[direct], strict=True)),
            added_p99_ms=median(one.p99_ms - other.p99_ms for one, other in zip(rounds, latency[direct], strict=True)),
            samples=sum(one.samples for one in rounds),
            failed=sum(one.failed for one in rounds),
        )
        for name, rounds in latency.items()
    }


def verdicts(figures: Figures, direct: str) -> list[Verdict]:
    """The wanted figures that were measured."""
    found = []
    for name, load, wanted in (("small", figures.small, WANTED_SMALL), ("large", figures.large, WANTED_LARGE)):
        if load:
            ratio = summarize_throughput(load)[SUBJECT].of_bare
            found.append(Verdict(f"{name} answers, of bare", ratio, f"at least {wanted:.2f}", ratio >= wanted))
    if figures.latency:
        added = summarize_latency(figures.latency, direct)[SUBJECT].added_p50_ms
        wanted_ms = f"below {WANTED_ADDED_P50_MS:g} ms"
        found.append(Verdict("p50 added, ms", added, wanted_ms, added < WANTED_ADDED_P50_MS))
    return found


# --- The table --------------------------------------------------------------------------------------------------------


def table(figures: Figures, direct: str, titles: Mapping[str, str]) -> str:
    """All of it for people; ``titles`` are those of the measurements."""
    lines: list[str] = []
    for kind, load in figures.loads.items():
        unit, form = ("requests/s", ",.0f") if kind == "small" else ("GB/s", ".2f")
        lines += [titles[kind], *_throughput_lines(load, unit, form), ""]
    if figures.latency:
        lines += [titles["latency"], *_latency_lines(figures, direct), ""]
    lines += ["Resident memory, MB", *_memory_lines(figures.memory), "", "Lightmeter, wanted and found"]
    lines += [
        f"  {verdict.name:<24}{verdict.value:>8.2f}   wanted {verdict.wanted:<14}{'met' if verdict.met else 'not met'}"
        for verdict in verdicts(figures, direct)
    ]
    return "\n".join(lines)


def _line(name: str, *cells: str) -> str:
    return f"  {name:<{NAME_WIDTH}}" + "".join(f"{cell:>{WIDTH}}" for cell in cells)


def _throughput_lines(load: Mapping[str, Sequence[Slice]], unit: str, form: str) -> Iterator[str]:
    yield _line("", unit, "of bare", "CPU us each", "store's CPU", "busy", "failed")
    for name, line in summarize_throughput(load).items():
        store = f"{line.store_cpu_us:,.0f}" if line.store_cpu_us else ""
        yield _line(
            name,
            format(line.rate, form),
            f"{line.of_bare:.2f}",
            f"{line.cpu_us:,.0f}",
            store,
            f"{line.busy:.0%}",
            str(line.failed),
        )


def _latency_lines(figures: Figures, direct: str) -> Iterator[str]:
    yield _line("", "p50 ms", "p99 ms", "added p50", "added p99", "samples", "failed")
    for name, line in summarize_latency(figures.latency, direct).items():
        added = ("", "") if name == direct else (f"{line.added_p50_ms:.2f}", f"{line.added_p99_ms:.2f}")
        yield _line(name, f"{line.p50_ms:.2f}", f"{line.p99_ms:.2f}", *added, f"{line.samples:,}", str(line.failed))
    if figures.late_p99_ms is not None:
        yield f"  (the generator itself was up to {figures.late_p99_ms:.2f} ms late for 99 % of the requests)"


def _memory_lines(memory: Mapping[str, Memory]) -> Iterator[str]:
    yield _line("", "at start", "after small", "after large")
    for name, line in memory.items():
        moments = (line.start_mb, line.after_small_mb, line.after_large_mb)
        yield _line(name, *("" if moment is None else f"{moment:.1f}" for moment in moments))
