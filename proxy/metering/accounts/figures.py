"""Figures that people look at: what all gateways on a store did, by minute for some hours and by UTC day for weeks.

Each process adds what it has done since it last did so. They are for looking at, not for accounting: a process that
dies loses some seconds of them, and a reply that was lost counts them twice. What counts is the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from time import time

from proxy.domain.errors import ProxyError
from proxy.metering.redis.pool import StorePool, ask_all, reads_of
from proxy.metering.redis_store import keys as key_names
from proxy.metering.redis_store.facts import DAY_MS, utc_day

logger = logging.getLogger(__name__)

WRITE_EVERY_S = 3.0
LAST_WRITE_S = 1.0
HOURS_KEPT = 3
DAYS_KEPT = 40
HOUR_S, MINUTE_S = 3_600, 60
OWN_TIME = "own:"
"""Of what begins so, days keep nothing."""

Figures = Mapping[str, int]


class FigureWriter:
    """Adds what a process does to the figures of its store."""

    def __init__(self, pool: StorePool, totals: Callable[[], Figures], now: Callable[[], float] = time) -> None:
        """``totals`` are sums since the start by name; ``now`` is in seconds since the epoch."""
        self._redis = reads_of(pool)
        self._totals = totals
        self._now = now
        self._written: Figures = totals()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Write every few seconds."""
        self._task = asyncio.create_task(self._run(), name="figures")

    async def stop(self) -> None:
        """Write what is left, if the store takes it soon."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        with contextlib.suppress(ProxyError, TimeoutError):
            async with asyncio.timeout(LAST_WRITE_S):
                await self.write()

    async def write(self) -> None:
        """Add what is new. Raises StoreUnavailable, and keeps it for the next time then."""
        totals = dict(self._totals())
        new = {name: total - self._written.get(name, 0) for name, total in totals.items()}
        new = {name: count for name, count in new.items() if count > 0}
        if new:
            await ask_all(self._redis, _commands(new, self._now()))
        self._written = totals

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            try:
                await self.write()
            except ProxyError:
                # The store says so itself, and what is new is added later.
                logger.debug("the figures could not be written")


class FigureReader:
    """Reads the figures of a store. Raises StoreUnavailable."""

    def __init__(self, pool: StorePool, now: Callable[[], float] = time) -> None:
        """``now`` is in seconds since the epoch."""
        self._redis = reads_of(pool)
        self._now = now

    async def minutes(self, count: int) -> list[tuple[int, Figures]]:
        """The last ``count`` minutes with this one, oldest first, each by its begin in seconds since the epoch."""
        last = int(self._now()) // MINUTE_S * MINUTE_S
        wanted = [last - MINUTE_S * (count - 1 - back) for back in range(count)]
        hours = sorted({minute // HOUR_S for minute in wanted})
        hashes = await self._hashes([key_names.figures_of_hour(hour) for hour in hours])
        found: dict[int, Counter[str]] = {minute: Counter() for minute in wanted}
        for hour, fields in zip(hours, hashes, strict=True):
            for field, value in fields.items():
                minute, _, name = field.partition(":")
                begin = hour * HOUR_S + int(minute) * MINUTE_S
                if begin in found:
                    found[begin][name] += value
        return list(found.items())

    async def days(self, count: int) -> list[tuple[str, Figures]]:
        """The last ``count`` UTC days with this one, oldest first."""
        now_ms = int(self._now() * 1000)
        days = [utc_day(now_ms - DAY_MS * (count - 1 - back)) for back in range(count)]
        return list(zip(days, await self._hashes([key_names.figures_of_day(day) for day in days]), strict=True))

    async def _hashes(self, names: Sequence[str]) -> list[dict[str, int]]:
        replies = await ask_all(self._redis, [("HGETALL", name) for name in names])
        return [{field.decode(): int(value) for field, value in fields.items()} for fields in replies]


def _commands(new: Figures, now_s: float) -> list[tuple[str | int, ...]]:
    now = int(now_s)
    hour, minute = key_names.figures_of_hour(now // HOUR_S), now % HOUR_S // MINUTE_S
    day = key_names.figures_of_day(utc_day(now * 1000))
    commands: list[tuple[str | int, ...]] = [
        ("HINCRBY", hour, f"{minute}:{name}", count) for name, count in new.items()
    ]
    commands += [("HINCRBY", day, name, count) for name, count in new.items() if not name.startswith(OWN_TIME)]
    return [*commands, ("EXPIRE", hour, HOURS_KEPT * HOUR_S), ("EXPIRE", day, DAYS_KEPT * 24 * HOUR_S)]
