"""A key of the wrong type fails a script before it has written anything: Lua takes nothing back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from proxy.domain.errors import StoreUnavailable
from proxy.domain.settlement import Delivery, settle
from proxy.metering.ledger_books import LedgerBooks
from tests.metering.conftest import Bench

TEAM = "lm:{acme}:"


async def dump(bench: Bench) -> dict[bytes | str, bytes | None]:
    return {name: await bench.redis.dump(name) for name in await bench.redis.keys()}


async def check_each(bench: Bench, names: list[str], act: Callable[[], Awaitable[object]]) -> None:
    """With each key in turn of the wrong type ``act`` fails and changes nothing; with none it passes."""
    for name in names:
        kept = await bench.redis.dump(name)
        await bench.redis.delete(name)
        await bench.redis.rpush(name, "a list, which no key of Lightmeter is")
        before = await dump(bench)
        with pytest.raises(StoreUnavailable):
            await act()
        assert await dump(bench) == before, name
        await bench.redis.delete(name)
        if kept is not None:
            await bench.redis.restore(name, 0, kept)
    await act()


def account(key_id: str) -> list[str]:
    return [TEAM + name for name in (f"key:{key_id}", "team", f"usage:{key_id}", "usage", "ledger")]


def delivered() -> Delivery:
    delivery = Delivery(images=1, provider="sample", provider_status=200)
    delivery.end(complete=True)
    return delivery


async def test_a_settlement_writes_all_or_nothing(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    reservation = await bench.admit(key, "req_1", 5_000)
    names = [*account(key.key_id), f"{TEAM}leases", f"{TEAM}reservation:req_1"]
    await check_each(bench, names, lambda: bench.store.settle(settle(reservation, delivered())))
    await bench.check_books(key)


async def test_taking_leases_back_writes_all_or_nothing(bench: Bench) -> None:
    first, second = await bench.make_key(10_000), await bench.make_key(10_000)
    await bench.admit(first, "req_1", 5_000)
    await bench.admit(second, "req_2", 5_000)
    await bench.redis.zadd(f"{TEAM}leases", {"req_1": 1, "req_2": 2})
    names = [*account(second.key_id), f"{TEAM}reservation:req_2"]
    await check_each(bench, names, lambda: bench.store.reclaim("acme"))
    await bench.check_books(first)
    await bench.check_books(second)


async def test_a_refund_writes_all_or_nothing(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    entry = await bench.store.settle(settle(await bench.admit(key, "req_1", 5_000), delivered()))
    books = LedgerBooks(bench.runner, bench.pool, bench.store)
    names = [*account(key.key_id), f"{TEAM}refunds", f"{TEAM}audit"]
    await check_each(bench, names, lambda: books.refund("acme", entry, reason="black"))
    await bench.check_books(key)
