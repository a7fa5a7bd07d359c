"""Limits of each end user while many requests come in: when a month ends, and while an operator changes them."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from proxy.domain.api_key import Credential
from proxy.domain.errors import InsufficientQuota, RateLimitExceeded
from proxy.domain.limits import LimitsPerUser, UserLimits
from proxy.metering.ledger.pages import LedgerFilter
from proxy.metering.redis_store.facts import utc_day
from tests.metering.conftest import Bench, open_bench
from tests.metering.test_limits_machine import CLOCK, DAY_US, NEW_YEARS_EVE_US, moved_clock
from tests.metering.test_user_limits import PRICE, delivered, per_user, today, used, verify

__all__ = ["moved_clock"]

USERS = ("ann", "bob", "")
CALLERS = 4
"""For each user, at once."""

MOST = 5
"""Images of a user a month, under each key as under the team."""


async def spend(bench: Bench, keys: list[Credential], caller: int, begun: asyncio.Event | None = None) -> None:
    """One image after the other for one user, until that user is refused."""
    user = USERS[caller % len(USERS)]
    for number in range(1_000):
        try:
            reservation = await bench.admit(keys[(caller + number) % 2], f"req_{caller}_{number}", PRICE, user=user)
        except InsufficientQuota:
            return
        if begun is not None:
            begun.set()
        await asyncio.sleep(0)
        await bench.store.settle(delivered(reservation))
    raise AssertionError(f"'{user}' was never refused")


@pytest.mark.usefixtures("moved_clock")
async def test_a_month_that_ends_under_load_gives_each_user_the_new_one_and_no_more(store_url: str) -> None:
    async with open_bench(store_url, lease_ms=100 * DAY_US // 1_000) as bench:
        await bench.redis.set(CLOCK, NEW_YEARS_EVE_US)
        await bench.teams.create("acme", name="", limits=per_user(quota_units_per_month=MOST * PRICE))
        keys = [await bench.make_key(limits=per_user(quota_units_per_day=MOST * PRICE)) for _ in range(2)]
        begun = asyncio.Event()
        callers = range(CALLERS * len(USERS))
        # Nobody has used up the old month when it ends, and some requests are held across its end.
        spending = [asyncio.create_task(spend(bench, keys, caller, begun)) for caller in callers]
        await begun.wait()
        await bench.redis.set(CLOCK, NEW_YEARS_EVE_US + DAY_US)
        await asyncio.gather(*spending)
        # Those who were refused in the old month try again.
        await asyncio.gather(*(spend(bench, keys, len(callers) + caller) for caller in callers))
        used_in = Counter[tuple[str, str]]()
        entries = (await bench.ledger.list_entries(LedgerFilter(team="acme"), cursor=None, limit=1_000)).items
        for entry in entries:
            used_in[utc_day(entry.facts["admitted_ms"])[:7], entry.facts.get("user", "")] += entry.facts["images"]
        assert {user: used_in["2027-01", user] for user in USERS} == dict.fromkeys(USERS, MOST)
        assert max(used_in.values()) == MOST
        assert {month for month, _user in used_in} == {"2026-12", "2027-01"}
        for user in USERS:
            month = (await used(bench, "acme", user)).quotas["quota_units_per_month"]
            assert (month.window, month.posted, month.reserved) == ("2027-01", MOST * PRICE, 0)
        assert (await verify(bench))["differences"] == []


async def test_limits_that_are_changed_under_load_lose_nothing_that_a_user_holds(bench: Bench) -> None:
    key = await bench.make_key(limits=per_user(concurrent_requests=2))
    spenders = [asyncio.create_task(keep_trying(bench, key, number)) for number in range(9)]
    for turn in range(12):
        own = {USERS[turn % 3]: UserLimits(quota_units_per_day=turn * PRICE, concurrent_requests=1)}
        changed = None if turn % 4 == 3 else LimitsPerUser(concurrent_requests=2, users=own)
        await bench.keys.update(key.key_id, {"limits_per_user": changed})
    await asyncio.gather(*spenders)
    await bench.keys.update(key.key_id, {"limits_per_user": LimitsPerUser(quota_units_per_day=0)})
    counted = Counter[str]()
    for entry in (await bench.ledger.list_entries(LedgerFilter(team="acme"), cursor=None, limit=1_000)).items:
        counted[entry.facts.get("user", "")] += entry.facts["charged"] if entry.facts.get("per_user") == "key" else 0
    for user in USERS:
        assert await today(bench, key.key_id, user) == (counted[user], 0, 0)
    assert (await verify(bench))["differences"] == []


async def keep_trying(bench: Bench, key: Credential, caller: int) -> None:
    for number in range(30):
        try:
            reservation = await bench.admit(key, f"req_{caller}_{number}", PRICE, user=USERS[caller % 3])
        except (InsufficientQuota, RateLimitExceeded):
            continue
        await asyncio.sleep(0)
        if number % 3:
            await bench.store.settle(delivered(reservation))
        else:
            await bench.store.void(reservation.id, "acme", key.key_id)
