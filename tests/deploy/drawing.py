"""A dashboard as a picture, drawn with Pillow from what Prometheus answers to its queries."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from tests.deploy.units import write_value

SCALE = 2
"""Drawn so much larger, then made smaller, so that slanted lines are smooth."""

COLOURS_TRIED = (160, 96, 64, 48)
ROOM_BYTES = 195_000

COLUMN, ROW, GAP = 56, 32, 4
HEADER = 58
BACKGROUND, CARD, EDGE, GRID = "#111217", "#181b1f", "#2c3235", "#2a2e33"
TEXT, FAINT = "#d8d9da", "#8e9297"
COLOURS = {
    "green": "#73bf69", "red": "#f2495c", "orange": "#ff9830", "blue": "#5794f2", "yellow": "#fade2a",
    "purple": "#b877d9", "dark-red": "#c4162a", "light-blue": "#8ab8ff",
}  # fmt: skip
PALETTE = ("#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0", "#508642", "#cca300")
TICK_STEPS = (1, 2, 2.5, 5, 10)
TIME_STEPS_S = (5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600)
_legend = re.compile(r"\{\{\s*(\w+)\s*\}\}")

Box = tuple[float, float, float, float]
Points = list[tuple[float, float]]


@dataclass
class Line:
    """One series of a panel: its name, labels, and (time in seconds, value) in order."""

    name: str
    labels: Mapping[str, str]
    points: Points
    reference: str = "A"


@dataclass
class Drawn:
    """A panel and the answers to its queries."""

    panel: Mapping[str, Any]
    lines: list[Line] = field(default_factory=list)

    @property
    def defaults(self) -> Mapping[str, Any]:
        """How all of its series are shown."""
        defaults: Mapping[str, Any] = self.panel["fieldConfig"]["defaults"]
        return defaults

    @property
    def unit(self) -> str:
        """Grafana's name of the unit."""
        return str(self.defaults["unit"])

    def override(self, name: str, property_id: str) -> Any:
        """What one series by its name has otherwise, None where it has not."""
        for override in self.panel["fieldConfig"]["overrides"]:
            if override["matcher"]["options"] == name:
                for each in override["properties"]:
                    if each["id"] == property_id:
                        return each["value"]
        return None


def line_name(legend: str, labels: Mapping[str, str]) -> str:
    """The name of a series by its panel's legend."""
    return _legend.sub(lambda found: labels.get(found[1], ""), legend).strip() or "value"


