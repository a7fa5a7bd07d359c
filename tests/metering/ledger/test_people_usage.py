"""Usage of end users, out of ledgers of real stores."""

from __future__ import annotations

import asyncio

import pytest

from proxy.domain.billing.tallies import Sums
from proxy.domain.errors import StillCounting
from proxy.metering.ledger import people_usage
from proxy.metering.ledger.people_usage import TALLIES_KEPT, PeopleUsage, window_ms
from proxy.metering.redis_store.facts import utc_day
from tests.metering.conftest import Bench
from tests.metering.test_user_limits import PRICE, books_of, delivered


def people_of(bench: Bench) -> PeopleUsage:
    return PeopleUsage(bench.pool, bench.store)


async def charge(bench: Bench, requests: int, *, begin: int = 0) -> str:
    """Requests of two users, one each; the month of the last of them."""
    key = await bench.make_key(None)
    for number in range(begin, begin + requests):
        reservation = await bench.admit(key, f"req_{number}", PRICE, user=("ann", "bob")[number % 2])
        await bench.store.settle(delivered(reservation))
    return utc_day(reservation.admitted_ms)[:7]


def test_windows_are_utc_days_and_months() -> None:
    day_ms = 86_400_000
    assert window_ms("1970-01-02") == (day_ms, 2 * day_ms)
    begin_ms, end_ms = window_ms("2026-12")
    assert (utc_day(begin_ms), utc_day(end_ms), end_ms - begin_ms) == ("2026-12-01", "2027-01-01", 31 * day_ms)
    for wrong in ("2026-13", "2026-02-30", "x", ""):
        with pytest.raises(ValueError, match=r"time data|unconverted data|out of range"):
            window_ms(wrong)


@pytest.mark.parametrize("entries_a_read", [2, 3, 4, 5, 500])
async def test_whoever_asks_again_adds_what_has_come_since(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, entries_a_read: int
) -> None:
    monkeypatch.setattr(people_usage, "ENTRIES_A_READ", entries_a_read)
    people, expected = people_of(bench), 0
    for more in (4, 1, 0, 3):
        if more:
            month = await charge(bench, more, begin=expected)
        expected += more
        found = await asyncio.gather(*(people.read("acme", month) for _ in range(3)))
        assert {(each.tally.all.requests, each.is_complete) for each in found} == {(expected, True)}
    assert found[0].tally.by_user == {"ann": Sums(4, 4, 4 * PRICE), "bob": Sums(4, 4, 4 * PRICE)}
    assert (await people.read("acme", "2001-01")).tally.all == Sums()


async def test_what_the_store_has_lost_is_counted_no_more(bench: Bench) -> None:
    month = await charge(bench, 3)
    people = people_of(bench)
    assert (await people.read("acme", month)).tally.all.requests == 3
    # As if it had gone back to before the last one.
    found = await bench.redis.xrevrange("lm:{acme}:ledger", count=1)
    assert found
    assert isinstance(found[0][0], bytes)
    await bench.redis.xdel("lm:{acme}:ledger", found[0][0])
    assert (await people.read("acme", month)).tally.all.requests == 2


async def test_a_window_whose_beginning_was_trimmed_is_not_complete(bench: Bench) -> None:
    month = await charge(bench, 2)
    await asyncio.sleep(0.01)
    assert (await books_of(bench).trim("acme", keep_ms=1)).entries == 2
    found = await people_of(bench).read("acme", month)
    assert (found.is_complete, found.tally.all) == (False, Sums())


async def test_a_long_ledger_is_added_up_in_parts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people_usage, "ENTRIES_A_READ", 2)
    month = await charge(bench, 5)
    people, asked = people_of(bench), 0
    clock = iter(range(0, 10_000, 1_000))
    monkeypatch.setattr(people_usage, "monotonic", lambda: next(clock))
    while True:
        asked += 1
        try:
            found = await people.read("acme", month)
            break
        except StillCounting:
            continue
    assert (asked > 1, found.tally.all.requests) == (True, 5)


async def test_only_so_many_tallies_are_kept(bench: Bench) -> None:
    people = people_of(bench)
    for day in range(1, TALLIES_KEPT + 5):
        await people.read("acme", f"2026-10-{day:02d}")
    assert len(people._kept) == TALLIES_KEPT
