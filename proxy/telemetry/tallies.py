"""Counters and histograms for the hot path: plain numbers, which prometheus_client turns into its text format.

The library's own counters take a lock, and its histograms walk through their buckets, for each of some twenty updates a
request; together they were a tenth of the gateway's work on a small answer. This process has one thread, and needs no
lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from proxy.domain.records import record

Labels = tuple[str, ...]

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


class Keeper(Protocol):
    """Where numbers are kept so that another process sees them."""

    def values(self, family: Family) -> defaultdict[Labels, float]:
        """A number for each combination of label values."""

    def numbers(self, family: Family, labels: Labels) -> list[float]:
        """The buckets of one series of a histogram and, behind them, its sum."""


@record
class Family:
    """What a metric is, beside its numbers. ``combine`` is how those of several processes become one."""

    kind: str
    name: str
    text: str
    label_names: Labels
    combine: str = "sum"
    bounds_s: tuple[float, ...] = ()


class Tally:
    """A counter or a gauge: a number for each combination of label values."""

    __slots__ = ("_family", "values")

    def __init__(self, family: Family, keeper: Keeper | None = None) -> None:
        """Its name is without ``_total``."""
        self._family = family
        self.values: defaultdict[Labels, float] = defaultdict(float) if keeper is None else keeper.values(family)
        if not family.label_names:
            self.values[()] = 0.0

    def collect(self) -> Metric:
        """The samples as they are now."""
        return tally_family(self._family, self.values)


class Timing:
    """A histogram of seconds for each combination of label values."""

    __slots__ = ("_bounds", "_family", "_series")

    def __init__(self, family: Family, keeper: Keeper | None = None) -> None:
        """Its bounds are the upper ends of the buckets, ascending; one without an end is added."""
        self._family = family
        self._bounds = family.bounds_s
        # Behind the counts of its buckets, the sum of seconds.
        self._series: defaultdict[Labels, list[float]]
        if keeper is None:
            self._series = defaultdict(partial(_zeros, len(family.bounds_s) + 2))
        else:
            self._series = _Made(partial(keeper.numbers, family))

    def observe(self, labels: Labels, seconds: float) -> None:
        """Count one that took ``seconds``."""
        series = self._series[labels]
        series[bisect_left(self._bounds, seconds)] += 1
        series[-1] += seconds

    def counts(self, labels: Labels) -> list[float]:
        """How many fell between each bound and the one before, and behind the last."""
        return list(self._series[labels][: len(self._bounds) + 1])

    def collect(self) -> Metric:
        """The samples as they are now; a bucket holds all that are not longer than its bound."""
        return timing_family(self._family, self._series)


class Families:
    """Makes metrics whose names begin alike, and keeps them for the registry."""

    def __init__(self, prefix: str, keeper: Keeper | None = None) -> None:
        """``prefix`` leads every name. Numbers are this process's own, or kept by ``keeper``."""
        self.parts: list[Tally | Timing] = []
        self._prefix = prefix
        self._keeper = keeper

    def counter(self, name: str, text: str, *labels: str) -> Tally:
        """One that only grows; ``name`` is without ``_total``."""
        return self._tally(Family(COUNTER, self._prefix + name, text, labels))

    def gauge(self, name: str, text: str, *labels: str, combine: str = "sum") -> Tally:
        """One that goes up and down; over several processes, it is their sum, ``max`` or ``min``."""
        return self._tally(Family(GAUGE, self._prefix + name, text, labels, combine))

    def timing(self, name: str, text: str, bounds_s: tuple[float, ...], *labels: str) -> Timing:
        """A histogram of seconds."""
        family = Family(HISTOGRAM, self._prefix + name, text, labels, bounds_s=bounds_s)
        self.parts.append(timing := Timing(family, self._keeper))
        return timing

    def _tally(self, family: Family) -> Tally:
        self.parts.append(tally := Tally(family, self._keeper))
        return tally


class TallyCollector(Collector):
    """What the registry asks at a scrape."""

    def __init__(self, parts: Iterable[Tally | Timing]) -> None:
        """Collect from ``parts``."""
        self._parts = tuple(parts)

    def collect(self) -> Iterator[Metric]:
        """Every metric."""
        for part in self._parts:
            yield part.collect()


class _Made(defaultdict[Labels, list[float]]):
    """Makes what is missing by its key."""

    def __init__(self, make: Callable[[Labels], list[float]]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, labels: Labels) -> list[float]:
        made = self[labels] = self._make(labels)
        return made


def _zeros(count: int) -> list[float]:
    return [0] * count


def tally_family(family: Family, values: Mapping[Labels, float]) -> Metric:
    """The samples of a counter or a gauge."""
    kind = CounterMetricFamily if family.kind == COUNTER else GaugeMetricFamily
    told = kind(family.name, family.text, labels=family.label_names)
    for labels, value in values.items():
        told.add_metric(labels, value)
    return told


def timing_family(family: Family, series: Mapping[Labels, Iterable[float]]) -> Metric:
    """The samples of a histogram; a bucket holds all that are not longer than its bound."""
    told = HistogramMetricFamily(family.name, family.text, labels=family.label_names)
    bounds = [*map(floatToGoString, family.bounds_s), "+Inf"]
    for labels, (*counts, seconds) in series.items():
        buckets, sum_so_far = [], 0.0
        for bound, count in zip(bounds, counts, strict=True):
            sum_so_far += count
            buckets.append((bound, sum_so_far))
        told.add_metric(labels, buckets, seconds)
    return told
