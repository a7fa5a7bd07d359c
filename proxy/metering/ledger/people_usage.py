"""What end users and tags of a team have used in a UTC day or month, added up from the ledger.

Nothing is counted for it while requests are served: whoever asks adds up what has been written since somebody asked.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic

from proxy.domain.billing.tallies import Tally
from proxy.domain.errors import StillCounting
from proxy.metering.redis.pool import StorePool, ask, reads_of
from proxy.metering.redis_store import facts as records
from proxy.metering.redis_store import keys as key_names
from proxy.metering.redis_store.store import RedisStore

ENTRIES_A_READ = 500

ANSWER_WITHIN_S = 20.0
"""Whoever asks is told after so long that more is left to add up; it is less than clients wait."""

TALLIES_KEPT = 8
"""In memory, those that were asked for last: each goes on from where it is. One of many names takes a few megabytes."""


@dataclass(slots=True)
class _Counting:
    """A tally, and the last entry that it holds."""

    tally: Tally = field(default_factory=Tally)
    last: str = ""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class PeopleTally:
    """What was used in a window; not ``is_complete`` where the ledger no longer has its beginning."""

    tally: Tally
    is_complete: bool


class PeopleUsage:
    """Everything here raises StoreUnavailable where the store cannot be asked."""

    def __init__(self, pool: StorePool, store: RedisStore) -> None:
        """Read ledgers through ``pool``; ``store`` reclaims what expired leases hold."""
        self._redis = reads_of(pool)
        self._store = store
        self._kept: OrderedDict[tuple[str, str, str | None], _Counting] = OrderedDict()

    async def read(self, team: str, window: str, key_id: str | None = None) -> PeopleTally:
        """What a team, or one key of it, was charged by entries written in ``window``: ``YYYY-MM-DD`` or ``YYYY-MM``.

        Raises ValueError where that is no day and no month, and StillCounting, after which it goes on from there.
        """
        first_ms, end_ms = window_ms(window)
        await self._store.reclaim(team)
        asked = team, window, key_id
        counting = self._kept.setdefault(asked, _Counting())
        self._kept.move_to_end(asked)
        if len(self._kept) > TALLIES_KEPT:
            self._kept.popitem(last=False)
        ends_s = monotonic() + ANSWER_WITHIN_S
        try:
            # Of many who ask at once, one counts.
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await counting.lock.acquire()
        except TimeoutError:
            raise StillCounting(team) from None
        try:
            await self._count(counting, team, key_id, first_ms, end_ms, ends_s)
        finally:
            counting.lock.release()
        trimmed = await ask(self._redis, "HGET", key_names.checkpoint(team), "last") or b"0-0"
        return PeopleTally(counting.tally, int(trimmed.partition(b"-")[0]) < first_ms)

    async def _count(
        self, counting: _Counting, team: str, key_id: str | None, first_ms: int, end_ms: int, ends_s: float
    ) -> None:
        """Add what has been written since; all anew where the store has lost what was added last."""
        ledger = key_names.ledger(team)
        while True:
            start = counting.last or str(first_ms)
            batch = await ask(self._redis, "XRANGE", ledger, start, end_ms - 1, "COUNT", ENTRIES_A_READ)
            if counting.last:
                if not batch or batch[0][0].decode() != counting.last:
                    counting.tally, counting.last = Tally(), ""
                    continue
                del batch[0]
            for stream_id, fields in batch:
                entry = records.entry_from_stream(team, stream_id.decode(), records.texts(fields.items()))
                if key_id is None or entry.facts.get("key") == key_id:
                    counting.tally.add(entry.kind, entry.facts)
                counting.last = stream_id.decode()
            if len(batch) < ENTRIES_A_READ - 1:
                return
            if monotonic() > ends_s:
                raise StillCounting(team)


def window_ms(window: str) -> tuple[int, int]:
    """When a UTC day ``YYYY-MM-DD`` or month ``YYYY-MM`` begins and ends, in milliseconds. Raises ValueError."""
    if len(window) == records.DAY_LENGTH:
        first = datetime.strptime(window, "%Y-%m-%d").replace(tzinfo=UTC)
        begins_ms = int(first.timestamp()) * 1_000
        return begins_ms, begins_ms + records.DAY_MS
    first = datetime.strptime(window, "%Y-%m").replace(tzinfo=UTC)
    next_month = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    return int(first.timestamp()) * 1_000, int(next_month.timestamp()) * 1_000
