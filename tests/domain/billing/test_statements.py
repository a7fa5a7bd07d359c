from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.billing.settlement import LedgerEntry
from proxy.domain.billing.statements import (
    LATE_LISTED,
    NOT_ITEMISED,
    OTHERS,
    Statement,
    StatementBook,
    checkpoint_figures,
    largest,
    month_after,
)

MODELS = ("m", "with:colon")
KEYS = ("acme_1", "acme_2")


def entry(at: int, kind: str = "request", **facts: Any) -> LedgerEntry:
    about = {"key": "acme_1", "model": "m", "charged": 10, "images": 1, "overage": 0, **facts}
    return LedgerEntry(id=f"acme_{at}-0", at_ms=at, kind=kind, team="acme", facts=about)


def month(at: int) -> str:
    """Ten milliseconds a month."""
    return f"{2026 + at // 120:04d}-{at // 10 % 12 + 1:02d}"


def add(book: StatementBook, one: LedgerEntry) -> None:
    book.add(one, written=month(one.at_ms), admitted=month(one.facts.get("admitted_ms", one.at_ms)))


def again(book: StatementBook) -> StatementBook:
    """As another gateway reads it."""
    closed = [Statement(**orjson.loads(orjson.dumps(each))) for each in book.closed]
    read = StatementBook.from_json(orjson.loads(orjson.dumps(book.as_json())))
    read.closed = closed
    return read


def test_a_month_follows_a_month() -> None:
    assert [month_after(each) for each in ("2026-01", "2026-11", "2026-12", "0999-12")] == [
        *("2026-02", "2026-12", "2027-01", "1000-01"),
    ]


def test_an_entry_is_in_the_month_it_was_written_in_and_late_where_it_was_admitted_before() -> None:
    book = StatementBook.begin("2026-01")
    add(book, entry(5))
    add(book, entry(15, admitted_ms=9, charged=30, images=3, overage=20, key="acme_2"))
    add(book, entry(16, "refund", charged=-30, images=0, overage=-20, key="acme_2", admitted_ms=9))
    add(book, entry(17, "grant", quota_units=7))
    (january,) = book.closed
    assert (january.month, january.after, january.to, january.entries) == ("2026-01", "0-0", "5-0", 1)
    assert january.figures == {"requests": 1, "images": 1, "charged": 10, "overage": 0}
    assert (january.late, january.late_entries) == ({}, [])
    february = book.open
    assert (february.month, february.after, february.to, february.entries) == ("2026-02", "5-0", "17-0", 3)
    assert february.figures == {
        "requests": 1,
        "images": 3,
        "charged": 30,
        "refunded": 30,
        "overage": 0,
        "granted": 7,
    }
    assert february.quota_units == 0
    assert february.by_key == {"acme_2": {"images": 3, "quota_units": 0}}
    assert february.late == {"2026-01": {"entries": 2, "images": 3, "quota_units": 0}}
    assert february.late_entries == ["acme_15-0", "acme_16-0"]


def test_a_month_without_entries_has_an_empty_statement() -> None:
    book = StatementBook.begin("2026-01")
    add(book, entry(5))
    book.close_before("2026-04")
    assert [(each.month, each.after, each.to, each.entries) for each in book.closed] == [
        ("2026-01", "0-0", "5-0", 1),
        ("2026-02", "5-0", "5-0", 0),
        ("2026-03", "5-0", "5-0", 0),
    ]
    assert (book.open.month, book.open.after) == ("2026-04", "5-0")


def test_what_a_clock_that_went_back_writes_into_a_stated_month_goes_into_the_open_one() -> None:
    book = StatementBook.begin("2026-01")
    add(book, entry(5))
    book.close_before("2026-02")
    add(book, entry(6))
    assert book.closed[0].quota_units == book.open.quota_units == 10
    assert book.open.late == {"2026-01": {"entries": 1, "images": 1, "quota_units": 10}}


def test_very_many_late_entries_are_counted_and_some_of_them_listed() -> None:
    book = StatementBook.begin("2026-02")
    for number in range(LATE_LISTED + 5):
        book.add(entry(number + 10), written="2026-02", admitted="2026-01")
    assert book.open.late["2026-01"]["entries"] == LATE_LISTED + 5
    assert len(book.open.late_entries) == LATE_LISTED


def test_what_was_trimmed_before_is_brought_forward_by_model() -> None:
    book = StatementBook.begin("2026-01")
    add(book, entry(5))
    checkpoint = Counter[str]()
    fields = {
        "last": "25-0",
        "posted": "60",
        "images": "6",
        "overage": "1",
        "granted": "4",
        "usage:2026-01-01:units:m": "10",
        "usage:2026-01-01:images:m": "1",
        "usage:2026-03-01:units:with:colon": "50",
        "usage:2026-03-01:images:with:colon": "5",
    }
    for name, value in checkpoint_figures({name: value for name, value in fields.items() if name != "last"}):
        checkpoint[name] += value
    book.bring_forward(checkpoint, to="25-0", month="2026-03")
    assert [each.month for each in book.closed] == ["2026-01", "2026-02"]
    assert book.open.brought_forward == {"images": 5, "quota_units": 50, "overage": 1}
    assert book.open.by_model == {"with:colon": {"images": 5, "quota_units": 50}}
    assert book.open.by_key == {NOT_ITEMISED: {"images": 5, "quota_units": 50}}
    assert (book.open.to, book.open.quota_units) == ("25-0", 50)


