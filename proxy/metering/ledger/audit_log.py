"""Who changed what: written by the scripts that change it, in the same step, and read here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.domain.limits import KeyRecord, TeamRecord
from proxy.metering.ledger.walk import Span, StreamPage, StreamWalk
from proxy.metering.redis.pool import StorePool, reads_of
from proxy.metering.redis_store import facts as records
from proxy.metering.redis_store import keys as key_names
from proxy.metering.redis_store.store import RedisStore

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

    def __init__(self, pool: StorePool, store: RedisStore) -> None:
        """Read through ``pool``; ``store`` knows what it takes to read records."""
        self._walk: StreamWalk[AuditEntry] = StreamWalk(reads_of(pool), key_names.audit)
        self._store = store

    async def list_entries(
        self, team: str | None, *, since_ms: int | None, cursor: str | None, limit: int
    ) -> StreamPage[AuditEntry]:
        """Changes of one team, oldest first; or of all, team by team, up to the moment of the first page.

        A page may hold fewer than ``limit``, even none, and still not be the last. Raises InvalidRequest for a cursor
        of another list.
        """
        return await self._walk.read(team, Span(since_ms), cursor=cursor, limit=limit, convert=self._entry)

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
