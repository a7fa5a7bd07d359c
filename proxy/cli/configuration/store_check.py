"""Whether the store that a configuration names can be used, as a gateway would use it: by a script that writes."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from redis.exceptions import RedisError

from proxy.metering.embedded.binary import ServerBinaryError, find_server_binary
from proxy.metering.redis.durability import Finding, StoreFacts, judge, survey
from proxy.metering.redis.pool import open_pool
from proxy.metering.redis.replicated import open_runner
from proxy.settings.settings import Settings
from proxy.telemetry.metrics import Metrics


@dataclass
class StoreCheck:
    """Why the store cannot be used, and what it may lose."""

    mistakes: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


async def check_store(settings: Settings) -> StoreCheck:
    """Ask the store. An embedded one is not started for it: its settings are Lightmeter's own."""
    if settings.embedded_folder is None:
        return await _ask(settings)
    checked = StoreCheck(findings=[*judge(StoreFacts(appendonly=True, appendfsync=settings.store.appendfsync))])
    try:
        await asyncio.to_thread(find_server_binary, settings.store.server)
    except ServerBinaryError as error:
        text = str(error)
        checked.mistakes.append(text if text.startswith("store.") else f"store.url: {text}")
    return checked


async def _ask(settings: Settings) -> StoreCheck:
    why_not = await _why_not(settings)
    if why_not:
        return StoreCheck(mistakes=[f"store.url: the store cannot be used: {why_not}"])
    try:
        findings = await _survey(settings)
    except (RedisError, OSError, RuntimeError) as error:
        why = str(error) or f"no answer within {settings.store.timeout:g} seconds"
        return StoreCheck(findings=[Finding(logging.WARNING, f"it cannot be asked now what it may lose ({why})")])
    mistakes = [finding.text for finding in findings if finding.refuses]
    return StoreCheck(mistakes, [finding for finding in findings if not finding.refuses])


async def _why_not(settings: Settings) -> str:
    """Why no request could be admitted, empty where it could."""
    runner = open_runner(settings.store.url, Metrics(), timeout_s=settings.store.timeout)
    try:
        # Any node of a Cluster will do; what is wrong with the others is looked for next.
        return "" if await runner.ping() else runner.health.why or "it does not answer"
    finally:
        await runner.close()


async def _survey(settings: Settings) -> list[Finding]:
    pool = open_pool(settings.store.url, timeout_s=settings.store.timeout)
    try:
        async with asyncio.timeout(settings.store.timeout):
            return await survey(pool, min_replicas=settings.store.min_replicas)
    finally:
        await pool.aclose()
