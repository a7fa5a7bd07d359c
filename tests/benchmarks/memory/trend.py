"""Whether a row of samples is flat. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

WARM_UP_PART = 3
"""The first of so many parts is left out: until then, caches fill."""

GROWTH_MOST = 0.03
"""By what part of its median something may grow in the rest, and still be called flat."""

POINTS_LEAST = 6

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Trend:
    """A straight line through samples, from ``start_s`` to ``end_s``: its ``middle``, and its ``slope`` a second."""

    start_s: float
    end_s: float
    middle: float
    slope: float

    @property
    def growth(self) -> float:
        """From its beginning to its end; what shrinks is negative."""
        return self.slope * (self.end_s - self.start_s)

    def is_flat(self, slack: float) -> bool:
        """Whether it grows by no more than 3 %, or by ``slack``."""
        return self.growth <= max(GROWTH_MOST * self.middle, slack)

    def at(self, seconds: float) -> float:
        """The line's value."""
        return self.middle + self.slope * (seconds - (self.start_s + self.end_s) / 2)


def trend_of(points: Sequence[Point]) -> Trend:
    """By the median of the slopes between all pairs (Theil and Sen), which single peaks do not move.

    ``points`` are seconds and values, in order. The first third is left out. Raises ValueError for fewer than six.
    """
    if len(points) < POINTS_LEAST:
        raise ValueError(f"{len(points)} points say nothing of a trend")
    looked_at = points[len(points) // WARM_UP_PART :]
    pairs = combinations(looked_at, 2)
    slope = median((later[1] - first[1]) / (later[0] - first[0]) for first, later in pairs if later[0] > first[0])
    start_s, end_s = looked_at[0][0], looked_at[-1][0]
    middle_s = (start_s + end_s) / 2
    return Trend(start_s, end_s, median(value - slope * (at - middle_s) for at, value in looked_at), slope)


@dataclass(frozen=True, slots=True)
class Band:
    """The least and the most of some samples that follow one another, at the time of the first."""

    seconds: float
    least: float
    most: float


def bands(points: Sequence[Point], of: int) -> list[Band]:
    """One for each ``of`` samples; what is left at the end makes none."""
    found = []
    for start in range(0, len(points) - of + 1, of):
        values = [value for _, value in points[start : start + of]]
        found.append(Band(points[start][0], min(values), max(values)))
    return found
