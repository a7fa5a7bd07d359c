"""What a script cannot add to fails it before it has written anything: Lua takes nothing back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from proxy.domain.api_key import Credential
from proxy.domain.billing.settlement import Delivery, Served, Settlement, settle
from proxy.domain.errors import StoreUnavailable
from proxy.domain.requests.idempotency import Idempotency, IdempotencyResult, IdempotencyState
from proxy.metering.ledger.books import LedgerBooks
from proxy.metering.redis_store.facts import utc_day
from tests.metering.conftest import ENDPOINT, MODEL, Bench, open_bench, quote

TEAM = "lm:{acme}:"

Spoil = Callable[[Redis, str], Awaitable[object]]


async def wrong_type(redis: Redis, name: str) -> None:
    await redis.delete(name)
    await redis.rpush(name, "a list, which no key of Lightmeter is")


async def short_counters(redis: Redis, name: str) -> None:
    await redis.hset(name, "counters", b"\0" * 96)


def no_number(field: str) -> Spoil:
    return lambda redis, name: redis.hset(name, field, "12 units")


async def contents(bench: Bench) -> dict[Any, Any]:
    """All that is in the store. Not as DUMP has it: the order of a hash's fields tells nothing."""
    read: dict[Any, Callable[[Any], Awaitable[Any]]] = {
        b"string": bench.redis.get,
        b"hash": bench.redis.hgetall,
        b"list": lambda name: bench.redis.lrange(name, 0, -1),
        b"zset": lambda name: bench.redis.zrange(name, 0, -1, withscores=True),
        b"stream": bench.redis.xrange,
    }
    return {name: await read[await bench.redis.type(name)](name) for name in await bench.redis.keys()}


async def check_each(bench: Bench, harm: list[tuple[str, Spoil]], act: Callable[[], Awaitable[object]]) -> None:
    """With each key in turn spoiled ``act`` fails and changes nothing; with none it passes."""
    for name, spoil in harm:
        kept = await bench.redis.dump(name)
        await spoil(bench.redis, name)
        before = await contents(bench)
        with pytest.raises(StoreUnavailable):
            await act()
        assert await contents(bench) == before, (name, spoil)
        await bench.redis.delete(name)
        if kept is not None:
            await bench.redis.restore(name, 0, kept)
    await act()


def account(key_id: str, model: str = MODEL, day: str | None = None) -> list[tuple[str, Spoil]]:
    records = [TEAM + name for name in (f"key:{key_id}", "team")]
    usages = [TEAM + name for name in (f"usage:{key_id}", "usage")]
    found: list[tuple[str, Spoil]] = [(name, wrong_type) for name in (*records, *usages, TEAM + "ledger")]
    found += [(name, short_counters) for name in records]
    if day is not None:
        found += [(name, no_number(f"{day}:units:{model}")) for name in usages]
    return found


def today(admitted_ms: int) -> str:
    return utc_day(admitted_ms)


def delivered() -> Delivery:
    delivery = Delivery(images=1, served=Served("sample", 200))
    delivery.end(complete=True)
    return delivery


