from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.billing.books import Books, Difference, compare

DAYS = ["2026-11-23", "2026-11-24"]
charges = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["request", "late", "refund"]),
        "charged": st.integers(-(2**50), 2**50),
        "overage": st.integers(-(2**50), 2**50),
        "images": st.integers(0, 10_000),
        "model": st.sampled_from(["acme/image-1", "a:b"]),
    }
)
grants = st.fixed_dictionaries({"kind": st.just("grant"), "quota_units": st.integers(-(2**50), 2**50)})
entries = st.lists(st.tuples(st.one_of(charges, grants), st.sampled_from(DAYS)), max_size=20)


def books_of(given_entries: list[tuple[dict[str, Any], str]]) -> Books:
    books = Books()
    for entry, day in given_entries:
        books.add(entry, day)
    return books


@given(entries, st.integers(0, 20))
def test_a_checkpoint_and_the_rest_are_the_whole(given_entries: list[tuple[dict[str, Any], str]], cut: int) -> None:
    first, rest = books_of(given_entries[:cut]), given_entries[cut:]
    for entry, day in rest:
        first.add(entry, day)
    assert list(compare("acme", "key", first, books_of(given_entries))) == []


@given(entries)
def test_usage_adds_up_to_what_was_posted(given_entries: list[tuple[dict[str, Any], str]]) -> None:
    books = books_of(given_entries)
    for what, total in (("units", books.posted), ("images", books.images)):
        assert sum(value for name, value in books.usage.items() if name[10:].startswith(f":{what}:")) == total


@given(entries, st.sampled_from(["posted", "overage", "images", "granted", "reserved"]), st.integers(1, 10))
def test_each_counter_that_is_wrong_is_told(
    given_entries: list[tuple[dict[str, Any], str]], counter: str, wrong_by: int
) -> None:
    right, wrong = books_of(given_entries), books_of(given_entries)
    setattr(wrong, counter, getattr(wrong, counter) + wrong_by)
    should_be = getattr(right, counter)
    assert list(compare("acme", "key", wrong, right)) == [
        Difference("acme", "key", counter, should_be + wrong_by, should_be)
    ]


def test_usage_that_is_wrong_or_missing_is_told_and_zeros_are_not() -> None:
    found = Books(usage=Counter({"2026-11-23:units:a": 5, "2026-11-23:images:b": 0}))
    rebuilt = Books(usage=Counter({"2026-11-23:units:a": 4, "2026-11-24:units:a": 1, "2026-11-24:images:a": 0}))
    assert list(compare("acme", "key", found, rebuilt)) == [
        Difference("acme", "key", "usage 2026-11-23:units:a", 5, 4),
        Difference("acme", "key", "usage 2026-11-24:units:a", 0, 1),
    ]


def test_where_leases_are_not_known_what_is_reserved_is_believed_and_nothing_else() -> None:
    found = Books(posted=5, reserved=7, held=2, windows=Counter({"2026-11-23 posted": 5, "2026-11-23 reserved": 7}))
    rebuilt = Books(posted=4, windows=Counter({"2026-11-23 posted": 4, "2026-11-23 reserved": 0}))
    rebuilt.take_reserved(found)
    assert list(compare("acme", "key", found, rebuilt)) == [
        Difference("acme", "key", "posted", 5, 4),
        Difference("acme", "key", "2026-11-23 posted", 5, 4),
    ]
