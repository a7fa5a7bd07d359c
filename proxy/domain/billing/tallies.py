"""What a part of a ledger adds up to by end user and by tag."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

HEADINGS_LIMIT = 5_000
"""End users, and tags, of one tally; those that come after them are one."""

OTHERS = "(others)"


@dataclass(slots=True)
class Sums:
    """Requests and images, and units: those charged without those refunded."""

    requests: int = 0
    images: int = 0
    quota_units: int = 0

    def add(self, requests: int, images: int, quota_units: int) -> None:
        """Count them too."""
        self.requests += requests
        self.images += images
        self.quota_units += quota_units


@dataclass(slots=True)
class Tally:
    """The entries that have been added, in all and by who they were for; ``""`` is whoever named no user.

    An entry with several tags counts for each of them.
    """

    all: Sums = field(default_factory=Sums)
    by_user: dict[str, Sums] = field(default_factory=dict)
    by_tag: dict[str, Sums] = field(default_factory=dict)

    def add(self, kind: str, facts: Mapping[str, Any]) -> None:
        """One ledger entry by its kind and its facts; grants are nobody's."""
        if kind == "grant":
            return
        counts = int(kind == "request"), facts["images"], facts["charged"]
        self.all.add(*counts)
        _of(self.by_user, facts.get("user", "")).add(*counts)
        for name, value in facts.get("tags", {}).items():
            _of(self.by_tag, f"{name}={value}").add(*counts)


def largest(headings: Mapping[str, Sums], most: int) -> tuple[list[tuple[str, Sums]], int, Sums]:
    """The ``most`` that were charged most, how many others there are, and what the others add up to."""
    ordered = sorted(headings.items(), key=lambda each: (-each[1].quota_units, each[0]))
    others: Counter[str] = Counter()
    for _name, sums in ordered[most:]:
        others.update(requests=sums.requests, images=sums.images, quota_units=sums.quota_units)
    return ordered[:most], len(ordered[most:]), Sums(**others)


def _of(headings: dict[str, Sums], name: str) -> Sums:
    heading = name if name in headings or len(headings) < HEADINGS_LIMIT else OTHERS
    return headings.setdefault(heading, Sums())
