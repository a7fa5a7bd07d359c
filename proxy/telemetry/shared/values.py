"""A process's numbers in shared memory, as its metrics write them and as another process reads them."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import cast

import orjson
from typing_extensions import override

from proxy.machine.segment import Segment, SegmentFullError
from proxy.telemetry.tallies import Family, Labels

logger = logging.getLogger(__name__)

# Called some twenty times a request: to look it up by super() would take longer than all else that is done.
_set = dict.__setitem__


class SharedNumbers:
    """Keeps the metrics of this process in a segment. A killed process has lost none of them."""

    def __init__(self, segment: Segment) -> None:
        """Add series to ``segment``, which no other process does."""
        self._segment = segment
        self._is_full = False

    def values(self, family: Family) -> defaultdict[Labels, float]:
        """A number for each combination of label values."""
        return SharedValues(lambda labels: self._add(family, labels, 1))

    def numbers(self, family: Family, labels: Labels) -> list[float]:
        """The buckets of one series of a histogram and, behind them, its sum."""
        # Items are got and set as those of a list are, and no more is done to it.
        return cast("list[float]", self._add(family, labels, len(family.bounds_s) + 2))

    def _add(self, family: Family, labels: Labels, count: int) -> memoryview[float]:
        try:
            return self._segment.add(head_of(family, labels), count)
        except SegmentFullError:
            if not self._is_full:
                logger.error("the shared memory of metrics is full: %s and all new series are left out", family.name)
            self._is_full = True
            return memoryview(bytearray(8 * count)).cast("d")


class SharedValues(defaultdict[Labels, float]):
    """Numbers by label values, each of which stands in shared memory as well. One that is left out there is no number.

    They are read from the dictionary itself, which is as fast as any.
    """

    def __init__(self, add: Callable[[Labels], memoryview[float]]) -> None:
        """Make a place by ``add`` for each combination of label values."""
        super().__init__(float)
        self._add = add
        self._cells: dict[Labels, memoryview[float]] = {}

    @override
    def __setitem__(self, labels: Labels, value: float) -> None:
        _set(self, labels, value)
        try:
            self._cells[labels][0] = value
        except KeyError:
            cell = self._cells[labels] = self._add(labels)
            cell[0] = value

    @override
    def __delitem__(self, labels: Labels) -> None:
        super().__delitem__(labels)
        self._cells[labels][0] = math.nan

    @override
    def clear(self) -> None:
        """Leave all of them out."""
        super().clear()
        for cell in self._cells.values():
            cell[0] = math.nan


def head_of(family: Family, labels: Labels) -> bytes:
    """What is written before the numbers of one series."""
    return orjson.dumps(
        [family.kind, family.name, family.text, family.label_names, family.combine, family.bounds_s, labels]
    )


def read_series(segment: Segment) -> Iterator[tuple[Family, Labels, memoryview[float]]]:
    """Each series of a segment that is not left out."""
    for head, numbers in segment.series():
        kind, name, text, names, combine, bounds_s, labels = orjson.loads(head)
        if not math.isnan(numbers[0]):
            family = Family(kind, name, text, tuple(names), combine, tuple(map(float, bounds_s)))
            yield family, tuple(labels), numbers
