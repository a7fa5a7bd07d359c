"""From slices and samples to medians and ratios. Pure.

A ratio is worked out within a round, whose slices lie next to each other in time, and the median of the rounds is told:
what slows down the whole machine for a while changes a rate, but hardly a ratio.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

MEASURE, SUBJECT = "bare", "lightmeter"


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
    provider_cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Percentiles:
    """One subject's answers at a constant rate within one round."""

    p50_ms: float
    p99_ms: float
    p999_ms: float
    samples: int
    failed: int


@dataclass(frozen=True, slots=True)
class Crowd:
    """Requests that one subject had under way at the same time, all waiting for the provider."""

    count: int
    cpu_s: float
    store_cpu_s: float
    provider_cpu_s: float
    start_mb: float
    full_mb: float
    added: Percentiles
    """Beyond what the provider waits."""


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
    loads: dict[str, dict[str, list[Slice]]] = field(default_factory=dict)
    """By the kind of load."""
    rate_hz: float = 0.0
    """That of the latencies."""
    latency: dict[str, list[Percentiles]] = field(default_factory=dict)
    late_p99_ms: float | None = None
    crowds: dict[int, dict[str, Crowd]] = field(default_factory=dict)
    """By how many were wanted at a time."""
    memory: dict[str, Memory] = field(default_factory=dict)
    metered_images: int = 0

    @property
    def failed_requests(self) -> int:
        """Requests that got no proper answer, by wrk's count and that of the other generators."""
        slices = (slice_ for load in self.loads.values() for rounds in load.values() for slice_ in rounds)
        latencies = (percentiles for rounds in self.latency.values() for percentiles in rounds)
        crowds = (crowd.added for crowd_of in self.crowds.values() for crowd in crowd_of.values())
        return sum(one.failed for each in (slices, latencies, crowds) for one in each)

    @property
    def counted_requests(self) -> int:
        """The requests that Lightmeter answered by the load generators' count."""
        slices = [slice_ for load in self.loads.values() for slice_ in load.get(SUBJECT, [])]
        answered = sum(slice_.requests - slice_.failed for slice_ in slices)
        crowds = [crowd_of[SUBJECT].added for crowd_of in self.crowds.values() if SUBJECT in crowd_of]
        return answered + sum(one.samples for one in [*self.latency.get(SUBJECT, []), *crowds])


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that ``share`` of all are not above."""
    return sorted(samples)[math.ceil(share * len(samples)) - 1]


def percentiles_of(samples: Sequence[float], failed: int) -> Percentiles:
    """The percentiles of some milliseconds."""
    p50_ms, p99_ms, p999_ms = (percentile(samples, share) for share in (0.5, 0.99, 0.999))
    return Percentiles(p50_ms, p99_ms, p999_ms, len(samples), failed)


# --- What is made of it -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Throughput:
    """One subject under full load: medians of its rounds, for each request where that is said."""

    cpu_us: float
    cpu_of_bare: float
    store_cpu_us: float
    provider_cpu_us: float
    rate: float
    of_bare: float
    busy: float
    """The share of the time that its process was on a CPU; where it is far below 1, something else was the limit."""
    failed: int


@dataclass(frozen=True, slots=True)
class Latency:
    """One subject at a constant rate: medians of its rounds; what is added is added to the direct call."""

    p50_ms: float
    p99_ms: float
    p999_ms: float
    added_p50_ms: float
    added_p99_ms: float
    added_p999_ms: float
    samples: int
    failed: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """One subject with a crowd that waits, for each request where that is said."""

    cpu_us: float
    store_cpu_us: float
    provider_cpu_us: float
    kilobytes: float
    """What its process has in use beyond what it had with none."""
    added: Percentiles


def summarize_throughput(load: Mapping[str, Sequence[Slice]]) -> dict[str, Throughput]:
    """One line for each subject."""
    return {name: _summarize(rounds, load[MEASURE]) for name, rounds in load.items()}


def _summarize(rounds: Sequence[Slice], measure: Sequence[Slice]) -> Throughput:
    pairs = list(zip(rounds, measure, strict=True))
    return Throughput(
        cpu_us=median(cpu_us(one) for one in rounds),
        cpu_of_bare=median(cpu_us(one) / cpu_us(other) for one, other in pairs),
        store_cpu_us=median(one.store_cpu_s / one.requests for one in rounds) * 1e6,
        provider_cpu_us=median(one.provider_cpu_s / one.requests for one in rounds) * 1e6,
        rate=median(one.rate for one in rounds),
        of_bare=median(one.rate / other.rate for one, other in pairs),
        busy=median(one.cpu_s / one.seconds for one in rounds),
        failed=sum(one.failed for one in rounds),
    )


def cpu_us(slice_: Slice) -> float:
    """Processor time of the subject's own processes for each request."""
    return slice_.cpu_s / slice_.requests * 1e6


def summarize_latency(latency: Mapping[str, Sequence[Percentiles]], direct: str) -> dict[str, Latency]:
    """One line for each subject."""
    return {name: _beside(rounds, latency[direct]) for name, rounds in latency.items()}


def _beside(rounds: Sequence[Percentiles], direct: Sequence[Percentiles]) -> Latency:
    pairs = list(zip(rounds, direct, strict=True))
    return Latency(
        p50_ms=median(one.p50_ms for one in rounds),
        p99_ms=median(one.p99_ms for one in rounds),
        p999_ms=median(one.p999_ms for one in rounds),
        added_p50_ms=median(one.p50_ms - other.p50_ms for one, other in pairs),
        added_p99_ms=median(one.p99_ms - other.p99_ms for one, other in pairs),
        added_p999_ms=median(one.p999_ms - other.p999_ms for one, other in pairs),
        samples=sum(one.samples for one in rounds),
        failed=sum(one.failed for one in rounds),
    )


def summarize_crowd(crowd_of: Mapping[str, Crowd]) -> dict[str, Waiting]:
    """One line for each subject."""
    return {
        name: Waiting(
            cpu_us=crowd.cpu_s / crowd.count * 1e6,
            store_cpu_us=crowd.store_cpu_s / crowd.count * 1e6,
            provider_cpu_us=crowd.provider_cpu_s / crowd.count * 1e6,
            kilobytes=(crowd.full_mb - crowd.start_mb) / crowd.count * 1_000,
            added=crowd.added,
        )
        for name, crowd in crowd_of.items()
    }
