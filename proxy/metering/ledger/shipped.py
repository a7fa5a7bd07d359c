"""How far the ledger has been shipped: what a shipper asks for, what it reports, and how far behind each of them is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from proxy.metering.ledger.books import LedgerBooks
from proxy.metering.pages import Page
from proxy.metering.redis.pool import StorePool, ask, ask_all, earliest_time_ms, reads_of
from proxy.metering.redis.runner import ScriptRunner
from proxy.metering.redis.scripts import load_script
from proxy.metering.redis_store import keys as key_names
from proxy.metering.redis_store.store import RedisStore

SHIPPER_PATTERN = r"[a-z][a-z0-9-]{0,39}"
"""The name of a shipper."""

SHIPPED = "shipped:"
"""Before a shipper's name, the field of a team's checkpoint that holds the last entry that it has shipped."""


@dataclass(frozen=True, slots=True)
class LedgerHead:
    """Where the ledger of ``team`` ends, was trimmed to, and was shipped to; ``0-0`` is before its first entry.

    ``read_ms`` is when it was read, by the store's clock, in milliseconds since the epoch.
    """

    team: str
    last: str
    trimmed: str
    shipped: str
    read_ms: int


class ShippedLedger:
    """Everything here raises StoreUnavailable where the store cannot be asked."""

    def __init__(self, runner: ScriptRunner, pool: StorePool, store: RedisStore, books: LedgerBooks) -> None:
        """``books`` lists the teams; ``store`` reclaims what expired leases hold, whose entries are shipped as well."""
        self._runner = runner
        self._redis = reads_of(pool)
        self._store = store
        self._books = books
        self._call_ids = count(1)

    async def heads(self, shipper: str, *, cursor: str | None, limit: int) -> Page[LedgerHead]:
        """The heads of up to ``limit`` teams' ledgers, in the order of the teams' ids."""
        page = await self._books.teams(cursor=cursor, limit=limit)
        heads = await asyncio.gather(*(self._head(team, shipper) for team in page.items))
        return Page(list(heads), page.next_cursor)

    async def _head(self, team: str, shipper: str) -> LedgerHead:
        head, expired = await self._read_head(team, shipper)
        if expired:
            await self._store.reclaim(team)
            head, _ = await self._read_head(team, shipper)
        return head

    async def _read_head(self, team: str, shipper: str) -> tuple[LedgerHead, int]:
        keys = (key_names.ledger(team), key_names.checkpoint(team), key_names.leases(team))
        reply = await self._runner.run(load_script("read_head"), keys, (f"head_{next(self._call_ids)}", shipper))
        last, trimmed, shipped = (each.decode() for each in reply[:3])
        return LedgerHead(team, last, trimmed, shipped, int(reply[4])), int(reply[3])

    async def report(self, shipper: str, positions: Mapping[str, str], caught_up_ms: int | None) -> None:
        """Note the last entry of each team that ``shipper`` has shipped.

        A position may go back: then the destination has been restored to an earlier state. ``caught_up_ms`` is a
        moment, by the store's clock, up to which every entry of every team has been shipped.
        """
        await ask_all(
            self._redis,
            [("HSET", key_names.checkpoint(team), SHIPPED + shipper, at) for team, at in positions.items()],
        )
        if caught_up_ms is not None:
            await ask(self._redis, "HSET", key_names.SHIPPERS, shipper, caught_up_ms)

    async def behind_s(self, shippers: Sequence[str]) -> Mapping[str, float]:
        """For how long each of ``shippers`` has not shipped everything; one that never has has no entry. In seconds."""
        if not shippers:
            return {}
        found: Iterable[bytes | None] = await ask(self._redis, "HMGET", key_names.SHIPPERS, *shippers)
        now_s = await earliest_time_ms(self._redis) / 1_000
        return {name: now_s - int(at) / 1_000 for name, at in zip(shippers, found, strict=True) if at is not None}
