"""What requests, keys and teams cost the store: processor time of its process, and bytes of its memory."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from proxy.domain.api_key import Credential
from proxy.domain.billing.settlement import Delivery, Outcome, Reservation, Served, settle
from proxy.domain.limits import Limits
from proxy.domain.requests.idempotency import Idempotency
from proxy.telemetry.observation import request_ids
from tests.benchmarks.servers import cpu_seconds
from tests.metering.conftest import ENDPOINT, MODEL, Bench, open_bench, quote
from tests.support.stores import store_server

EVERY_LIMIT = Limits(
    quota_units=10**12,
    quota_units_per_day=10**12,
    quota_units_per_month=10**12,
    requests_per_minute=1_000_000,
    images_per_minute=1_000_000,
    concurrent_requests=1_000,
    models=("acme/*",),
)
AS_THE_EMBEDDED_ONE = ("--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction")
DAY_MS = 86_400_000
UNITS = 5_000
AT_ONCE = 50
"""What a busy gateway sends in one pipeline."""

ROUNDS = 8
"""Of them the least counts: other load on the machine makes processor time longer, and never shorter."""

SETTLING_S = 0.5
"""The store's tables shrink step by step, in between its other work."""

STILL_S = 0.1
STILL_BYTES = 64
STILL_READINGS = 4
"""So many readings, so far from each other, that differ by no more: the store has come to rest."""

USAGE = (
    b'{"total_tokens":4210,"input_tokens":50,"output_tokens":4160,"input_tokens_details":{"text_tokens":50,'
    b'"image_tokens":0}}'
)
_served = Served("openai", 200, ms=8_123)
_image = Delivery(served=_served, outcome=Outcome.DELIVERED, ended=True, whole=True, images=1)
ENTRIES = {
    "an image": _image,
    "with the provider's usage": replace(_image, provider_usage=USAGE),
    "with the provider's usage and the image's size": replace(_image, provider_usage=USAGE, sizes=((1024, 1024),)),
    "with the provider's usage, four images and their sizes, at the third deployment": replace(
        _image,
        served=replace(_served, attempts=3),
        images=4,
        provider_usage=USAGE,
        sizes=((1024, 1024),) * 4,
    ),
}
"""Ledger entries, from one without anything that may be left out to a long one."""

ORDINARY = "with the provider's usage and the image's size"

_REPEAT = """
local entries = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', ARGV[1])
for _, entry in ipairs(entries) do redis.call('XADD', KEYS[1], '*', unpack(entry[2])) end
"""
"""The last entries once more: the real ones, as often as it is run."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured. Bytes of an entry, a key and a team hardly depend on it."""

    teams: int = 2_000
    keys: int = 10_000
    real_entries: int = 500
    entries: int = 200_000
    requests: int = 1_500


@dataclass(frozen=True, slots=True)
class StoreCosts:
    """Microseconds of processor time of the store's process, the least of some rounds."""

    admit_us: float
    settle_us: float


@dataclass(frozen=True, slots=True)
class StoreBytes:
    """Bytes of the store's memory."""

    entries: dict[str, float]
    settled_id: float
    idempotency: float
    key: float
    team: float


async def measure_costs(backend: str, folder: Path, scale: Scale) -> tuple[StoreCosts, str]:
    """What an admission and a settlement cost one kind of store, and its version."""
    with store_server(backend, folder, *AS_THE_EMBEDDED_ONE) as (url, server):
        async with open_bench(url, settled_ids_ms=DAY_MS) as bench:
            credentials = await _make_keys(bench, teams=100, keys=1_000)
            process = psutil.Process(server.process.pid)
            rounds = [await _round(bench, process, credentials, scale.requests) for _ in range(ROUNDS + 1)]
            info = await bench.redis.info("server")
    version = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
    # The first one has the store load scripts and grow its tables.
    return StoreCosts(min(each.admit_us for each in rounds[1:]), min(each.settle_us for each in rounds[1:])), version


async def measure_bytes(folder: Path, scale: Scale) -> StoreBytes:
    """What stays in the embedded Valkey's memory."""
    with store_server("valkey", folder) as (url, _):
        async with open_bench(url, settled_ids_ms=DAY_MS) as bench:
            entries = {name: await _entry_bytes(bench, delivery, scale) for name, delivery in ENTRIES.items()}
            await bench.redis.flushall()
            credentials = await _make_keys(bench, scale.teams, scale.keys)
            ids = request_ids()

            async def one(credential: Credential) -> None:
                request_id = next(ids)
                named = Idempotency(hashlib.sha256(request_id.encode()).hexdigest(), "0" * 64)
                await bench.store.settle(settle(await _admit(bench, credential, request_id, named), _image))

            await _in_batches(one, credentials)
            # The first walk over the keys has buffers made that stay.
            await _freed_by(bench, "none")
            settled_ids = await _freed_by(bench, "lm:*:reservation:*")
            idempotency = await _freed_by(bench, "lm:*:idempotency:*")
            ledgers = await _freed_by(bench, "lm:*:ledger")
            keys = sum([await _freed_by(bench, f"lm:*:{each}") for each in ("key:*", "usage:*", "keys")])
            rest = await _freed_by(bench, "lm:*")
    # A team's own stream and the beginning of each entry's block are the team's.
    of_teams = rest + ledgers - scale.keys * entries["an image"]
    return StoreBytes(
        entries=entries,
        settled_id=settled_ids / scale.keys,
        idempotency=idempotency / scale.keys,
        key=keys / scale.keys,
        team=of_teams / scale.teams,
    )


