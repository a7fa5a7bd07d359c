"""The books of a key or a team: what its counters should be, rebuilt from the checkpoint and the ledger since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

EARLIER = "earlier"
"""The heading of all days that are long past."""


@dataclass(slots=True)
class Books:
    """Counters of one key or team; zeros need not be there.

    ``usage`` is by ``DAY:units:MODEL`` and ``DAY:images:MODEL``, ``windows`` by window and ``posted`` or ``reserved``,
    ``held`` is the number of reservations.
    """

    posted: int = 0
    overage: int = 0
    images: int = 0
    granted: int = 0
    reserved: int = 0
    held: int = 0
    usage: Counter[str] = field(default_factory=Counter)
    windows: Counter[str] = field(default_factory=Counter)

    def add(self, entry: Mapping[str, Any], day: str) -> None:
        """One ledger entry, as the admin API shows it; ``day`` is the UTC day that its request was admitted in."""
        if entry["kind"] == "grant":
            self.granted += entry["quota_units"]
            return
        self.posted += entry["charged"]
        self.overage += entry["overage"]
        self.images += entry["images"]
        self.usage[f"{day}:units:{entry['model']}"] += entry["charged"]
        self.usage[f"{day}:images:{entry['model']}"] += entry["images"]

    def count_window(self, window: str, held_units: Mapping[str, int]) -> None:
        """Add up what belongs to a day or a month; ``held_units`` is what is reserved, by UTC day."""
        self.windows[f"{window} posted"] = sum(
            units
            for heading, units in self.usage.items()
            if heading.startswith(window) and heading.split(":", 2)[1] == "units"
        )
        self.windows[f"{window} reserved"] = sum(units for day, units in held_units.items() if day.startswith(window))

    def fold_before(self, first_day: str) -> None:
        """Sum up the usage of days before ``first_day``, ``YYYY-MM-DD``, under ``earlier``."""
        for heading in [heading for heading in self.usage if heading < first_day]:
            _day, _, rest = heading.partition(":")
            self.usage[f"{EARLIER}:{rest}"] += self.usage.pop(heading)

    def take_reserved(self, other: Books) -> None:
        """Believe ``other`` in what is reserved: it is not known here."""
        self.reserved, self.held = other.reserved, other.held
        for name in [name for name in (*self.windows, *other.windows) if name.endswith(" reserved")]:
            self.windows[name] = other.windows[name]

    def figures(self) -> Iterator[tuple[str, int]]:
        """Each counter with its name."""
        for name in ("posted", "overage", "images", "granted", "reserved", "held"):
            yield name, getattr(self, name)
        for heading in sorted(self.usage):
            yield f"usage {heading}", self.usage[heading]
        for window in sorted(self.windows):
            yield window, self.windows[window]


@dataclass(frozen=True, slots=True)
class Difference:
    """Something in the books that is not as it should be."""

    team: str
    where: str
    counter: str
    found: int
    should_be: int


def compare(team: str, key_id: str, found: Books, rebuilt: Books) -> Iterator[Difference]:
    """Where ``found``, the store's own counters, are not what the ledger and the live leases add up to."""
    is_, should_be = dict(found.figures()), dict(rebuilt.figures())
    for counter in dict.fromkeys([*is_, *should_be]):
        if is_.get(counter, 0) != should_be.get(counter, 0):
            yield Difference(team, key_id, counter, is_.get(counter, 0), should_be.get(counter, 0))
