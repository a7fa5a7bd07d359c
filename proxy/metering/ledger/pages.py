"""Reading the ledger, page by page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.domain.billing.settlement import LedgerEntry
from proxy.metering.ledger.walk import WHOLE, Span, StreamPage, StreamWalk
from proxy.metering.redis.pool import StorePool, reads_of
from proxy.metering.redis_store import facts as records
from proxy.metering.redis_store import keys as key_names
from proxy.metering.redis_store.store import RedisStore


@dataclass(frozen=True, slots=True)
class LedgerFilter:
    """Which ledger entries are asked for; None asks for all. ``newest_first`` goes with a team."""

    team: str | None = None
    key_id: str | None = None
    outcome: str | None = None
    request: str | None = None
    span: Span = WHOLE
    user: str | None = None
    tag: str | None = None
    """``name=value``."""

    def wants(self, entry: LedgerEntry) -> bool:
        """Whether an entry of the right team and time is asked for."""
        facts = entry.facts
        asked = (("key", self.key_id), ("outcome", self.outcome), ("request", self.request), ("user", self.user))
        if not all(value is None or facts.get(name) == value for name, value in asked):
            return False
        name, _, value = (self.tag or "").partition("=")
        return self.tag is None or facts.get("tags", {}).get(name) == value


class LedgerPages:
    """The ledger in Redis. Raises StoreUnavailable where Redis cannot be asked."""

    def __init__(self, pool: StorePool, store: RedisStore) -> None:
        """Read through ``pool``; ``store`` reclaims what expired leases hold, before each look."""
        self._walk: StreamWalk[LedgerEntry] = StreamWalk(reads_of(pool), key_names.ledger, store.reclaim_all)

    async def list_entries(self, wanted: LedgerFilter, *, cursor: str | None, limit: int) -> StreamPage[LedgerEntry]:
        """Entries of one team in their order; or of all, team by team, up to the moment of the first page.

        A page may hold fewer than ``limit`` entries, even none, and still not be the last: see its cursor. Raises
        InvalidRequest for a cursor of another list.
        """

        def convert(team: str, stream_id: str, fields: Mapping[bytes, bytes]) -> LedgerEntry | None:
            entry = records.entry_from_stream(team, stream_id, records.texts(fields.items()))
            return entry if wanted.wants(entry) else None

        return await self._walk.read(wanted.team, wanted.span, cursor=cursor, limit=limit, convert=convert)