async def _round(bench: Bench, process: psutil.Process, credentials: Sequence[Credential], requests: int) -> StoreCosts:
    """So many admissions, and then their settlements."""
    ids = request_ids()
    reservations: list[Reservation] = []

    async def admit(credential: Credential) -> None:
        reservations.append(await _admit(bench, credential, next(ids)))

    async def end(reservation: Reservation) -> None:
        await bench.store.settle(settle(reservation, ENTRIES[ORDINARY]))

    begun = cpu_seconds(process)
    await _in_batches(admit, list(itertools.islice(itertools.cycle(credentials), requests)))
    admitted = cpu_seconds(process)
    await _in_batches(end, reservations)
    settled = cpu_seconds(process)
    return StoreCosts((admitted - begun) / requests * 1e6, (settled - admitted) / requests * 1e6)


async def _make_keys(bench: Bench, teams: int, keys: int) -> list[Credential]:
    """So many keys of so many teams, each with every limit."""
    names = [f"team-{number:06d}" for number in range(teams)]

    async def make_team(name: str) -> None:
        await bench.teams.create(name, name=f"The team {name}", limits=EVERY_LIMIT)

    await _in_batches(make_team, names)
    made: list[Credential] = []

    async def make_key(team: str) -> None:
        made.append(await bench.make_key(team=team, limits=EVERY_LIMIT))

    await _in_batches(make_key, list(itertools.islice(itertools.cycle(names), keys)))
    return made


async def _entry_bytes(bench: Bench, delivery: Delivery, scale: Scale) -> float:
    """Of one ledger entry: real ones, made by the real scripts, then the same again and again."""
    await bench.redis.flushall()
    credential, ids = await bench.make_key(limits=EVERY_LIMIT), request_ids()

    async def one(_number: int) -> None:
        reservation = await _admit(bench, credential, next(ids))
        await bench.store.settle(settle(reservation, delivery))

    await _in_batches(one, range(scale.real_entries))
    before = await _used(bench)
    ledger = f"lm:{{{credential.team}}}:ledger"
    repeat = bench.redis.register_script(_REPEAT)
    for _ in range(scale.entries // scale.real_entries):
        await repeat(keys=[ledger], args=[scale.real_entries])
    made = await bench.redis.xlen(ledger) - scale.real_entries
    return (await _used(bench) - before) / made


async def _admit(
    bench: Bench, credential: Credential, request_id: str, idempotency: Idempotency | None = None
) -> Reservation:
    return await bench.store.admit(
        *(request_id, credential), endpoint=ENDPOINT, model=MODEL, quote=quote(UNITS), idempotency=idempotency
    )


async def _in_batches(one: Callable[[Any], Awaitable[None]], each: Sequence[Any]) -> None:
    for start in range(0, len(each), AT_ONCE):
        await asyncio.gather(*map(one, each[start : start + AT_ONCE]))


async def _freed_by(bench: Bench, pattern: str) -> float:
    before = await _used(bench)
    async for key in bench.redis.scan_iter(pattern, count=1_000):
        await bench.redis.delete(key)
    return before - await _used(bench)


async def _used(bench: Bench) -> int:
    """Bytes of data, once the store is at rest. Raises TimeoutError where it does not come to rest."""
    await bench.redis.connection_pool.disconnect(inuse_connections=False)
    await asyncio.sleep(SETTLING_S)
    readings = [await _bytes_now(bench)]
    async with asyncio.timeout(60):
        while len(readings) < STILL_READINGS or max(readings) - min(readings) > STILL_BYTES:
            await asyncio.sleep(STILL_S)
            readings = [*readings, await _bytes_now(bench)][-STILL_READINGS:]
    return readings[-1]


async def _bytes_now(bench: Bench) -> int:
    info = await bench.redis.info("memory")
    # What connections have in their buffers is none of the data; INFO's own sum of it may be a second old.
    return int(info["used_memory"]) - sum(int(client["tot-mem"]) for client in await bench.redis.client_list())
