"""What a key or a team was charged, as its usage hash has it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

FIRST_DAY = "from"
"""The field of a usage hash that says which day is the first that is kept as one; see ``fold_usage.lua``."""


@dataclass(frozen=True, slots=True)
class Charges:
    """What was charged under one heading."""

    images: int = 0
    quota_units: int = 0


def charges(counters: Mapping[str, str]) -> tuple[dict[str, Charges], dict[str, Charges]]:
    """What a usage hash says, by model and by UTC day; ``earlier`` stands for all days that are long past."""
    by_model: dict[str, Counter[str]] = defaultdict(Counter)
    by_day: dict[str, Counter[str]] = defaultdict(Counter)
    for name, value in counters.items():
        if name == FIRST_DAY:
            continue
        day, what, model = name.split(":", 2)
        by_model[model][what] += int(value)
        by_day[day][what] += int(value)
    return _sorted_charges(by_model), _sorted_charges(by_day)


def charges_by_day(counters: Mapping[str, str], since: str) -> dict[str, dict[str, Charges]]:
    """What a usage hash says of each UTC day from ``since`` on, by model."""
    days: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for name, value in counters.items():
        if name[:1].isdigit() and name >= since:
            day, what, model = name.split(":", 2)
            days[day][model][what] += int(value)
    return {day: _sorted_charges(days[day]) for day in sorted(days)}


def _sorted_charges(sums: Mapping[str, Counter[str]]) -> dict[str, Charges]:
    return {name: Charges(images=sums[name]["images"], quota_units=sums[name]["units"]) for name in sorted(sums)}
