"""The store as a process has it: how it is reached, and the embedded one where there is one."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from proxy.metering.embedded.server import EmbeddedStore
from proxy.metering.redis.pool import StorePool, open_pool
from proxy.metering.redis.replicated import open_runner
from proxy.metering.redis_store.store import RedisStore
from proxy.settings.settings import Settings
from proxy.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from proxy.metering.redis.runner import ScriptRunner


@dataclass(frozen=True, slots=True)
class StoreSide:
    """Scripts go by the runner, all else by the pool."""

    runner: ScriptRunner
    redis_pool: StorePool
    store: RedisStore
    metrics: Metrics


def embedded_store(settings: Settings) -> EmbeddedStore | None:
    """The embedded store, where the settings ask for it; it does not run yet."""
    folder = settings.embedded_folder
    if folder is None:
        return None
    return EmbeddedStore(folder, server=settings.store.server, appendfsync=settings.store.appendfsync)


async def start_embedded_store(settings: Settings, parts: AsyncExitStack) -> str:
    """Start the embedded store, where the settings ask for it; where the store is. Raises EmbeddedStoreError."""
    store = embedded_store(settings)
    if store is None:
        return settings.store.url
    await store.start()
    parts.push_async_callback(store.stop)
    return store.url


def open_store(settings: Settings, url: str, metrics: Metrics, parts: AsyncExitStack) -> StoreSide:
    """What reaches the store at ``url``; ``parts`` close it. Nothing is connected yet."""
    accounting = settings.accounting
    redis_pool = open_pool(url, timeout_s=settings.store.timeout)
    parts.push_async_callback(redis_pool.aclose)
    runner = open_runner(url, metrics, timeout_s=settings.store.timeout, min_replicas=settings.store.min_replicas)
    parts.push_async_callback(runner.close)
    store = RedisStore(
        runner,
        metrics,
        lease_ms=accounting.lease_seconds * 1000,
        settled_ids_ms=accounting.settled_ids_seconds * 1000,
        charge_expired=accounting.expired == "charge",
        burst_ms=accounting.burst_seconds * 1000,
    )
    return StoreSide(runner, redis_pool, store, metrics)
