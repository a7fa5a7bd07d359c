"""The metrics of all processes of one gateway as one: those that live, and what those that are gone have counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from proxy.machine.segment import Segment, SegmentFullError
from proxy.telemetry.shared.values import head_of, read_series
from proxy.telemetry.tallies import COUNTER, GAUGE, HISTOGRAM, Family, Labels, tally_family, timing_family

HELD = "lightmeter_quota_units_held"
UNITS = "lightmeter_quota_units"
RELEASED = "released"


class Gone:
    """What the processes that are gone have counted. Their gauges went with them."""

    def __init__(self, segment: Segment) -> None:
        """Add it up in ``segment``, which may hold something from before."""
        self.segment = segment
        self._cells = dict(segment.series())
        self._units: Family | None = None

    def add(self, segment: Segment) -> None:
        """A process is gone that has kept its numbers in ``segment``.

        What it held is counted as released: its leases expire. So what was reserved stays the sum of what became of it.
        """
        held: dict[Labels, float] = {}
        for family, labels, numbers in read_series(segment):
            if family.kind != GAUGE:
                self._count(family, labels, numbers)
            if family.name == UNITS:
                self._units = family
            elif family.name == HELD and numbers[0]:
                held[labels] = numbers[0]
        if self._units is not None:
            for (model,), units in held.items():
                self._count(self._units, (model, RELEASED), (units,))

    def _count(self, family: Family, labels: Labels, numbers: Iterable[float]) -> None:
        numbers = list(numbers)
        head = head_of(family, labels)
        cell = self._cells.get(head)
        if cell is None:
            try:
                cell = self._cells[head] = self.segment.add(head, len(numbers))
            except SegmentFullError:
                return
        for index, number in enumerate(numbers):
            cell[index] += number


class TotalsCollector(Collector):
    """What the registry asks at a scrape: every metric of ``segments`` added up."""

    def __init__(self) -> None:
        """Of no process yet."""
        self.segments: list[Segment] = []

    def collect(self) -> Iterator[Metric]:
        """Every metric, in the order of its first appearance."""
        series: dict[Family, dict[Labels, list[float]]] = {}
        for segment in self.segments:
            for family, labels, numbers in read_series(segment):
                known = series.setdefault(family, {})
                mine = list(numbers)
                other = known.get(labels)
                known[labels] = mine if other is None else _combined(family, other, mine)
        for family, of_labels in series.items():
            if family.kind == HISTOGRAM:
                yield timing_family(family, of_labels)
            else:
                yield tally_family(family, {labels: numbers[0] for labels, numbers in of_labels.items()})


def _combined(family: Family, one: list[float], other: list[float]) -> list[float]:
    if family.kind == COUNTER or family.combine == "sum":
        return [mine + its for mine, its in zip(one, other, strict=True)]
    return [max(one[0], other[0]) if family.combine == "max" else min(one[0], other[0])]
