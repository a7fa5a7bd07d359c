"""Statements: what a team's ledger adds up to, month by month, each fixed once its month has ended.

A statement is a range of the ledger: the entries behind the last one of the statement before, up to the last one that
was written before its month ended. So each entry is in exactly one statement, and all of them together are the ledger.
An entry belongs to the month in which it was written; one whose request was admitted in an earlier month is late, and
is marked so. Nothing that is written later changes a statement: it goes into the one that is open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from proxy.domain.billing.settlement import LedgerEntry

NO_ENTRY = "0-0"
"""Where a ledger begins: no entry has this id."""

LATE_LISTED = 1_000
"""Ids of late entries that a statement lists; it counts the others."""

NOT_ITEMISED = ""
"""The key of what was trimmed from the ledger before a statement had it: only its sum is known."""

HEADINGS_LIMIT = 1_000
"""End users, and tags, of one statement; those that come after them are one."""

OTHERS = "(others)"

MONTHS_A_YEAR = 12

Sums = dict[str, int]


def month_after(month: str) -> str:
    """The month after ``YYYY-MM``."""
    year, number = int(month[:4]), int(month[5:])
    return f"{year + number // MONTHS_A_YEAR:04d}-{number % MONTHS_A_YEAR + 1:02d}"


def largest(headings: Mapping[str, Sums], top: int) -> tuple[dict[str, Sums], int]:
    """The ``top`` headings with the most units, all others added up as ``OTHERS``; and how many those are."""
    ranked = sorted((name for name in headings if name != OTHERS), key=lambda name: _rank(name, headings[name]))
    if len(ranked) <= top:
        return dict(headings), 0
    kept = {name: headings[name] for name in ranked[:top]}
    others: Sums = dict(headings.get(OTHERS, {}))
    for name in ranked[top:]:
        _add(others, **headings[name])
    return {**kept, OTHERS: others}, len(ranked) - top


def _rank(name: str, sums: Sums) -> tuple[int, int, str]:
    return -sums["quota_units"], -sums["images"], name


def position_of(stream_id: str) -> tuple[int, int]:
    """A stream's id as what it is sorted by."""
    milliseconds, _, sequence = stream_id.partition("-")
    return int(milliseconds), int(sequence)


@dataclass(slots=True)
class Statement:
    """One month of a team: what the entries behind ``after`` up to ``to`` add up to; both are ids in its stream.

    ``figures`` has ``requests``, ``images``, ``charged``, ``refunded``, ``overage`` (a part of what was charged) and
    ``granted``; ``by_model`` and ``by_key`` have ``images`` and ``quota_units`` (charged without what was refunded).
    ``by_user`` and ``by_tag`` (``name=value``) have the same of the requests that say so.
    ``late`` is what requests of earlier months are in it, by the month of their admission. ``brought_forward`` is what
    came out of the ledger before a statement had it; it is in the other figures as well.
    """

    month: str
    after: str
    to: str
    entries: int = 0
    figures: Sums = field(default_factory=dict)
    by_model: dict[str, Sums] = field(default_factory=dict)
    by_key: dict[str, Sums] = field(default_factory=dict)
    by_user: dict[str, Sums] = field(default_factory=dict)
    by_tag: dict[str, Sums] = field(default_factory=dict)
    late: dict[str, Sums] = field(default_factory=dict)
    late_entries: list[str] = field(default_factory=list)
    brought_forward: Sums = field(default_factory=dict)

    @property
    def quota_units(self) -> int:
        """What was charged, without what was refunded."""
        return self.figures.get("charged", 0) - self.figures.get("refunded", 0)

    def charge(self, model: str, key: str, images: int, units: int) -> None:
        """Count what was charged, or with negative units given back."""
        for headings, name in ((self.by_model, model), (self.by_key, key)):
            _add(headings.setdefault(name, {}), images=images, quota_units=units)

    def charge_person(self, facts: Mapping[str, Any], images: int, units: int) -> None:
        """The same of the end user and of each tag that an entry has, if any."""
        names = [(self.by_user, facts["user"])] if "user" in facts else []
        names += [(self.by_tag, f"{name}={value}") for name, value in facts.get("tags", {}).items()]
        for headings, name in names:
            heading = name if name in headings or len(headings) < HEADINGS_LIMIT else OTHERS
            _add(headings.setdefault(heading, {}), images=images, quota_units=units)


