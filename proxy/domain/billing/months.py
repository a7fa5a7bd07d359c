"""What the ledger adds up to by month: of each team, by the UTC month in which an entry was written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from proxy.domain.money import Money

MONTH_LENGTH = len("YYYY-MM")

FIGURES = ("requests", "images", "quota_units", "overage", "refunded", "granted")
"""``quota_units`` is what was charged without what was refunded, of which ``overage`` is a part."""


class Months:
    """Adds up ledger entries, in any order."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._figures: dict[tuple[str, str], Counter[str]] = {}

    def add(self, entry: Mapping[str, Any]) -> None:
        """One ledger entry, as the admin API shows it."""
        of = self._figures.setdefault((entry["at"][:MONTH_LENGTH], entry["team"]), Counter())
        if entry["kind"] == "grant":
            of["granted"] += entry["quota_units"]
            return
        of["requests"] += entry["kind"] == "request"
        of["images"] += entry["images"]
        of["quota_units"] += entry["charged"]
        of["overage"] += entry["overage"]
        if entry["kind"] == "refund":
            of["refunded"] -= entry["charged"]

    def rows(self, money: Money) -> list[dict[str, Any]]:
        """The figures of each month and team, in their order, with US dollars beside the units."""
        return [
            money.beside({"month": month, "team": team, **{name: figures[name] for name in FIGURES}}, "quota_units")
            for (month, team), figures in sorted(self._figures.items())
        ]
