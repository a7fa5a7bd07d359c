"""Entries on their way to a destination."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Entry = Mapping[str, Any]
"""A ledger entry as the admin API has it."""

NO_ENTRY = "0-0"
"""In the place of an entry's id in its team's ledger: before the first."""


def place_of(entry_id: str | None) -> tuple[int, int]:
    """Where an entry stands among those of its team: a millisecond, and a number in it. None is before the first."""
    if entry_id is None:
        return 0, 0
    milliseconds, _, number = entry_id.rpartition("_")[2].partition("-")
    return int(milliseconds), int(number)


@dataclass(slots=True)
class Batch:
    """Entries of several teams, each team's in their order and without a gap.

    ``starts`` has the entry of each team that stands before its first one here, ``ends`` its last one.
    """

    entries: list[Entry] = field(default_factory=list)
    starts: dict[str, str | None] = field(default_factory=dict)
    ends: dict[str, str] = field(default_factory=dict)

    def add(self, entry: Entry, after: str | None) -> None:
        """Take in what follows the entry ``after`` of its team."""
        team = entry["team"]
        self.entries.append(entry)
        self.starts.setdefault(team, after)
        self.ends[team] = entry["id"]

    def clear(self) -> None:
        """Begin anew."""
        self.entries.clear()
        self.starts.clear()
        self.ends.clear()