sums_of_headings = st.dictionaries(
    st.sampled_from([OTHERS, NOT_ITEMISED, *"abcdefgh"]),
    st.fixed_dictionaries({"images": st.integers(-5, 5), "quota_units": st.integers(-50, 50)}),
)


@given(sums_of_headings, st.integers(0, 12))
def test_the_largest_headings_and_what_the_others_add_up_to_are_all(headings: dict[str, Any], top: int) -> None:
    before = orjson.dumps(headings)
    told, omitted = largest(headings, top)
    assert orjson.dumps(headings) == before
    named = {name: sums for name, sums in told.items() if name != OTHERS}
    assert (len(named), omitted) == (
        min(top, len(headings.keys() - {OTHERS})),
        max(0, len(headings.keys() - {OTHERS}) - top),
    )
    for figure in ("images", "quota_units"):
        assert sum(each[figure] for each in told.values()) == sum(each[figure] for each in headings.values())
    left_out = [sums["quota_units"] for name, sums in headings.items() if name not in told]
    assert all(headings[name] == sums for name, sums in named.items())
    assert min((sums["quota_units"] for sums in named.values()), default=99) >= max(left_out, default=-99) or not named


# --- The sum of all statements is the ledger --------------------------------------------------------------------------

charges = st.tuples(
    st.integers(0, 25),
    st.sampled_from(["request", "request", "late", "refund", "grant"]),
    st.sampled_from(MODELS),
    st.sampled_from(KEYS),
    st.integers(0, 40),
    st.integers(0, 5),
)
steps = st.lists(
    st.one_of(charges, st.sampled_from(["count", "state", "trim", "trim unstated"])), min_size=1, max_size=60
)


def check_sums(statements: list[Statement], entries: list[LedgerEntry]) -> None:
    """Ranges without a gap, each entry in one of them, and every figure of the ledger in exactly one of them."""
    for earlier, later in pairwise(statements):
        assert (later.after, later.month) == (earlier.to, month_after(earlier.month))
    charged = [each for each in entries if each.kind != "grant"]
    assert sum(each.quota_units for each in statements) == sum(each.facts["charged"] for each in charged)
    for figure in ("images", "overage"):
        assert sum(each.figures.get(figure, 0) for each in statements) == sum(each.facts[figure] for each in charged)
    for model in MODELS:
        units = sum(each.facts["charged"] for each in charged if each.facts["model"] == model)
        assert sum(each.by_model.get(model, {}).get("quota_units", 0) for each in statements) == units
    for each in statements:
        for by in (each.by_model, each.by_key):
            assert sum(sums["quota_units"] for sums in by.values()) == each.quota_units


class Team:
    """A ledger, its checkpoint, and a book that is written down and read after each step."""

    def __init__(self) -> None:
        self.entries: list[LedgerEntry] = []
        self.trimmed = 0
        self.counted = 0
        self.at = 1
        self.book: StatementBook | None = None

    def write(self, passed: int, kind: str, model: str, key: str, units: int, images: int) -> None:
        self.at += 1 + passed
        sign = -1 if kind == "refund" else 1
        facts = {"model": model, "key": key, "charged": sign * units, "images": 0 if sign < 0 else images}
        facts |= {"overage": sign * (units // 4), "admitted_ms": max(0, self.at - units), "quota_units": units}
        self.entries.append(entry(self.at, kind, **facts))

    def count(self) -> None:
        if self.counted < self.trimmed:
            last = self.entries[self.trimmed - 1]
            self.book = self.book or StatementBook.begin(month(last.at_ms))
            self.book.bring_forward(self.checkpoint(), to=last.id.removeprefix("acme_"), month=month(last.at_ms))
            self.counted = self.trimmed
        for each in self.entries[self.counted :]:
            self.book = self.book or StatementBook.begin(month(each.at_ms))
            add(self.book, each)
        self.counted = len(self.entries)

    def checkpoint(self) -> Counter[str]:
        sums: Counter[str] = Counter()
        for each in self.entries[: self.trimmed]:
            if each.kind != "grant":
                units, images = each.facts["charged"], each.facts["images"]
                sums.update(posted=units, images=images, overage=each.facts["overage"])
                sums.update({f"units:{each.facts['model']}": units, f"images:{each.facts['model']}": images})
        return sums

    def take(self, step: Any) -> None:
        if not isinstance(step, str):
            self.write(*step)
            return
        if step != "trim unstated":
            self.count()
        if step.startswith("trim"):
            self.trimmed = len(self.entries)
        if step == "state" and self.book is not None:
            self.book.close_before(month(self.at))


@given(steps)
def test_all_statements_are_the_ledger_and_none_that_is_stated_changes(taken: list[Any]) -> None:
    team = Team()
    stated: list[bytes] = []
    for step in taken:
        team.take(step)
        if team.book is not None:
            team.book = again(team.book)
            kept = [orjson.dumps(each) for each in team.book.closed]
            assert kept[: len(stated)] == stated
            stated = kept
    team.count()
    check_sums([] if team.book is None else [*team.book.closed, team.book.open], team.entries)


@pytest.mark.parametrize("name", ["", "last", "entries"])
def test_what_is_no_figure_of_a_checkpoint_is_left_out(name: str) -> None:
    assert list(checkpoint_figures({name: "5"})) == []
