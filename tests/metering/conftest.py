"""A store, a registry and a meter on a real server."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import ConnectionPool, Redis

from proxy.domain.api_key import Credential, parse_credential
from proxy.domain.billing.pricing import Quote, Tier
from proxy.domain.billing.settlement import LedgerEntry, Reservation
from proxy.domain.limits import KeyRecord, Limits, TeamRecord
from proxy.domain.people import Person
from proxy.metering.accounts.registry import KeyRegistry, TeamRegistry
from proxy.metering.journal.journal import Journal
from proxy.metering.ledger.pages import LedgerFilter, LedgerPages
from proxy.metering.meter import Meter
from proxy.metering.redis import scripts
from proxy.metering.redis.pool import StorePool, open_pool
from proxy.metering.redis.replicated import open_runner
from proxy.metering.redis.runner import ScriptRunner
from proxy.metering.redis_store.charges import Charges
from proxy.metering.redis_store.facts import utc_day
from proxy.metering.redis_store.store import RedisStore
from proxy.metering.store import NO_DETAILS, Details
from proxy.telemetry.metrics import Metrics
from tests.support.clusters import client_of

MODEL = "acme/image-1"
ENDPOINT = "/v1/images/generations"


def quote(units: int, images: int = 1) -> Quote:
    """A quote over ``images`` at ``units`` each."""
    return Quote(images=images, unit_price=units, units=images * units, tier=Tier.STANDARD)


@dataclass
class Bench:
    """Everything of metering, on one store."""

    pool: StorePool
    runner: ScriptRunner
    store: RedisStore
    keys: KeyRegistry
    teams: TeamRegistry
    ledger: LedgerPages
    meter: Meter
    metrics: Metrics
    redis: Redis

    async def make_key(
        self,
        quota_units: int | None = None,
        *,
        team: str = "acme",
        models: tuple[str, ...] = ("*",),
        limits: Limits | None = None,
    ) -> Credential:
        """A new key; ``limits`` in place of the quota and the models."""
        limits = limits or Limits(quota_units=quota_units, models=models)
        _record, text = await self.keys.create(team, name="test", limits=limits, expires_ms=None)
        credential = parse_credential(text)
        assert credential is not None
        return credential

    async def admit(
        self, credential: Credential, reservation_id: str, units: int, images: int = 1, user: str = ""
    ) -> Reservation:
        """One admission."""
        return await self.store.admit(
            reservation_id,
            credential,
            endpoint=ENDPOINT,
            model=MODEL,
            quote=quote(units, images),
            details=Details(person=Person(user)) if user else NO_DETAILS,
        )

    async def record(self, credential: Credential) -> KeyRecord:
        """The key as it stands."""
        return await self.keys.get(credential.key_id)

    async def check_books(self, credential: Credential) -> None:
        """The counters of the key and of its team equal the ledger, window by window, and nothing is held."""
        page = await self.ledger.list_entries(LedgerFilter(team=credential.team), cursor=None, limit=1_000)
        assert page.next_cursor is None
        charges = [entry for entry in page.items if entry.kind != "grant"]
        requests = [entry.facts["request"] for entry in charges if entry.kind == "request"]
        assert len(set(requests)) == len(requests)
        assert await self.redis.zcard(f"lm:{{{credential.team}}}:leases") == 0
        check_account(await self.teams.usage(credential.team), charges)
        own = [entry for entry in charges if entry.facts["key"] == credential.key_id]
        check_account(await self.keys.usage(credential.key_id), own)


def check_account(
    usage: tuple[KeyRecord | TeamRecord, dict[str, Charges], dict[str, Charges]], charges: list[LedgerEntry]
) -> None:
    """What a key or a team has counted is what these entries add up to, and nothing is held."""
    record, by_model, by_day = usage
    assert record.quota.posted == sum(entry.facts["charged"] for entry in charges)
    assert record.overage_units == sum(entry.facts["overage"] for entry in charges)
    assert record.images == sum(entry.facts["images"] for entry in charges)
    assert record.held == 0
    for name in ("quota_units_per_day", "quota_units_per_month"):
        window = record.quotas[name]
        assert window.window is not None
        assert window.posted == sum(
            entry.facts["charged"] for entry in charges if utc_day(entry.facts["admitted_ms"]).startswith(window.window)
        )
    assert {quota.reserved for quota in record.quotas.values()} == {0}
    for headings in (by_model, by_day):
        assert sum(each.quota_units for each in headings.values()) == record.quota.posted
        assert sum(each.images for each in headings.values()) == record.images


@asynccontextmanager
async def open_bench(
    store_url: str,
    *,
    lease_ms: int = 60_000,
    settled_ids_ms: int = 60_000,
    charge_expired: bool = False,
    timeout_s: float = 2,
    min_replicas: int = 0,
    burst_ms: int = 60_000,
    journal_folder: Path | None = None,
) -> AsyncIterator[Bench]:
    """Metering on a store, its journal in a folder of its own unless one is given."""
    metrics = Metrics()
    # All of them are closed for a test that fails too: what it left open would make others fail.
    async with AsyncExitStack() as parts:
        pool = open_pool(store_url, timeout_s=10)
        parts.push_async_callback(pool.aclose)
        redis: Any = Redis(connection_pool=pool) if isinstance(pool, ConnectionPool) else client_of(store_url)
        if not isinstance(pool, ConnectionPool):
            parts.push_async_callback(redis.aclose)
        runner = open_runner(store_url, metrics, timeout_s=timeout_s, min_replicas=min_replicas)
        parts.push_async_callback(runner.close)
        store = RedisStore(
            runner,
            metrics,
            lease_ms=lease_ms,
            settled_ids_ms=settled_ids_ms,
            charge_expired=charge_expired,
            burst_ms=burst_ms,
        )
        folder = journal_folder or Path(parts.enter_context(tempfile.TemporaryDirectory()))
        meter = Meter(store, Journal(folder, metrics, store_url="redis://test"), metrics, lease_ms=lease_ms)
        parts.push_async_callback(meter.close, timeout_s=1)
        await meter.start()
        yield Bench(
            pool,
            runner,
            store,
            KeyRegistry(runner, pool, store),
            TeamRegistry(runner, pool, store),
            LedgerPages(pool, store),
            meter,
            metrics,
            redis,
        )


STRICT = """
local declared, given = {}, redis
for _, key in ipairs(KEYS) do declared[key] = true end
local redis = {sha1hex = given.sha1hex, call = function(command, key, ...)
  if key == nil then return given.call(command) end
  if not declared[key] and key ~= 'lm:test-clock' then error('not declared: ' .. key) end
  return given.call(command, key, ...)
end}
"""
"""Before a script: it may touch only what it declares, as with the strictest proxies of a Cluster."""


@pytest.fixture(scope="session", autouse=True)
def strict_scripts() -> Iterator[None]:
    """Each script of these tests is refused a key that it has not declared."""
    folders = files("proxy.metering.redis_store").joinpath("lua").iterdir()
    parts = {
        file.name.removesuffix(".lua") for folder in folders if folder.name == "parts" for file in folder.iterdir()
    }
    texts = {name: text if name in parts else STRICT + text for name, text in scripts._texts().items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scripts, "_texts", lambda: texts)
        scripts.load_script.cache_clear()
        yield
    scripts.load_script.cache_clear()


@pytest.fixture
async def bench(store_url: str) -> AsyncIterator[Bench]:
    """Metering on a real store with nothing in it."""
    async with open_bench(store_url) as opened:
        yield opened
