"""Figures as Grafana writes them: shortened, with the unit of their panel."""

from __future__ import annotations

import math
from datetime import UTC, datetime

THOUSANDS = ("", " K", " Mil", " Bil", " Tri")
SI = ("", " k", " M", " G", " T")
SIZES = ("B", "KiB", "MiB", "GiB", "TiB")
SPANS_S = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1), ("ms", 1e-3), ("µs", 1e-6))
SUFFIXES = {"reqps": " req/s", "ops": " ops/s"}
PREFIXES = {"currencyUSD": "$"}


def write_value(value: float, unit: str, decimals: int | None = None) -> str:
    """``value`` in Grafana's ``unit``; three digits that count where ``decimals`` does not say otherwise."""
    if not math.isfinite(value):
        return "" if math.isnan(value) else "∞"
    if unit == "s":
        return _span(value)
    if unit == "percentunit":
        return f"{_digits(value * 100, decimals)}%"
    if unit == "dateTimeAsIso":
        return datetime.fromtimestamp(value / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    if unit in ("bytes", "Bps"):
        return _scaled(value, 1024, tuple(f" {size}" for size in SIZES), decimals) + ("/s" if unit == "Bps" else "")
    names, suffix = (SI, unit.removeprefix("si:")) if unit.startswith("si:") else (THOUSANDS, SUFFIXES.get(unit, ""))
    return PREFIXES.get(unit, "") + _scaled(value, 1000, names, decimals) + suffix


def _span(seconds: float) -> str:
    for name, length_s in SPANS_S:
        if abs(seconds) >= length_s:
            return f"{_digits(seconds / length_s)} {name}"
    return "0 s"


def _scaled(value: float, step: int, names: tuple[str, ...], decimals: int | None) -> str:
    size = 0
    while abs(value) >= step and size < len(names) - 1:
        value /= step
        size += 1
    return _digits(value, decimals if size == 0 else None) + names[size]


def _digits(value: float, decimals: int | None = None) -> str:
    if decimals is None:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.{decimals}f}"
