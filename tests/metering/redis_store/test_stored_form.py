"""What is stored, to the byte: gateways of version 1.0.0 read and write it too, beside these and before them."""

from __future__ import annotations

import struct
from typing import Any

import orjson

from proxy.domain.billing.settlement import Delivery, Reservation, Served, settle
from proxy.metering.redis_store.facts import DAY_MS, utc_day
from tests.metering.conftest import ENDPOINT, MODEL, Bench, quote

TEAM = "lm:{acme}:"
COUNTERS = struct.Struct(">13q")


def facts_of(key_id: str) -> bytes:
    about = {
        "key": key_id,
        "endpoint": ENDPOINT,
        "model": MODEL,
        "requested_images": 1,
        "tier": "standard",
        "unit_price": 5_000,
    }
    return orjson.dumps(about)


def first_of_month(admitted_ms: int) -> int:
    """In days since the epoch."""
    return admitted_ms // DAY_MS - int(utc_day(admitted_ms)[-2:]) + 1


async def test_an_admission_stores_what_version_1_0_0_does(bench: Bench) -> None:
    key = await bench.make_key(20_000)
    admitted_ms = (await bench.admit(key, "req_1", 5_000)).admitted_ms
    held = b"held 5000 %d %b" % (admitted_ms, facts_of(key.key_id))
    assert await bench.redis.get(f"{TEAM}reservation:req_1") == held
    assert await bench.redis.zrange(f"{TEAM}leases", 0, -1, withscores=True) == [(b"req_1", admitted_ms + 60_000)]
    day, month = admitted_ms // DAY_MS, first_of_month(admitted_ms)
    for name in (f"key:{key.key_id}", "team"):
        stored: Any = await bench.redis.hget(TEAM + name, "counters")
        assert COUNTERS.unpack(stored) == (5_000, 0, 0, 0, 1, day, 5_000, 0, month, 5_000, 0, 0, 0)


async def test_what_version_1_0_0_holds_is_settled_as_it_does(bench: Bench) -> None:
    key = await bench.make_key(100_000)
    seconds, _microseconds = await bench.redis.time()
    admitted_ms = seconds * 1_000
    day, month, today = admitted_ms // DAY_MS, first_of_month(admitted_ms), utc_day(admitted_ms)
    records, usages = (f"key:{key.key_id}", "team"), (f"usage:{key.key_id}", "usage")
    for name in records:
        counters = (5_000, 15_000, 0, 3, 1, day, 5_000, 15_000, month, 5_000, 15_000, 0, 0)
        await bench.redis.hset(TEAM + name, "counters", COUNTERS.pack(*counters))
    for name in usages:
        await bench.redis.hset(TEAM + name, mapping={f"{today}:units:{MODEL}": 15_000, f"{today}:images:{MODEL}": 3})
    await bench.redis.set(f"{TEAM}reservation:req_1", b"held 5000 %d %b" % (admitted_ms, facts_of(key.key_id)))
    await bench.redis.zadd(f"{TEAM}leases", {"req_1": admitted_ms + 60_000})

    reservation = Reservation("req_1", "acme", key.key_id, ENDPOINT, MODEL, quote(5_000), admitted_ms, None)
    delivery = Delivery(images=1, served=Served("sample", 200))
    delivery.end(complete=True)
    settlement = settle(reservation, delivery)
    entry = (await bench.store.settle(settlement)).encode()

    for name in records:
        stored: Any = await bench.redis.hget(TEAM + name, "counters")
        assert COUNTERS.unpack(stored) == (0, 20_000, 0, 4, 0, day, 0, 20_000, month, 0, 20_000, 0, 0)
    for name in usages:
        used = {f"{today}:units:{MODEL}".encode(): b"20000", f"{today}:images:{MODEL}".encode(): b"4"}
        assert await bench.redis.hgetall(TEAM + name) == used
    assert await bench.redis.get(f"{TEAM}reservation:req_1") == b"settled %b 5000" % entry
    assert await bench.redis.zcard(f"{TEAM}leases") == 0
    ledger: Any = await bench.redis.xrange(f"{TEAM}ledger")
    ((entry_id, fields),) = ledger
    assert entry_id == entry
    assert [*fields] == [b"kind", b"key", b"request", b"outcome", b"images", b"charged", b"overage", b"facts"]
    assert [*fields.values()][:-1] == [b"request", key.key_id.encode(), b"req_1", b"delivered", b"1", b"5000", b"0"]
