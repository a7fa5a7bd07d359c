"""Reading the ledger, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from redis.asyncio import ConnectionPool, Redis

from proxy.domain.settlement import LedgerEntry
from proxy.metering import key_names, records
from proxy.metering.pages import Page
from proxy.metering.redis_connection import ask, names_after
from proxy.metering.redis_store import RedisStore

SCAN_LIMIT = 1_000
"""Ledger entries that one page looks at, at the most, however few of them are asked for."""


@dataclass(frozen=True, slots=True)
class LedgerFilter:
    """Which ledger entries are asked for; None asks for all. ``since_ms`` is milliseconds since the epoch."""

    team: str | None = None
    key_id: str | None = None
    outcome: str | None = None
    since_ms: int | None = None

    def wants(self, entry: LedgerEntry) -> bool:
        """Whether an entry of the right team and time is asked for."""
        return (self.key_id is None or entry.facts.get("key") == self.key_id) and (
            self.outcome is None or entry.facts.get("outcome") == self.outcome
        )


class LedgerPages:
    """The ledger in Redis. Raises StoreUnavailable where Redis cannot be asked."""

    def __init__(self, pool: ConnectionPool, store: RedisStore) -> None:
        """Read through ``pool``; ``store`` takes back what leases hold that have run out, before each look."""
        self._store = store
        self._redis = Redis(connection_pool=pool)

    async def list_entries(self, wanted: LedgerFilter, *, cursor: str | None, limit: int) -> Page[LedgerEntry]:
        """Entries of each team from the oldest to the newest, team by team.

        A page may hold fewer than ``limit`` entries, even none, and still not be the last: see its cursor.
        """
        after_team, _, after = (cursor or "").rpartition("_")
        found: list[LedgerEntry] = []
        looked_at = 0
        teams = (
            [wanted.team]
            if wanted.team
            else await names_after(self._redis, key_names.TEAMS, after_team, inclusive=True)
        )
        for team in teams:
            await self._store.reclaim(team)
            start = f"({after}" if after and team == after_team else str(wanted.since_ms or "-")
            async for entry in self._entries(team, start, batch_size=limit):
                looked_at += 1
                if wanted.wants(entry):
                    found.append(entry)
                if len(found) == limit or looked_at == SCAN_LIMIT:
                    return Page(found, entry.id)
        return Page(found, None)

    async def _entries(self, team: str, start: str, *, batch_size: int) -> AsyncIterator[LedgerEntry]:
        while True:
            batch = await ask(self._redis, "XRANGE", key_names.ledger(team), start, "+", "COUNT", batch_size)
            for stream_id, facts in batch:
                yield records.entry_from_stream(team, stream_id.decode(), records.texts(facts.items()))
            if len(batch) < batch_size:
                return
            start = f"({batch[-1][0].decode()}"

    async def _teams(self, after: str) -> list[str]:
        return await names_after(self._redis, key_names.TEAMS, after, inclusive=True)
