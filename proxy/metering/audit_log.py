"""Who changed what: written by the scripts that change it, in the same step, and read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from redis.asyncio import ConnectionPool, Redis

from proxy.domain.limits import KeyRecord, TeamRecord
from proxy.metering import key_names, records
from proxy.metering.pages import Page
from proxy.metering.redis_connection import ask
from proxy.metering.redis_store import RedisStore

TEAM_ACTIONS = "team."


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change: ``by`` the token of this name, in the request of this id, at a moment in milliseconds.

    ``target`` is the id of a key, a team or a ledger entry. ``before`` is None where something was made.
    """

    id: str
    at_ms: int
    team: str
    by: str
    request: str
    action: str
    target: str
    before: KeyRecord | TeamRecord | None
    after: KeyRecord | TeamRecord | None


class AuditLog:
    """The audit records in Redis. Everything here raises StoreUnavailable where Redis cannot be asked."""

    def __init__(self, pool: ConnectionPool, store: RedisStore) -> None:
        """Read through ``pool``; ``store`` knows what it takes to read records."""
        self._redis = Redis(connection_pool=pool)
        self._store = store

    async def list_entries(
        self, team: str | None, *, since_ms: int | None, cursor: str | None, limit: int
    ) -> Page[AuditEntry]:
        """Changes of each team from the oldest to the newest, team by team."""
        after_team, _, after = (cursor or "").rpartition("_")
        found: list[AuditEntry] = []
        for name in [team] if team is not None else await self._teams(after_team):
            start = f"({after}" if after and name == after_team else str(since_ms or "-")
            found += await self._entries(name, start, limit + 1 - len(found))
            if len(found) > limit:
                return Page(found[:limit], found[limit - 1].id)
        return Page(found, None)

    async def _entries(self, team: str, start: str, count: int) -> list[AuditEntry]:
        found = await ask(self._redis, "XRANGE", key_names.audit(team), start, "+", "COUNT", count)
        return [self._entry(team, stream_id.decode(), fields) for stream_id, fields in found]

    def _entry(self, team: str, stream_id: str, fields: Mapping[bytes, bytes]) -> AuditEntry:
        at_ms = int(stream_id.partition("-")[0])
        at = self._store.moment(at_ms * 1_000)
        about = {name.decode(): value.decode() for name, value in fields.items() if b"." not in name}

        def record(prefix: bytes) -> KeyRecord | TeamRecord | None:
            content = records.texts(
                (name.removeprefix(prefix), value) for name, value in fields.items() if name.startswith(prefix)
            )
            if not content:
                return None
            if about["action"].startswith(TEAM_ACTIONS):
                return records.team_from_fields(team, content, at)
            return records.key_from_fields(about["owner"], content, at)

        return AuditEntry(
            id=f"{team}_{stream_id}",
            at_ms=at_ms,
            team=team,
            by=about["by"],
            request=about["request"],
            action=about["action"],
            target=about["target"],
            before=record(b"before."),
            after=record(b"after."),
        )

    async def _teams(self, after: str) -> list[str]:
        start = f"[{after}" if after else "-"
        names: list[bytes] = await ask(self._redis, "ZRANGEBYLEX", key_names.TEAMS, start, "+")
        return [name.decode() for name in names]
