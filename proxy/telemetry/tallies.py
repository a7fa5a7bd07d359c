"""Counters and histograms for the hot path: plain numbers, which prometheus_client turns into its text format.

The library's own counters take a lock, and its histograms walk through their buckets, for each of some twenty updates a
request; together they were a tenth of the gateway's work on a small answer. This process has one thread, and needs no
lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]


class Tally:
    """A counter or a gauge: a number for each combination of label values."""

    __slots__ = ("_family", "_label_names", "_name", "_text", "values")

    def __init__(
        self, family: type[CounterMetricFamily | GaugeMetricFamily], name: str, text: str, label_names: Labels
    ) -> None:
        """``name`` is without ``_total``."""
        self._family = family
        self._name = name
        self._text = text
        self._label_names = label_names
        self.values: defaultdict[Labels, float] = defaultdict(float)
        if not label_names:
            self.values[()] = 0.0

    def collect(self) -> Metric:
        """The samples as they are now."""
        family = self._family(self._name, self._text, labels=self._label_names)
        for labels, value in self.values.items():
            family.add_metric(labels, value)
        return family


class Timing:
    """A histogram of seconds for each combination of label values."""

    __slots__ = ("_bounds", "_label_names", "_name", "_series", "_text")

    def __init__(self, name: str, text: str, bounds_s: tuple[float, ...], label_names: Labels) -> None:
        """``bounds_s`` are the upper ends of the buckets, ascending; one without an end is added."""
        self._name = name
        self._text = text
        self._bounds = bounds_s
        self._label_names = label_names
        # Behind the counts of its buckets, the sum of seconds.
        self._series: defaultdict[Labels, list[float]] = defaultdict(lambda: [0] * (len(bounds_s) + 2))

    def observe(self, labels: Labels, seconds: float) -> None:
        """Count one that took ``seconds``."""
        series = self._series[labels]
        series[bisect_left(self._bounds, seconds)] += 1
        series[-1] += seconds

    def collect(self) -> Metric:
        """The samples as they are now; a bucket holds all that are not longer than its bound."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._label_names)
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        for labels, (*counts, seconds) in self._series.items():
            buckets, sum_so_far = [], 0.0
            for bound, count in zip(bounds, counts, strict=True):
                sum_so_far += count
                buckets.append((bound, sum_so_far))
            family.add_metric(labels, buckets, seconds)
        return family


class Families:
    """Makes metrics whose names begin alike, and keeps them for the registry."""

    def __init__(self, prefix: str) -> None:
        """``prefix`` leads every name."""
        self.parts: list[Tally | Timing] = []
        self._prefix = prefix

    def counter(self, name: str, text: str, *labels: str) -> Tally:
        """One that only grows; ``name`` is without ``_total``."""
        return self._tally(CounterMetricFamily, name, text, labels)

    def gauge(self, name: str, text: str, *labels: str) -> Tally:
        """One that goes up and down."""
        return self._tally(GaugeMetricFamily, name, text, labels)

    def timing(self, name: str, text: str, bounds_s: tuple[float, ...], *labels: str) -> Timing:
        """A histogram of seconds."""
        self.parts.append(timing := Timing(self._prefix + name, text, bounds_s, labels))
        return timing

    def _tally(
        self, family: type[CounterMetricFamily | GaugeMetricFamily], name: str, text: str, labels: Labels
    ) -> Tally:
        self.parts.append(tally := Tally(family, self._prefix + name, text, labels))
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
