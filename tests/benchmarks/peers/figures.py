"""What one run found of each peer, and what is made of it. Pure.

A ratio is worked out within a round, whose slices lie next to each other in time, and the median of the rounds is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median

LIGHTMETER, PORTKEY = "Lightmeter", "Portkey"
LITELLM, LITELLM_BUDGET = "LiteLLM without a budget", "LiteLLM with a budget"
NGINX, NGINX_BUFFERED, NGINX_LUA = "nginx unbuffered", "nginx buffered", "nginx + Lua + Redis"
BARE = "bare aiohttp forwarder"
ORDER = (NGINX, NGINX_BUFFERED, BARE, LIGHTMETER, NGINX_LUA, PORTKEY, LITELLM, LITELLM_BUDGET)
"""As they stand in the table: those that forward alone, then those that do more."""


class Enforcement(StrEnum):
    """What became of a budget when more asked at once than it has room for."""

    EXACT = "exact"
    LATE = "late"
    NONE = "none"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice of load on one peer. ``rate`` is in requests/s or in GB/s."""

    rate: float
    requests: int
    failed: int
    cpu_s: float
    store_cpu_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Budget:
    """How many got an image of the ``asked`` that asked at once, and of as many that asked when all had settled."""

    images: int
    asked: int
    first: int
    then: int

    @property
    def enforcement(self) -> Enforcement:
        """Exact where as many got through as it has room for, late where it only stopped those that came after."""
        if self.first == self.images and not self.then:
            return Enforcement.EXACT
        if self.first > self.images and not self.then:
            return Enforcement.LATE
        if self.first == self.asked and self.then == self.asked:
            return Enforcement.NONE
        return Enforcement.UNKNOWN


@dataclass(slots=True)
class Found:
    """Everything that one run found of one peer, round by round."""

    version: str
    small: list[Slice] = field(default_factory=list)
    large: list[Slice] = field(default_factory=list)
    alone: list[Slice] = field(default_factory=list)
    memory_mb: float = 0.0
    store_memory_mb: float = 0.0
    budgets: dict[str, Budget] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """Requests under load that got no proper answer."""
        return sum(slice_.failed for slice_ in (*self.small, *self.large, *self.alone))


@dataclass(slots=True)
class Run:
    """One run of the command: where, when, how, and of whom."""

    machine: str
    measured: str
    seconds: float
    rounds: int
    load: float
    """How many processes wanted a core on average in the minute before it began."""
    found: dict[str, Found] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def names(self) -> list[str]:
        """The peers that were measured, as they stand in the table."""
        return [name for name in ORDER if name in self.found]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many times as much as another Lightmeter does, and how many times are wanted.

    ``cpu_ratio`` is how many times as much processor time the other takes for each request. Other work on the machine
    hardly changes it.
    """

    what: str
    ratio: float
    wanted: float
    cpu_ratio: float

    @property
    def met(self) -> bool:
        """Whether it is as much as is wanted."""
        return self.ratio >= self.wanted


LITTLE_GIGABYTES = 0.1

WANTED = (
    ("small answers, of Portkey", "small", PORTKEY, 2.0),
    ("small answers, of LiteLLM without a budget", "small", LITELLM, 15.0),
    ("4 MB answers, of LiteLLM without a budget", "large", LITELLM, 5.0),
    ("4 MB answers, of unbuffered nginx", "large", NGINX, 0.9),
)


def rate(slices: Sequence[Slice]) -> float:
    """What goes through: the median of the rounds."""
    return median(slice_.rate for slice_ in slices)


def cpu_us(slices: Sequence[Slice]) -> tuple[float, float]:
    """Processor time of one request: the peer's own, and its store's."""
    own = median(slice_.cpu_s / slice_.requests for slice_ in slices) * 1e6
    return own, median(slice_.store_cpu_s / slice_.requests for slice_ in slices) * 1e6


def percentiles_ms(slices: Sequence[Slice]) -> tuple[float, float]:
    """p50 and p99: of each the median of the rounds."""
    return median(slice_.p50_ms for slice_ in slices), median(slice_.p99_ms for slice_ in slices)


def verdicts(found: Mapping[str, Found]) -> list[Verdict]:
    """What is wanted of Lightmeter beside those that were measured."""
    told = []
    for what, kind, other, wanted in WANTED:
        if other in found and LIGHTMETER in found:
            mine, theirs = _slices(found[LIGHTMETER], kind), _slices(found[other], kind)
            ratios = [one.rate / another.rate for one, another in zip(mine, theirs, strict=True)]
            told.append(Verdict(what, median(ratios), wanted, cpu_us(theirs)[0] / cpu_us(mine)[0]))
    return told


def gigabytes(value: float) -> str:
    """GB/s for people: what is little has one figure more."""
    return f"{value:.2f}" if value >= LITTLE_GIGABYTES else f"{value:.3f}"


def _slices(found: Found, kind: str) -> list[Slice]:
    return found.small if kind == "small" else found.large