class Picture:
    """A canvas of Grafana's grid."""

    def __init__(self, title: str, subtitle: str, rows: int) -> None:
        """``rows`` are those of the grid."""
        self.width, self.height = COLUMN * 24 + 2 * GAP, HEADER + ROW * rows + 2 * GAP
        self._image = Image.new("RGB", (self.width * SCALE, self.height * SCALE), BACKGROUND)
        self._draw = ImageDraw.Draw(self._image, "RGBA")
        self._fonts: dict[int, ImageFont.FreeTypeFont | ImageFont.ImageFont] = {}
        self.text(16, 12, title, size=20)
        self.text(16, 36, subtitle, size=12, colour=FAINT)

    def save(self, path: str) -> None:
        """Write a PNG with as many colours as a small file has room for."""
        small = self._image.resize((self.width, self.height), Image.Resampling.LANCZOS)
        for colours in COLOURS_TRIED:
            small.quantize(colours, kmeans=1, dither=Image.Dither.NONE).save(path, optimize=True)
            if Path(path).stat().st_size <= ROOM_BYTES:
                return

    def add(self, drawn: Drawn) -> None:
        """One panel, or the heading of a row."""
        place = drawn.panel["gridPos"]
        left, top = GAP + place["x"] * COLUMN, HEADER + place["y"] * ROW
        if drawn.panel["type"] == "row":
            self.text(left + 10, top + 8, drawn.panel["title"], size=15)
            return
        box = (left + GAP, top + GAP, left + place["w"] * COLUMN - GAP, top + place["h"] * ROW - GAP)
        self._draw.rounded_rectangle(self._scaled(box), 4 * SCALE, fill=CARD, outline=EDGE, width=SCALE)
        self.text(box[0] + 10, box[1] + 7, drawn.panel["title"], size=13)
        inside = (box[0] + 10, box[1] + 28, box[2] - 10, box[3] - 8)
        shapes = {"stat": self._stat, "gauge": self._gauge, "table": self._table, "timeseries": self._timeseries}
        shapes[drawn.panel["type"]](drawn, inside)

    # --- Panels -------------------------------------------------------------------------------------------------------

    def _stat(self, drawn: Drawn, box: Box) -> None:
        value = _last(drawn.lines)
        text, colour = drawn.defaults.get("noValue", "No data"), FAINT
        if value is not None:
            text, colour = write_value(value, drawn.unit, drawn.defaults.get("decimals")), _threshold(drawn, value)
            for mapping in drawn.defaults.get("mappings", ()):
                shown = mapping["options"].get(f"{value:g}")
                text, colour = (shown["text"], COLOURS[shown["color"]]) if shown else (text, colour)
        size = 30
        while size > 12 and self._width(text, size) > box[2] - box[0]:
            size -= 1
        self.text((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, text, size=size, colour=colour, anchor="mm")

    def _gauge(self, drawn: Drawn, box: Box) -> None:
        value = _last(drawn.lines)
        across = min((box[2] - box[0]) * 0.8, (box[3] - box[1]) * 1.15)
        middle, top = (box[0] + box[2]) / 2, box[1] + 8
        circle = (middle - across / 2, top, middle + across / 2, top + across)
        start, turn = 160, 220
        self._arc(circle, start, start + turn, EDGE, 26)
        if value is not None:
            self._arc(circle, start, start + turn * min(1.0, value), _threshold(drawn, value), 26)
            text = write_value(value, drawn.unit)
            self.text(middle, top + across / 2, text, size=30, colour=_threshold(drawn, value), anchor="mm")

    def _table(self, drawn: Drawn, box: Box) -> None:
        (organize,) = (each for each in drawn.panel["transformations"] if each["id"] == "organize")
        columns: dict[str, str] = organize["options"]["renameByName"]
        (key, heading), *values = columns.items()
        rows: dict[str, dict[str, float]] = {}
        for line in drawn.lines:
            rows.setdefault(line.labels.get(key, ""), {})[f"Value #{line.reference}"] = line.points[-1][1]
        width = (box[2] - box[0]) / len(columns)
        lines = [[heading, *(name for _, name in values)]]
        for name, cells in sorted(rows.items()):
            texts = [write_value(cells[column], drawn.unit) if column in cells else "" for column, _ in values]
            lines.append([name, *texts])
        for number, texts in enumerate(lines):
            y = box[1] + 4 + number * 24
            colour = COLOURS["blue"] if number == 0 else TEXT
            self.text(box[0] + 4, y, texts[0], size=12, colour=colour)
            for column, text in enumerate(texts[1:], 2):
                self.text(box[0] + width * column - 4, y, text, size=12, colour=colour, anchor="ra")
            self._draw.line(self._scaled((box[0], y + 19, box[2], y + 19)), fill=GRID, width=SCALE)

    def _timeseries(self, drawn: Drawn, box: Box) -> None:
        lines = [line for line in drawn.lines if any(map(_is_finite, line.points))]
        if not lines:
            self.text((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, "No data", size=14, colour=FAINT, anchor="mm")
            return
        stacked = drawn.defaults["custom"]["stacking"]["mode"] == "normal"
        colours = [self._colour(drawn, line.name, number) for number, line in enumerate(lines)]
        alone = [drawn.override(line.name, "custom.lineStyle") is not None for line in lines]
        curves = _stack(lines, alone) if stacked else [line.points for line in lines]
        plot = (box[0] + 62, box[1] + 4, box[2] - 4, box[3] - 42)
        axes = _Axes(plot, curves, drawn.unit)
        self._grid(axes, drawn.unit)
        below: Points | None = None
        for curve, colour, dashed in zip(curves, colours, alone, strict=True):
            self._curve(axes, curve, None if dashed or not stacked else below, colour, dashed, filled=stacked)
            if stacked and not dashed:
                below = curve
        self._legend([(line.name, colour) for line, colour in zip(lines, colours, strict=True)], box)

    def _colour(self, drawn: Drawn, name: str, number: int) -> str:
        fixed = drawn.override(name, "color")
        if fixed is None:
            return PALETTE[number % len(PALETTE)]
        colour = str(fixed["fixedColor"])
        return COLOURS.get(colour, colour)

    def _grid(self, axes: _Axes, unit: str) -> None:
        for value in axes.ticks:
            y = axes.y(value)
            self._draw.line(self._scaled((axes.box[0], y, axes.box[2], y)), fill=GRID, width=SCALE)
            self.text(axes.box[0] - 6, y, write_value(value, unit), size=11, colour=FAINT, anchor="rm")
        for at in axes.times:
            x = axes.x(at)
            self._draw.line(self._scaled((x, axes.box[1], x, axes.box[3])), fill=GRID, width=SCALE)
            clock = datetime.fromtimestamp(at, UTC).strftime("%H:%M" if axes.whole_minutes else "%H:%M:%S")
            self.text(x, axes.box[3] + 5, clock, size=11, colour=FAINT, anchor="ma")

    def _curve(
        self, axes: _Axes, curve: Points, below: Points | None, colour: str, dashed: bool, *, filled: bool
    ) -> None:
        for part in _parts(curve):
            spots = [(axes.x(at) * SCALE, axes.y(value) * SCALE) for at, value in part]
            if not dashed:
                floor = _at(below, part) if below else [(at, axes.least) for at, _ in part]
                under = [(axes.x(at) * SCALE, axes.y(value) * SCALE) for at, value in reversed(floor)]
                if len(spots) > 1:
                    self._draw.polygon([*spots, *under], fill=colour + ("66" if filled else "14"))
            for number, (one, other) in enumerate(pairwise(spots)):
                if not dashed or number % 4 < 2:
                    self._draw.line([one, other], fill=colour, width=3, joint="curve")

    def _legend(self, names: Sequence[tuple[str, str]], box: Box) -> None:
        x, y = box[0] + 4, box[3] - 12
        for number, (name, colour) in enumerate(names):
            left = len(names) - number
            width = self._width(name, 11) + 30
            if x + width > box[2] - (0 if left == 1 else 40):
                self.text(x, y, f"+{left} more", size=11, colour=FAINT, anchor="lm")
                return
            self._draw.line(self._scaled((x, y, x + 12, y)), fill=colour, width=3 * SCALE)
            self.text(x + 17, y, name, size=11, anchor="lm")
            x += width

    # --- Strokes ------------------------------------------------------------------------------------------------------

    def text(self, x: float, y: float, text: str, *, size: int, colour: str = TEXT, anchor: str = "la") -> None:
        """Text at a place, in pixels of the picture."""
        self._draw.text((x * SCALE, y * SCALE), text, fill=colour, font=self._font(size), anchor=anchor)

    def _width(self, text: str, size: int) -> float:
        return self._draw.textlength(text, font=self._font(size)) / SCALE

    def _font(self, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        if size not in self._fonts:
            self._fonts[size] = ImageFont.load_default(size * SCALE)
        return self._fonts[size]

    def _arc(self, box: Box, start: float, end: float, colour: str, width: int) -> None:
        self._draw.arc(self._scaled(box), start, end, fill=colour, width=width * SCALE)

    def _scaled(self, box: Box) -> Box:
        left, top, right, bottom = box
        return left * SCALE, top * SCALE, right * SCALE, bottom * SCALE


class _Axes:
    """Where a value and a time stand in a box."""

    def __init__(self, box: Box, curves: Iterable[Points], unit: str) -> None:
        points = [point for curve in curves for point in curve if _is_finite(point)]
        self.box = box
        self._began = min(at for at, _ in points)
        self._ended = max(*(at for at, _ in points), self._began + 1)
        greatest = max(value for _, value in points)
        self.least = min(0.0, *(value for _, value in points))
        self.ticks = _ticks(self.least, greatest if greatest > self.least else self.least + 1, unit)
        self._greatest = self.ticks[-1]
        span_s = self._ended - self._began
        step_s = next((step for step in TIME_STEPS_S if span_s / step <= (box[2] - box[0]) / 75), TIME_STEPS_S[-1])
        first = math.ceil(self._began / step_s) * step_s
        self.whole_minutes = step_s >= 60
        self.times = [
            at
            for at in (first + step_s * number for number in range(int(span_s // step_s) + 1))
            if self._began <= at <= self._ended - span_s / 50
        ]

    def x(self, at: float) -> float:
        """Pixels from the left."""
        return self.box[0] + (at - self._began) / (self._ended - self._began) * (self.box[2] - self.box[0])

    def y(self, value: float) -> float:
        """Pixels from the top."""
        share = (value - self.least) / (self._greatest - self.least)
        return self.box[3] - share * (self.box[3] - self.box[1])


def _ticks(least: float, greatest: float, unit: str) -> list[float]:
    """Four or five round values that hold all of it."""
    base = 1024 if unit in ("bytes", "Bps") and greatest > 1024 else 10
    rough = (greatest - least) / 4
    power = base ** math.floor(math.log(rough, base))
    steps = TICK_STEPS if base == TICK_STEPS[-1] else tuple(2**n for n in range(11))
    step = power * next(each for each in steps if power * each >= rough * 0.999)
    first, last = math.floor(least / step), math.ceil(greatest / step - 1e-9)
    return [step * number for number in range(first, last + 1)]


def _stack(lines: Sequence[Line], alone: Sequence[bool]) -> list[Points]:
    """Each on top of the one before it, but for those that stand alone."""
    sums: dict[float, float] = {}
    curves = []
    for line, by_itself in zip(lines, alone, strict=True):
        if by_itself:
            curves.append(line.points)
            continue
        curve = []
        for at, value in line.points:
            sums[at] = sums.get(at, 0.0) + (value if math.isfinite(value) else 0.0)
            curve.append((at, sums[at]))
        curves.append(curve)
    return curves


def _at(below: Points, part: Points) -> Points:
    values = dict(below)
    return [(at, values.get(at, 0.0)) for at, _ in part]


def _parts(curve: Points) -> list[Points]:
    """Cut where there is no value."""
    parts: list[Points] = [[]]
    for point in curve:
        if _is_finite(point):
            parts[-1].append(point)
        elif parts[-1]:
            parts.append([])
    return [part for part in parts if part]


def _is_finite(point: tuple[float, float]) -> bool:
    return math.isfinite(point[1])


def _last(lines: Sequence[Line]) -> float | None:
    value = lines[0].points[-1][1] if lines else math.nan
    return None if math.isnan(value) else value


def _threshold(drawn: Drawn, value: float) -> str:
    reached = [
        step["color"]
        for step in drawn.defaults["thresholds"]["steps"]
        if step["value"] is None or value >= step["value"]
    ]
    return COLOURS[reached[-1]]
