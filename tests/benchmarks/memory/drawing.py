"""A soak as a picture. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from tests.benchmarks.memory.trend import Band, Trend

WIDTH, LEFT, RIGHT = 860, 70, 20
PANEL, GAP, TOP, BOTTOM = 150, 44, 40, 30
INK, LIGHT, BAND, LINE, FIT = "#333", "#ddd", "#b9d3ee", "#1f5f9f", "#c0392b"
TICKS = 4
MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Panel:
    """One measure over time: a band from its least to its most, and the straight line through the least."""

    title: str
    bands: Sequence[Band]
    trend: Trend


def draw(panels: Sequence[Panel], title: str) -> str:
    """The picture, as SVG."""
    height = TOP + len(panels) * (PANEL + GAP) + BOTTOM
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
    for number, panel in enumerate(panels):
        lines += _panel(panel, TOP + number * (PANEL + GAP) + 16)
    return "\n".join([*lines, "</svg>", ""])


def _panel(panel: Panel, top: float) -> Iterator[str]:
    end_s = panel.bands[-1].seconds
    step = _step(max(band.most for band in panel.bands))
    most = step * math.ceil(max(band.most for band in panel.bands) / step)

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / end_s

    def y(value: float) -> float:
        return top + PANEL * (1 - value / most)

    def points(of: Iterator[tuple[float, float]]) -> str:
        return " ".join(f"{x(seconds):.1f},{y(value):.1f}" for seconds, value in of)

    yield f'<text x="{LEFT}" y="{top - 8:.0f}">{escape(panel.title)}</text>'
    for number in range(round(most / step) + 1):
        at = y(number * step)
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="{LIGHT}"/>'
        yield f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{number * step:,g}</text>'
    minutes = _step(end_s / MINUTE_S)
    for number in range(int(end_s / MINUTE_S / minutes) + 1):
        at = x(number * minutes * MINUTE_S)
        yield f'<text x="{at:.1f}" y="{top + PANEL + 16:.0f}" text-anchor="middle">{number * minutes:g} min</text>'
    upper = ((band.seconds, band.most) for band in panel.bands)
    lower = [(band.seconds, band.least) for band in panel.bands]
    yield f'<polygon points="{points(upper)} {points(iter(lower[::-1]))}" fill="{BAND}"/>'
    yield f'<polyline points="{points(iter(lower))}" fill="none" stroke="{LINE}" stroke-width="1.5"/>'
    ends = (panel.trend.start_s, panel.trend.end_s)
    fit = points((seconds, panel.trend.at(seconds)) for seconds in ends)
    yield f'<polyline points="{fit}" fill="none" stroke="{FIT}" stroke-width="1.5" stroke-dasharray="6 4"/>'


def _step(most: float) -> float:
    """The distance of some ticks up to ``most``: 1, 2 or 5 times a power of ten."""
    rough = max(most, 1e-9) / TICKS
    power = math.pow(10, math.floor(math.log10(rough)))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
