"""Orders of events that hardly ever come, each of which once lost or doubled a charge."""

from __future__ import annotations

from dataclasses import replace

import pytest

from proxy.domain.api_key import Credential
from proxy.domain.billing.settlement import Delivery, Reservation, Served, Settlement, settle
from proxy.domain.errors import Conflict, InvalidApiKey
from proxy.domain.requests.idempotency import Idempotency
from proxy.metering.ledger.books import LedgerBooks
from proxy.metering.ledger.pages import LedgerFilter
from tests.metering.conftest import ENDPOINT, MODEL, Bench, open_bench, quote
from tests.metering.ledger.test_books import check

LEASES = "lm:{acme}:leases"
DAY_MS = 86_400_000


def delivered(reservation: Reservation, images: int) -> Settlement:
    delivery = Delivery(images=images, served=Served("sample", 200))
    delivery.end(complete=True)
    return settle(reservation, delivery)


async def run_out(bench: Bench, request_id: str) -> None:
    await bench.redis.zadd(LEASES, {request_id: 1})
    await bench.store.reclaim("acme")


async def posted(bench: Bench, key: Credential) -> tuple[int, int]:
    team = await bench.teams.get("acme")
    return (await bench.record(key)).quota.posted, team.quota.posted


def books_of(bench: Bench) -> LedgerBooks:
    return LedgerBooks(bench.runner, bench.pool, bench.store)


@pytest.mark.parametrize("charge_expired", [False, True])
async def test_a_settlement_that_comes_when_its_expired_lease_is_forgotten_still_posts(
    store_url: str, charge_expired: bool
) -> None:
    async with open_bench(store_url, charge_expired=charge_expired) as bench:
        key = await bench.make_key(None)
        reservation = await bench.admit(key, "req_1", 5_000, images=4)
        await run_out(bench, "req_1")
        assert await posted(bench, key) == (20_000 * charge_expired,) * 2
        await bench.redis.delete("lm:{acme}:reservation:req_1")
        long_ago = replace(reservation, admitted_ms=reservation.admitted_ms - 3_600_000)
        first = await bench.store.settle(delivered(long_ago, 1))
        assert await posted(bench, key) == (5_000, 5_000)
        await bench.redis.delete("lm:{acme}:reservation:req_1")
        # The late entry is a settlement, and found.
        assert await bench.store.settle(delivered(long_ago, 1)) == first
        assert await posted(bench, key) == (5_000, 5_000)
        await check(bench, books_of(bench), key)


async def test_a_refund_and_a_late_settlement_give_back_once(store_url: str) -> None:
    async with open_bench(store_url, charge_expired=True) as bench:
        key, books = await bench.make_key(None), books_of(bench)
        for number, refund_first in enumerate((True, False)):
            reservation = await bench.admit(key, f"req_{number}", 5_000, images=4)
            await run_out(bench, reservation.id)
            entries = await bench.ledger.list_entries(LedgerFilter(team="acme"), cursor=None, limit=100)
            (entry,) = [
                each.id.removeprefix("acme_") for each in entries.items if each.facts["request"] == reservation.id
            ]
            if refund_first:
                await books.refund("acme", entry, reason="the gateway died")
                await bench.store.settle(delivered(reservation, 1))
            else:
                late = await bench.store.settle(delivered(reservation, 1))
                with pytest.raises(Conflict, match=f"has been replaced by that of 'acme_{late}'"):
                    await books.refund("acme", entry, reason="the gateway died")
            assert await posted(bench, key) == (5_000 * (number + 1),) * 2
        await check(bench, books, key)


async def test_an_admission_that_is_taken_back_after_its_lease_was_charged_costs_nothing(store_url: str) -> None:
    async with open_bench(store_url, charge_expired=True) as bench:
        key = await bench.make_key(None)
        await bench.admit(key, "req_1", 5_000)
        await run_out(bench, "req_1")
        assert await posted(bench, key) == (5_000, 5_000)
        for _ in range(2):
            await bench.store.void("req_1", key.team, key.key_id)
        assert await posted(bench, key) == (0, 0)
        await check(bench, books_of(bench), key)


async def test_a_call_made_again_is_admitted_as_it_was_though_its_key_has_been_revoked(bench: Bench) -> None:
    key = await bench.make_key(5_000)
    reservation = await bench.admit(key, "req_1", 5_000)
    await bench.keys.revoke(key.key_id)
    assert (await bench.admit(key, "req_1", 5_000)).admitted_ms == reservation.admitted_ms
    with pytest.raises(InvalidApiKey):
        await bench.admit(key, "req_2", 5_000)
    await bench.store.settle(delivered(reservation, 1))
    await bench.check_books(key)


async def test_a_name_is_free_again_after_a_void_for_as_long_as_it_is_remembered(store_url: str) -> None:
    async with open_bench(store_url, settled_ids_ms=1) as bench:
        key, name = await bench.make_key(None), Idempotency("1" * 64, "a" * 64)

        async def admit(request_id: str) -> Reservation:
            return await bench.store.admit(
                request_id, key, endpoint=ENDPOINT, model=MODEL, quote=quote(5_000), idempotency=name
            )

        await admit("req_1")
        await bench.store.void("req_1", key.team, key.key_id)
        assert await bench.redis.pttl("lm:{acme}:reservation:req_1") > DAY_MS - 60_000
        await bench.store.settle(delivered(await admit("req_2"), 1))


async def test_what_was_admitted_by_a_clock_that_was_days_ahead_leaves_the_windows_alone(bench: Bench) -> None:
    key = await bench.make_key(None)
    name = f"lm:{{acme}}:key:{key.key_id}"
    before = await bench.admit(key, "req_1", 5_000)
    await bench.store.settle(delivered(before, 1))
    await bench.admit(key, "req_2", 5_000)
    # As if the store's clock had been five days ahead for the second one alone.
    held = await bench.redis.get("lm:{acme}:reservation:req_2")
    assert isinstance(held, bytes)
    ahead_ms = before.admitted_ms + 5 * DAY_MS
    await bench.redis.set("lm:{acme}:reservation:req_2", b"held 5000 %d %b" % (ahead_ms, held.split(b" ", 3)[3]))
    day = (await bench.keys.get(key.key_id)).quotas["quota_units_per_day"]
    assert day.posted == 5_000
    await bench.store.settle(delivered(replace(before, id="req_2", admitted_ms=ahead_ms), 1))
    record = await bench.keys.get(key.key_id)
    # The window of today is still today's, with what was charged in it.
    assert record.quotas["quota_units_per_day"].posted == 5_000
    assert record.quota.posted == 10_000
    assert await bench.redis.hexists(name, "counters")