async def test_a_settlement_writes_all_or_nothing(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    reservation = await bench.admit(key, "req_1", 5_000)
    day = today(reservation.admitted_ms)
    harm = account(key.key_id, day=day)
    harm += [(f"{TEAM}usage", no_number(f"{day}:images:{MODEL}"))]
    harm += [(TEAM + name, wrong_type) for name in ("leases", "reservation:req_1")]
    await check_each(bench, harm, lambda: bench.store.settle(settle(reservation, delivered())))
    await bench.check_books(key)


async def test_a_settlement_with_an_idempotency_key_writes_all_or_nothing(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    name = Idempotency("1" * 64, "2" * 64)
    reservation = await bench.store.admit(
        "req_1", key, endpoint=ENDPOINT, model=MODEL, quote=quote(5_000), idempotency=name
    )
    (kept,) = [
        each.decode() if isinstance(each, bytes) else each for each in await bench.redis.keys(f"{TEAM}idempotency:*")
    ]
    settlement = replace(settle(reservation, delivered()), ending=IdempotencyResult(name, IdempotencyState.GONE))
    await check_each(bench, [(kept, wrong_type)], lambda: bench.store.settle(settlement))
    await bench.check_books(key)


async def expire(bench: Bench, key: Credential) -> Settlement:
    """A lease that ran out and was charged; the settlement that comes late."""
    reservation = await bench.admit(key, "req_1", 5_000)
    await bench.redis.zadd(f"{TEAM}leases", {"req_1": 1})
    await bench.store.reclaim("acme")
    return settle(reservation, delivered())


async def test_a_late_settlement_writes_all_or_nothing(store_url: str) -> None:
    async with open_bench(store_url, charge_expired=True) as bench:
        key = await bench.make_key(10_000)
        late = await expire(bench, key)
        harm = account(key.key_id, day=today(late.reservation.admitted_ms))
        harm += [(TEAM + name, wrong_type) for name in ("refunds", "reservation:req_1")]
        await check_each(bench, harm, lambda: bench.store.settle(late))
        await bench.check_books(key)


async def test_taking_an_admission_back_writes_all_or_nothing(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    await bench.admit(key, "req_1", 5_000)
    records = [TEAM + name for name in (f"key:{key.key_id}", "team")]
    harm: list[tuple[str, Spoil]] = [(name, spoil) for name in records for spoil in (wrong_type, short_counters)]
    harm += [(TEAM + name, wrong_type) for name in ("leases", "reservation:req_1")]
    await check_each(bench, harm, lambda: bench.store.void("req_1", "acme", key.key_id))
    await bench.check_books(key)


async def test_taking_back_what_was_charged_as_expired_writes_all_or_nothing(store_url: str) -> None:
    async with open_bench(store_url, charge_expired=True) as bench:
        key = await bench.make_key(10_000)
        late = await expire(bench, key)
        harm = account(key.key_id, day=today(late.reservation.admitted_ms))
        harm += [(TEAM + name, wrong_type) for name in ("leases", "refunds", "reservation:req_1")]
        await check_each(bench, harm, lambda: bench.store.void("req_1", "acme", key.key_id))
        await bench.check_books(key)
        assert (await bench.record(key)).quota.posted == 0


async def test_taking_leases_back_writes_all_or_nothing(store_url: str) -> None:
    async with open_bench(store_url, charge_expired=True) as bench:
        first, second = await bench.make_key(10_000), await bench.make_key(10_000)
        await bench.admit(first, "req_1", 5_000)
        held = await bench.admit(second, "req_2", 5_000)
        await bench.redis.zadd(f"{TEAM}leases", {"req_1": 1, "req_2": 2})
        harm = [*account(second.key_id, day=today(held.admitted_ms)), (f"{TEAM}reservation:req_2", wrong_type)]
        await check_each(bench, harm, lambda: bench.store.reclaim("acme"))
        await bench.check_books(first)
        await bench.check_books(second)


async def test_an_admission_that_takes_leases_back_writes_all_or_nothing(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    await bench.admit(key, "req_1", 10_000)
    await bench.redis.zadd(f"{TEAM}leases", {"req_1": 1})
    harm = [*account(key.key_id), (f"{TEAM}reservation:req_1", wrong_type)]
    await check_each(bench, harm, lambda: bench.admit(key, "req_2", 5_000))
    await bench.store.void("req_2", "acme", key.key_id)
    await bench.check_books(key)


async def test_a_refund_writes_all_or_nothing(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    reservation = await bench.admit(key, "req_1", 5_000)
    entry = await bench.store.settle(settle(reservation, delivered()))
    books = LedgerBooks(bench.runner, bench.pool, bench.store)
    harm = account(key.key_id, day=today(reservation.admitted_ms))
    harm += [(TEAM + name, wrong_type) for name in ("refunds", "audit")]
    await check_each(bench, harm, lambda: books.refund("acme", entry, reason="black"))
    await bench.check_books(key)


async def test_a_grant_writes_all_or_nothing(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    harm: list[tuple[str, Spoil]] = [(TEAM + name, wrong_type) for name in (f"key:{key.key_id}", "ledger", "audit")]
    harm += [(f"{TEAM}key:{key.key_id}", no_number("granted"))]
    await check_each(bench, harm, lambda: bench.keys.grant(key.key_id, quota_units=5, reason="more"))
    assert (await bench.record(key)).quota.limit == 10_005


async def test_a_change_writes_all_or_nothing(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    harm: list[tuple[str, Spoil]] = [(TEAM + name, wrong_type) for name in (f"key:{key.key_id}", "audit")]
    await check_each(bench, harm, lambda: bench.keys.update(key.key_id, {"quota_units": 5}))
    await check_each(bench, harm, lambda: bench.keys.revoke(key.key_id))


async def test_trimming_writes_all_or_nothing(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    await bench.store.settle(settle(await bench.admit(key, "req_1", 5_000), delivered()))
    books = LedgerBooks(bench.runner, bench.pool, bench.store)
    names = ["ledger", "refunds", "checkpoint", "checkpoint:", f"checkpoint:{key.key_id}"]
    await check_each(bench, [(TEAM + name, wrong_type) for name in names], lambda: books.trim("acme", keep_ms=-60_000))
    assert await bench.redis.xlen(f"{TEAM}ledger") == 0