class StatementBook:
    """The statements of one team, entry by entry: ``open`` is the one of now, ``closed`` those that have ended since.

    ``counted`` is what all of them since the first one add up to, by the names of the ledger's checkpoint: ``posted``,
    ``overage``, ``images``, ``units:MODEL`` and ``images:MODEL``.
    """

    def __init__(self, open_statement: Statement, counted: Mapping[str, int] | None = None) -> None:
        """Go on from here."""
        self.open = open_statement
        self.closed: list[Statement] = []
        self.counted: Counter[str] = Counter(counted or {})

    @classmethod
    def begin(cls, month: str) -> Self:
        """The book of a team that has no statement, from its first month on."""
        return cls(Statement(month, NO_ENTRY, NO_ENTRY))

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """As ``as_json`` has it."""
        return cls(Statement(**kept["open"]), kept["counted"])

    def as_json(self) -> dict[str, Any]:
        """What is needed to go on, for orjson: a copy of very many headings would hold the event loop up."""
        return {"open": self.open, "counted": dict(self.counted)}

    def close_before(self, month: str) -> None:
        """End the statements of all months before ``month``: all that was written in them has been counted."""
        while self.open.month < month:
            self.closed.append(self.open)
            self.open = Statement(month_after(self.open.month), self.open.to, self.open.to)

    def add(self, entry: LedgerEntry, *, written: str, admitted: str) -> None:
        """Count the entry behind the last one; months are those of when it was written, and its request admitted."""
        self.close_before(written)
        statement, facts = self.open, entry.facts
        statement.to = entry.id.rpartition("_")[2]
        statement.entries += 1
        if entry.kind == "grant":
            _add(statement.figures, granted=facts["quota_units"])
            return
        units, images, overage = facts["charged"], facts["images"], facts["overage"]
        if entry.kind == "refund":
            _add(statement.figures, images=images, refunded=-units, overage=overage)
        else:
            requests = int(entry.kind == "request")
            _add(statement.figures, requests=requests, images=images, charged=units, overage=overage)
        statement.charge(facts["model"], facts["key"], images, units)
        statement.charge_person(facts, images, units)
        self._count(posted=units, overage=overage, images=images)
        self._count_model(facts["model"], images, units)
        if admitted < statement.month:
            _add(statement.late.setdefault(admitted, {}), entries=1, images=images, quota_units=units)
            if len(statement.late_entries) < LATE_LISTED:
                statement.late_entries.append(entry.id)

    def bring_forward(self, checkpoint: Mapping[str, int], *, to: str, month: str) -> None:
        """Count what was trimmed, which ``checkpoint`` has the sum of, up to the entry ``to`` of ``month``."""
        self.close_before(month)
        statement = self.open
        statement.to = to
        missing = Counter(checkpoint)
        missing.subtract(self.counted)
        if not any(missing.values()):
            return
        sums = {"images": missing["images"], "quota_units": missing["posted"], "overage": missing["overage"]}
        _add(statement.brought_forward, **sums)
        _add(statement.figures, images=sums["images"], charged=sums["quota_units"], overage=sums["overage"])
        for model in sorted({name.partition(":")[2] for name in missing if ":" in name}):
            units, images = missing[f"units:{model}"], missing[f"images:{model}"]
            if units or images:
                _add(statement.by_model.setdefault(model, {}), images=images, quota_units=units)
        _add(statement.by_key.setdefault(NOT_ITEMISED, {}), images=sums["images"], quota_units=sums["quota_units"])
        self.counted.update(missing)

    def _count_model(self, model: str, images: int, units: int) -> None:
        self._count(**{f"units:{model}": units, f"images:{model}": images})

    def _count(self, **figures: int) -> None:
        self.counted.update(figures)


def checkpoint_figures(fields: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """A ledger's checkpoint by the names of ``StatementBook.counted``; days are not told apart."""
    for name, value in fields.items():
        if name.startswith("usage:"):
            _usage, _day, what, model = name.split(":", 3)
            yield f"{what}:{model}", int(value)
        elif name in ("posted", "overage", "images"):
            yield name, int(value)


def _add(sums: Sums, **figures: int) -> None:
    for name, value in figures.items():
        sums[name] = sums.get(name, 0) + value
