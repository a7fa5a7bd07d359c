"""What is said of a soak: which measures are flat, and in which words. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.benchmarks.memory.drawing import Panel
from tests.benchmarks.memory.sampling import Sample
from tests.benchmarks.memory.trend import Trend, bands, trend_of

MEGABYTE = 10**6
BAND_SAMPLES = 10
"""Samples that are one band; the trend is that of the least of each, which stays when large bodies have gone."""


@dataclass(frozen=True, slots=True)
class Measure:
    """What has to be flat. Growth by ``slack`` is none, for load that comes and goes changes counts by as much."""

    name: str
    unit: str
    value: Callable[[Sample], float]
    slack: float


MEASURES = (
    Measure("memory", "MB", lambda sample: sample.memory_bytes / MEGABYTE, 1),
    Measure("open files and sockets", "", lambda sample: sample.descriptors, 10),
    Measure("tasks of the event loop", "", lambda sample: sample.tasks, 10),
    Measure("files in the data folder", "", lambda sample: sample.files, 2),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one measure."""

    measure: Measure
    panel: Panel

    @property
    def trend(self) -> Trend:
        """The straight line through the least of each band."""
        return self.panel.trend

    @property
    def is_flat(self) -> bool:
        """Whether it grows by nothing to speak of."""
        return self.trend.is_flat(self.measure.slack)

    def __str__(self) -> str:
        return f"{self.panel.title}: {'flat' if self.is_flat else 'IT GROWS'}"


def judge(samples: Sequence[Sample], per_band: int = BAND_SAMPLES) -> list[Verdict]:
    """One for each measure. Raises ValueError where there are too few samples."""
    verdicts = []
    for measure in MEASURES:
        found = bands([(sample.seconds, measure.value(sample)) for sample in samples], per_band)
        trend = trend_of([(band.seconds, band.least) for band in found])
        unit = f" {measure.unit}".rstrip()
        most = max(band.most for band in found)
        minutes = (trend.end_s - trend.start_s) / 60
        title = (
            f"{measure.name}: {trend.middle:.3g} to {most:.3g}{unit}; "
            f"the least changed by {trend.growth:+.2g}{unit} in the last {minutes:.0f} minutes"
        )
        verdicts.append(Verdict(measure, Panel(title, found, trend)))
    return verdicts


def store_bytes_a_request(samples: Sequence[Sample], per_band: int = BAND_SAMPLES) -> float:
    """What the store grows by: its ledger, and the ids of what is settled."""
    found = bands([(sample.answered, sample.store_bytes) for sample in samples], per_band)
    # While a child of it writes its file, the two share their pages, and each counts half of them.
    return trend_of([(band.seconds, band.most) for band in found]).slope
