from __future__ import annotations

from proxy.domain.billing.tallies import HEADINGS_LIMIT, OTHERS, Sums, Tally, largest


def test_entries_count_for_whom_they_are_for_and_refunds_give_back() -> None:
    tally = Tally()
    person = {"user": "ann", "tags": {"env": "prod", "project": "apollo"}}
    tally.add("request", {"images": 2, "charged": 10_000, **person})
    tally.add("late", {"images": 1, "charged": 5_000, **person})
    tally.add("request", {"images": 1, "charged": 5_000})
    tally.add("refund", {"images": 0, "charged": -10_000, **person})
    tally.add("grant", {"quota_units": 7})
    assert tally.all == Sums(2, 4, 10_000)
    assert tally.by_user == {"ann": Sums(1, 3, 5_000), "": Sums(1, 1, 5_000)}
    assert tally.by_tag == {"env=prod": Sums(1, 3, 5_000), "project=apollo": Sums(1, 3, 5_000)}


def test_names_are_bounded_and_what_comes_after_them_is_one() -> None:
    tally = Tally()
    for number in range(HEADINGS_LIMIT + 2):
        tally.add("request", {"images": 1, "charged": 1, "user": f"user {number}"})
    tally.add("request", {"images": 1, "charged": 1, "user": "user 0"})
    assert len(tally.by_user) == HEADINGS_LIMIT + 1
    assert (tally.by_user[OTHERS], tally.by_user["user 0"]) == (Sums(2, 2, 2), Sums(2, 2, 2))
    assert tally.all == Sums(HEADINGS_LIMIT + 3, HEADINGS_LIMIT + 3, HEADINGS_LIMIT + 3)


def test_the_largest_come_first_and_the_others_are_added_up() -> None:
    headings = {"b": Sums(1, 1, 5), "c": Sums(1, 2, 9), "a": Sums(1, 1, 5), "d": Sums(3, 1, 1)}
    first, names, others = largest(headings, 2)
    assert ([name for name, _ in first], names, others) == (["c", "a"], 2, Sums(4, 2, 6))
    assert largest(headings, 4)[1:] == (0, Sums())
