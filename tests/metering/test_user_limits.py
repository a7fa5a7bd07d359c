"""Limits of each end user, on real stores: at the limit, at the worst moment, twice, and against the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from time import time
from typing import Any

import pytest

from proxy.domain.api_key import Credential
from proxy.domain.billing.settlement import Delivery, Reservation, Served, Settlement, settle
from proxy.domain.errors import InsufficientQuota, NotFound, RateLimitExceeded, StoreUnavailable
from proxy.domain.limits import Limits, LimitsPerUser, UserLimits, UserUsage
from proxy.domain.money import NO_MONEY
from proxy.domain.people import Person
from proxy.domain.requests.idempotency import Idempotency
from proxy.metering.journal.records import Posting, read_records, write_record
from proxy.metering.ledger.books import LedgerBooks
from proxy.metering.ledger.pages import LedgerFilter
from proxy.metering.ledger.verification import Audit
from proxy.metering.redis.connection import Call
from proxy.metering.redis.scripts import Script
from proxy.metering.redis_store.facts import DAY_MS, utc_day
from proxy.metering.redis_store.keys import used_by_user, user_id
from proxy.metering.redis_store.user_counters import KEPT_MS, UserCounters, _counters
from proxy.metering.store import Details
from proxy.web.admin.ledger import books_view, entry_view, user_books_view
from proxy.web.admin.queries import split_users
from tests.metering.conftest import ENDPOINT, MODEL, Bench, open_bench, quote
from tests.metering.test_limits_machine import CLOCK, moved_clock

__all__ = ["moved_clock"]

PRICE = 5_000
HOUR_MS = 3_600_000


def per_user(users: Mapping[str, UserLimits] | None = None, **limits: Any) -> Limits:
    return Limits(limits_per_user=LimitsPerUser(**limits, users=users or {}))


def delivered(reservation: Reservation, images: int = 1) -> Settlement:
    delivery = Delivery(images=images, served=Served("sample", 200))
    delivery.end(complete=True)
    return settle(reservation, delivery)


def books_of(bench: Bench) -> LedgerBooks:
    return LedgerBooks(bench.runner, bench.pool, bench.store)


async def verify(bench: Bench) -> dict[str, Any]:
    """What ``lightmeter ledger verify`` reports, without the gateway between."""
    books = books_of(bench)

    async def read(path: str, query: Mapping[str, str | None]) -> dict[str, Any]:
        cursor = query.get("cursor")
        if path.startswith("teams/"):
            return {}
        if path == "ledger":
            page = await bench.ledger.list_entries(LedgerFilter(team="acme"), cursor=cursor, limit=3)
            shown = [entry_view(entry, NO_MONEY) for entry in page.items]
            return {"data": shown, "next_cursor": page.next_cursor, "resume_cursor": page.resume_cursor}
        if path.endswith("/users"):
            return user_books_view(await books.read_users("acme", split_users(query["of"] or "")), "acme")
        return books_view(await books.read("acme", after=cursor or "", limit=50), "acme")

    audit = Audit(read)
    async for _ in audit.run("acme"):
        pass
    return audit.report()


async def used(bench: Bench, whose: str, user: str) -> UserUsage:
    registry = bench.teams if whose == "acme" else bench.keys
    return await registry.user_usage(whose, user)


async def today(bench: Bench, whose: str, user: str) -> tuple[int, int, int]:
    """Posted and reserved of the day, and what is held."""
    usage = await used(bench, whose, user)
    day, month = usage.quotas["quota_units_per_day"], usage.quotas["quota_units_per_month"]
    assert (day.posted, day.reserved) == (month.posted, month.reserved)
    return day.posted, day.reserved, usage.held


async def stored(bench: Bench) -> dict[bytes, Any]:
    """Everything that counts a request."""
    names: list[Any] = await bench.redis.keys("lm:{acme}:*")
    return {
        name: await (bench.redis.hgetall(name) if await bench.redis.type(name) == b"hash" else bench.redis.dump(name))
        for name in names
    }


async def test_parallel_requests_of_one_user_stop_at_the_limit_of_key_and_team(bench: Bench) -> None:
    await bench.teams.create("acme", name="", limits=per_user(quota_units_per_month=7 * PRICE))
    keys = [await bench.make_key(limits=per_user(quota_units_per_day=5 * PRICE)) for _ in range(2)]
    calls = [bench.admit(keys[at % 2], f"req_{at}", PRICE, user="ann") for at in range(60)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    admitted = [each for each in results if isinstance(each, Reservation)]
    refused = [each for each in results if isinstance(each, InsufficientQuota)]
    assert (len(admitted), len(refused)) == (7, 53)
    assert all("the user 'ann' of " in each.message for each in refused)
    assert (await bench.teams.get("acme")).quota.reserved == 7 * PRICE
    assert await today(bench, "acme", "ann") == (0, 7 * PRICE, 7)
    # Others have limits of their own.
    await bench.admit(keys[0], "req_bob", PRICE, user="bob")
    for each in (*admitted, *admitted):
        await bench.store.settle(delivered(each))
    assert await today(bench, "acme", "ann") == (7 * PRICE, 0, 0)
    with pytest.raises(InsufficientQuota, match=r"the user 'ann' of its team has 0 left for the month"):
        await bench.admit(keys[1], "req_more", PRICE, user="ann")
    await bench.store.void("req_bob", "acme", keys[0].key_id)
    assert (await verify(bench))["differences"] == []


@pytest.mark.parametrize(
    ("limits", "refusal", "words"),
    [
        ({"quota_units_per_day": PRICE - 1}, InsufficientQuota, r"'ann' of the key has 4,999 left for the day"),
        ({"quota_units_per_month": 0}, InsufficientQuota, r"'ann' of the key has 0 left for the month"),
        ({"images_per_minute": 1}, RateLimitExceeded, r"'ann' of the key may have 1 images a minute \(limits_per_user"),
    ],
)
async def test_a_refused_user_consumes_nothing(
    bench: Bench, limits: dict[str, Any], refusal: type[Exception], words: str
) -> None:
    every = Limits(requests_per_minute=60, images_per_minute=60, concurrent_requests=5, quota_units=10**9)
    key = await bench.make_key(limits=replace(every, limits_per_user=per_user(**limits).limits_per_user))
    before = await stored(bench)
    with pytest.raises(refusal, match=words):
        await bench.admit(key, "req_1", PRICE, images=1 if "images_per_minute" not in limits else 2, user="ann")
    assert await stored(bench) == before


async def test_a_key_that_refuses_leaves_its_user_alone(bench: Bench) -> None:
    key = await bench.make_key(limits=replace(per_user(quota_units_per_day=10 * PRICE), quota_units=PRICE))
    before = await stored(bench)
    with pytest.raises(InsufficientQuota, match="the key has 5,000 left"):
        await bench.admit(key, "req_1", PRICE, images=2, user="ann")
    assert await stored(bench) == before


async def test_some_users_have_other_limits_and_those_without_a_name_are_one_user(bench: Bench) -> None:
    users = {"": UserLimits(quota_units_per_day=0), "chief": UserLimits(), "café": UserLimits(concurrent_requests=2)}
    key = await bench.make_key(limits=per_user(users, concurrent_requests=1))
    with pytest.raises(InsufficientQuota, match=r"the user '' \(who is whoever names none\) of the key has 0 left"):
        await bench.admit(key, "req_0", PRICE)
    for user, most in (("ann", 1), ("café", 2), ("chief", 6)):
        for number in range(most):
            await bench.admit(key, f"req_{user}_{number}", PRICE, user=user)
        if user != "chief":
            with pytest.raises(RateLimitExceeded, match=rf"'{user}' of the key may have {most} requests in progress"):
                await bench.admit(key, f"req_{user}_more", PRICE, user=user)
    await bench.keys.update(key.key_id, {"limits_per_user": LimitsPerUser(quota_units_per_day=PRICE)})
    await bench.admit(key, "req_0", PRICE)
    await bench.admit(key, "req_ann_more", 0, user="ann")
    with pytest.raises(InsufficientQuota):
        await bench.admit(key, "req_chief", PRICE, user="chief")
    await bench.keys.update(key.key_id, {"limits_per_user": None})
    assert (await bench.admit(key, "req_free", PRICE, user="chief")).per_user == ""
    with pytest.raises(NotFound, match="limits_per_user"):
        await used(bench, key.key_id, "chief")


async def test_every_end_of_a_request_gives_its_user_back_what_is_not_charged(store_url: str) -> None:
    async with open_bench(store_url, charge_expired=True) as bench:
        await bench.teams.create("acme", name="", limits=per_user(quota_units_per_day=100 * PRICE))
        key = await bench.make_key(limits=per_user(concurrent_requests=3, quota_units_per_month=100 * PRICE))
        books = books_of(bench)

        async def both() -> tuple[int, int, int]:
            of_key, of_team = await today(bench, key.key_id, "ann"), await today(bench, "acme", "ann")
            assert of_key == of_team
            return of_key

        voided = await bench.admit(key, "req_void", PRICE, images=2, user="ann")
        assert voided.per_user == "both"
        assert await both() == (0, 2 * PRICE, 1)
        for _ in range(2):
            await bench.store.void("req_void", "acme", key.key_id)
        assert await both() == (0, 0, 0)
        # Part of it was made, and more than was asked for.
        for images in (1, 3):
            made = await bench.admit(key, f"req_{images}", PRICE, images=2, user="ann")
            entry = await bench.store.settle(delivered(made, images))
            assert await bench.store.settle(delivered(made, images)) == entry
        assert await both() == (4 * PRICE, 0, 0)
        for _ in range(2):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("secrets.token_hex", lambda _bytes: "the same call")
                await books.refund("acme", entry, reason="black")
        assert await both() == (1 * PRICE, 0, 0)
        # The gateway dies, and the settlement comes from its journal; or nothing had been forwarded.
        for name in ("req_late", "req_never"):
            await bench.admit(key, name, PRICE, images=2, user="ann")
        late = await bench.admit(key, "req_late", PRICE, images=2, user="ann")
        await bench.redis.zadd("lm:{acme}:leases", {"req_late": 1, "req_never": 1})
        await bench.store.reclaim("acme")
        assert await both() == (5 * PRICE, 0, 0)
        (posting,), _ = read_records(write_record(Posting(delivered(late, 1))))
        assert isinstance(posting, Posting)
        for _ in range(2):
            await bench.store.settle(posting.settlement)
            await bench.store.void("req_never", "acme", key.key_id)
        assert await both() == (2 * PRICE, 0, 0)
        # What the store has lost counts as well.
        held = await bench.admit(key, "req_held", PRICE, user="ann")
        await bench.store.settle(delivered(replace(held, id="req_lost"), 1))
        assert await both() == (3 * PRICE, PRICE, 1)
        assert (await verify(bench))["differences"] == []
        await bench.store.settle(delivered(held, 0))
        report = await verify(bench)
        assert (report["differences"], report["entries"], report["users_not_compared"]) == ([], 9, 0)
        entries = await bench.ledger.list_entries(LedgerFilter(team="acme"), cursor=None, limit=100)
        assert {(entry.facts["user"], entry.facts["per_user"]) for entry in entries.items} == {("ann", "both")}


async def test_the_entry_of_an_expired_lease_says_whom_it_was_for_also_without_limits(bench: Bench) -> None:
    key = await bench.make_key(None)
    person = Person("ann", (("env", "prod"), ("per_user", "key")))
    await bench.store.admit(
        "req_1", key, endpoint=ENDPOINT, model=MODEL, quote=quote(PRICE), details=Details(person=person)
    )
    await bench.redis.zadd("lm:{acme}:leases", {"req_1": 1})
    await bench.store.reclaim("acme")
    (entry,) = (await bench.ledger.list_entries(LedgerFilter(team="acme"), cursor=None, limit=9)).items
    assert (entry.facts["outcome"], entry.facts["user"]) == ("expired", "ann")
    assert entry.facts["tags"] == {"env": "prod", "per_user": "key"}
    assert "per_user" not in entry.facts


async def test_one_round_trip_once_it_is_known_that_each_user_has_limits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    submit = bench.runner.submit_command

    def count(script: Script, name: str, command: bytes) -> Call:
        calls.append(script.name)
        return submit(script, name, command)

    monkeypatch.setattr(bench.runner, "submit_command", count)
    plain, limited = await bench.make_key(None), await bench.make_key(limits=per_user(concurrent_requests=9))
    for number, (key, expected) in enumerate(((plain, 1), (plain, 1), (limited, 2), (limited, 1))):
        calls.clear()
        await bench.admit(key, f"req_{number}", 1, user="ann")
        assert calls == ["admit"] * expected
    # Also where the first one is refused.
    await bench.keys.update(limited.key_id, {"limits_per_user": LimitsPerUser(quota_units_per_day=0)})
    bench.store._counts_users.clear()
    for expected in (2, 1):
        calls.clear()
        with pytest.raises(InsufficientQuota):
            await bench.admit(limited, "req_refused", 1, user="ann")
        assert calls == ["admit"] * expected
    # And again where they are no more.
    await bench.keys.update(limited.key_id, {"limits_per_user": None})
    for number in range(2):
        calls.clear()
        assert (await bench.admit(limited, f"req_again_{number}", 1, user="ann")).per_user == ""
        assert calls == ["admit"]


async def test_what_a_user_has_used_expires_when_its_windows_are_over_and_never_while_it_holds(bench: Bench) -> None:
    daily = await bench.make_key(limits=per_user(quota_units_per_day=PRICE))
    monthly = await bench.make_key(limits=per_user(quota_units_per_month=PRICE))
    for key, length in ((daily, 10), (monthly, 7)):
        name = used_by_user("acme", key.key_id, "ann")
        reservation = await bench.admit(key, f"req_{key.key_id}", PRICE, user="ann")
        assert await bench.redis.pttl(name) == -1
        await bench.store.settle(delivered(reservation))
        left_ms = await bench.redis.pttl(name)
        seconds, _ = await bench.redis.time()
        last_ms = seconds * 1_000 + left_ms - KEPT_MS
        assert utc_day(last_ms - 60_000)[:length] == utc_day(reservation.admitted_ms)[:length]
        assert utc_day(last_ms + 60_000)[:length] != utc_day(reservation.admitted_ms)[:length]


async def spoil_time(bench: Bench, key: Credential, user: str, **changes: int) -> UserCounters:
    """As if it had been counted at another time."""
    name = used_by_user("acme", key.key_id, user)
    found = await bench.redis.get(name)
    assert isinstance(found, bytes)
    counters = replace(UserCounters(*_counters.unpack(found)), **changes)
    values = [getattr(counters, field) for field in UserCounters.__dataclass_fields__]
    await bench.redis.set(name, _counters.pack(*values), keepttl=True)
    return counters


async def test_what_the_store_has_lost_of_a_user_is_counted_by_settlements_that_are_posted_again(bench: Bench) -> None:
    key = await bench.make_key(limits=per_user(quota_units_per_month=9 * PRICE))
    name = used_by_user("acme", key.key_id, "ann")
    reservations = [await bench.admit(key, f"req_{number}", PRICE, user="ann") for number in range(3)]
    # As if the store had gone back to before them.
    await bench.redis.delete(name, "lm:{acme}:leases", *(f"lm:{{acme}}:reservation:{each.id}" for each in reservations))
    await bench.redis.hdel(f"lm:{{acme}}:key:{key.key_id}", "counters")
    await bench.redis.hdel("lm:{acme}:team", "counters")
    for each in (*reservations, *reservations):
        await bench.store.settle(delivered(each))
    assert await today(bench, key.key_id, "ann") == (3 * PRICE, 0, 0)
    seconds, _ = await bench.redis.time()
    last_ms = seconds * 1_000 + await bench.redis.pttl(name) - KEPT_MS
    assert utc_day(last_ms - 60_000)[:7] == utc_day(reservations[0].admitted_ms)[:7]
    assert utc_day(last_ms + 60_000)[8:] == "01"
    assert (await verify(bench))["differences"] == []


async def test_days_that_are_over_count_no_more_and_take_nothing_late(store_url: str) -> None:
    async with open_bench(store_url, charge_expired=True) as bench:
        key = await bench.make_key(limits=per_user(quota_units_per_day=3 * PRICE))
        first = await bench.admit(key, "req_1", PRICE, images=2, user="ann")
        second = await bench.admit(key, "req_2", PRICE, user="ann")
        await bench.store.settle(delivered(first, 2))
        await bench.redis.zadd("lm:{acme}:leases", {"req_2": 1})
        await bench.store.reclaim("acme")
        assert await today(bench, key.key_id, "ann") == (3 * PRICE, 0, 0)
        # As if all of that had been on the day before, and an hour more were over.
        day = first.admitted_ms // DAY_MS
        yesterday = (day - 1) * DAY_MS
        changes = {"day": day - 1, "since": day - 1, "until_ms": day * DAY_MS - 2 * HOUR_MS - KEPT_MS}
        await spoil_time(bench, key, "ann", **changes)
        assert await today(bench, key.key_id, "ann") == (0, 0, 0)
        await bench.store.settle(delivered(replace(second, admitted_ms=yesterday), 0))
        assert await today(bench, key.key_id, "ann") == (0, 0, 0)
        third = await bench.admit(key, "req_3", PRICE, images=3, user="ann")
        await bench.store.settle(delivered(third, 3))
        assert await today(bench, key.key_id, "ann") == (3 * PRICE, 0, 0)
        # Also where the store has not thrown it away yet.
        await bench.store.settle(delivered(await bench.admit(key, "req_4", PRICE, user="bob")))
        await spoil_time(bench, key, "bob", **changes)
        await bench.store.settle(delivered(await bench.admit(key, "req_5", PRICE, user="bob")))
        assert await today(bench, key.key_id, "bob") == (PRICE, 0, 0)


async def test_verify_finds_what_a_user_is_counted_wrong(bench: Bench) -> None:
    key = await bench.make_key(limits=per_user(quota_units_per_day=9 * PRICE))
    for user in ("ann", "bob", ""):
        for number in range(3):
            await bench.store.settle(delivered(await bench.admit(key, f"req_{user}{number}", PRICE, user=user)))
    assert (await verify(bench))["ok"] is True
    await spoil_time(bench, key, "ann", day_posted=7)
    await bench.redis.delete(used_by_user("acme", key.key_id, ""))
    await spoil_time(bench, key, "bob", held=1, month_reserved=5)
    found = (await verify(bench))["differences"]
    at = utc_day((await bench.store.reclaim("acme")).now_us // 1_000)
    assert {(each["where"], each["counter"], each["found"], each["should_be"]) for each in found} == {
        (key.key_id, f"user 'ann' {at} posted", 7, 3 * PRICE),
        (key.key_id, f"user '' {at}", 0, 3 * PRICE),
        (key.key_id, "user 'bob' held", 1, 0),
        (key.key_id, f"user 'bob' {at[:7]} reserved", 5, 0),
    }


async def test_verify_compares_while_requests_go_on_and_after_limits_came_late(bench: Bench) -> None:
    key = await bench.make_key(None)
    await bench.store.settle(delivered(await bench.admit(key, "req_0", PRICE, user="ann")))
    await bench.keys.update(key.key_id, {"limits_per_user": LimitsPerUser(quota_units_per_day=10**9)})
    stop = asyncio.Event()

    async def load() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            reservation = await bench.admit(key, f"req_{number}", PRICE, user=("ann", "bob")[number % 2])
            await bench.store.settle(delivered(reservation))

    loads = [asyncio.create_task(load())]
    try:
        for _ in range(3):
            report = await verify(bench)
            assert report["differences"] == []
    finally:
        stop.set()
        await asyncio.gather(*loads)
    assert (await verify(bench))["ok"] is True
    assert (await today(bench, key.key_id, "ann"))[0] < (await bench.record(key)).quota.posted - PRICE


@pytest.mark.usefixtures("moved_clock")
async def test_verify_holds_while_days_and_months_turn(store_url: str) -> None:
    async with open_bench(store_url, settled_ids_ms=100 * DAY_MS) as bench:
        now_us, entries, left = int(time() * 1_000_000), list[str](), list[Reservation]()
        await bench.redis.set(CLOCK, now_us)
        keys = [
            await bench.make_key(limits=per_user(quota_units_per_day=2 * PRICE)),
            await bench.make_key(limits=per_user(quota_units_per_month=90 * PRICE)),
        ]
        for turn, days in enumerate((0, 1, 1, 27, 1, 2, 31)):
            now_us += days * DAY_MS * 1_000
            await bench.redis.set(CLOCK, now_us)
            # They end on a later day, or in a later month, some after their leases have expired.
            if turn % 2:
                await bench.store.reclaim("acme")
            for each in left:
                await bench.store.settle(delivered(each))
            left.clear()
            for key in keys:
                left.append(await bench.admit(key, f"req_{turn}_left_{key.key_id}", PRICE, user="ann"))
                made = await bench.admit(key, f"req_{turn}_{key.key_id}", PRICE, user="ann")
                entries.append(await bench.store.settle(delivered(made)))
                assert (await used(bench, key.key_id, "ann")).quotas["quota_units_per_day"].posted == PRICE
                assert (await used(bench, key.key_id, "ann")).held == 1
            if turn % 3 == 2:
                for entry in entries[-4:-2]:
                    await books_of(bench).refund("acme", entry, reason="black")
            assert (await verify(bench))["differences"] == []


@pytest.mark.usefixtures("moved_clock")
async def test_a_clock_that_was_days_ahead_leaves_no_user_holding_anything(store_url: str) -> None:
    async with open_bench(store_url) as bench:
        now_us = int(time() * 1_000_000)
        await bench.redis.set(CLOCK, now_us + 9 * DAY_MS * 1_000)
        key = await bench.make_key(limits=per_user(quota_units_per_day=3 * PRICE))
        ahead = await bench.admit(key, "req_ahead", PRICE, user="ann")
        await bench.store.settle(delivered(await bench.admit(key, "req_done", PRICE, user="ann")))
        await bench.redis.set(CLOCK, now_us)
        reservation = await bench.admit(key, "req_1", PRICE, user="ann")
        usage = await used(bench, key.key_id, "ann")
        day = usage.quotas["quota_units_per_day"]
        assert (day.posted, day.reserved, usage.held) == (0, PRICE, 2)
        await bench.store.settle(delivered(reservation))
        await bench.store.settle(delivered(ahead))
        usage = await used(bench, key.key_id, "ann")
        assert (usage.quotas["quota_units_per_day"].posted, usage.held) == (PRICE, 0)
        assert (await verify(bench))["differences"] == []


async def test_what_was_trimmed_is_not_compared(bench: Bench) -> None:
    key = await bench.make_key(limits=per_user(quota_units_per_day=9 * PRICE))
    for number in range(2):
        await bench.store.settle(delivered(await bench.admit(key, f"req_{number}", PRICE, user="ann")))
    await asyncio.sleep(0.01)
    assert (await books_of(bench).trim("acme", keep_ms=1)).entries == 2
    await bench.store.settle(delivered(await bench.admit(key, "req_3", PRICE, user="ann")))
    assert (await verify(bench))["ok"] is True


async def test_a_name_of_the_client_and_other_models_go_with_users(bench: Bench) -> None:
    key = await bench.make_key(limits=per_user(quota_units_per_day=300))
    name = Idempotency("1" * 64, "a" * 64)

    async def admit(request_id: str) -> Reservation:
        return await bench.store.admit(
            request_id,
            key,
            endpoint=ENDPOINT,
            model=MODEL,
            quote=quote(100),
            idempotency=name,
            details=Details(fallback_units={"dear": 250, "dearer": 350}, person=Person("ann")),
        )

    first = await admit("req_1")
    # The dearest that the user has the quota for.
    assert (first.fallbacks, first.quote.units, first.per_user) == (("dear",), 250, "key")
    assert (await admit("req_1")).fallbacks == ("dear",)
    assert await today(bench, key.key_id, "ann") == (0, 250, 1)
    settlement = delivered(first, 1)
    await bench.store.settle(settlement)
    assert await today(bench, key.key_id, "ann") == (settlement.charged_units, 0, 0)
    assert (await verify(bench))["ok"] is True


async def test_what_is_no_user_s_counters_fails_before_anything_is_written(bench: Bench) -> None:
    key = await bench.make_key(limits=per_user(quota_units_per_day=300))
    name = used_by_user("acme", key.key_id, "ann")
    reservation = await bench.admit(key, "req_1", 100, user="ann")
    right = await bench.redis.get(name)
    await bench.redis.set(name, b"short")
    before = await stored(bench)
    with pytest.raises(StoreUnavailable):
        await bench.store.settle(delivered(reservation))
    with pytest.raises(StoreUnavailable):
        await bench.admit(key, "req_2", 100, user="ann")
    with pytest.raises(StoreUnavailable):
        await bench.store.void("req_1", "acme", key.key_id)
    await bench.redis.zadd("lm:{acme}:leases", {"req_1": 1})
    with pytest.raises(StoreUnavailable):
        await bench.store.reclaim("acme")
    after = await stored(bench)
    leases = b"lm:{acme}:leases"
    assert {name: value for name, value in after.items() if name != leases} == {
        name: value for name, value in before.items() if name != leases
    }
    assert right is not None
    await bench.redis.set(name, right)
    await bench.store.settle(delivered(reservation))


def test_a_user_s_id_is_made_of_the_name_s_bytes() -> None:
    assert user_id("") == "da39a3ee5e6b4b0d3255bfef95601890afd80709"
    assert used_by_user("acme", "", "a:{b}") == f"lm:{{acme}}:user::{user_id('a:{b}')}"
