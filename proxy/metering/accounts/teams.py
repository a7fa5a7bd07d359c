"""Making, reading and changing teams: what the admin API asks of the store."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from redis.asyncio import ConnectionPool, Redis

from proxy.domain.api_key import is_team_id
from proxy.domain.errors import Conflict
from proxy.domain.limits import Limits, TeamRecord
from proxy.metering.accounts.changes import Changed, RecordChanges, Target, fields_of, flat, given_fields
from proxy.metering.actor import NOBODY, Actor
from proxy.metering.pages import Page
from proxy.metering.redis.pool import ask, ask_all, names_after, read_hash
from proxy.metering.redis.runner import ScriptRunner
from proxy.metering.redis.scripts import load_script
from proxy.metering.redis_store import facts as records
from proxy.metering.redis_store import keys as key_names
from proxy.metering.redis_store.charges import Charges, charges
from proxy.metering.redis_store.store import RedisStore

TEAMS_A_ROUND_TRIP = 100


class TeamRegistry:
    """Teams in Redis. Everything here raises StoreUnavailable where Redis cannot be asked."""

    def __init__(self, runner: ScriptRunner, pool: ConnectionPool, store: RedisStore) -> None:
        """Change through scripts on ``runner``, read through ``pool``.

        ``store`` reclaims what expired leases hold, before each look at what is used.
        """
        self._runner = runner
        self._changes = RecordChanges(runner)
        self._store = store
        self._redis = Redis(connection_pool=pool)

    async def create_team(self, team: str, *, name: str, limits: Limits, by: Actor = NOBODY) -> TeamRecord:
        """A new team. Raises Conflict where there is one of that id."""
        # The index of teams is outside of the team's slot; a team in it that has no record yet does no harm.
        await ask(self._redis, "ZADD", key_names.TEAMS, 0, team)
        given = given_fields({"name": name, **asdict(limits)})
        call = by.asks(
            (key_names.team_record(team),),
            (f"create_{secrets.token_hex(12)}", *flat(given)),
            team=team,
            action="team.create",
            target=team,
        )
        reply = await self._runner.run(load_script("create_team"), *call)
        if reply[0] == b"exists":
            raise Conflict(f"There is a team '{team}' already.")
        return self._after(team, Changed(records.fields_from_pairs(reply[1]), reply[2]))

    async def get_team(self, team: str) -> TeamRecord:
        """One team. Raises NotFound."""
        target = _target(team)
        at = await self._store.reclaim(team)
        fields = await ask(self._redis, "HGETALL", target.record)
        if not fields:
            raise target.missing()
        return records.team_from_fields(team, records.texts(fields.items()), at)

    async def list_teams(self, *, cursor: str | None, limit: int) -> Page[TeamRecord]:
        """Teams in the order of their ids."""
        names = await names_after(self._redis, key_names.TEAMS, cursor, count=limit + 1)
        teams: list[TeamRecord] = []
        for start in range(0, min(limit, len(names)), TEAMS_A_ROUND_TRIP):
            part = names[start : min(limit, start + TEAMS_A_ROUND_TRIP)]
            moments = await self._store.reclaim_all(part)
            found = await ask_all(self._redis, [("HGETALL", key_names.team_record(name)) for name in part])
            teams += [
                records.team_from_fields(name, records.texts(fields.items()), at)
                for name, at, fields in zip(part, moments, found, strict=True)
                # The making of one that has no record was broken off.
                if fields
            ]
        return Page(teams, names[limit - 1] if len(names) > limit else None)

    async def update_team(self, team: str, changes: Mapping[str, Any], *, by: Actor = NOBODY) -> TeamRecord:
        """Change ``name`` or limits by their names; None takes one away. Raises NotFound or Conflict."""
        return self._after(team, await self._changes.change(_target(team), "update", flat(fields_of(changes)), by=by))

    async def revoke_team(self, team: str, *, by: Actor = NOBODY) -> TeamRecord:
        """Refuse all keys of the team from the next request on; what is in flight settles. Raises NotFound."""
        return self._after(team, await self._changes.change(_target(team), "revoke", by=by))

    async def grant(self, team: str, *, quota_units: int, reason: str, by: Actor = NOBODY) -> tuple[TeamRecord, str]:
        """Top up, or take back; the record after it, and the ledger entry's id. Raises NotFound or InvalidRequest."""
        changed, entry = await self._changes.grant(_target(team), quota_units=quota_units, reason=reason, by=by)
        return self._after(team, changed), entry

    async def usage(self, team: str) -> tuple[TeamRecord, dict[str, Charges], dict[str, Charges]]:
        """A team, and what its keys were charged by model and by UTC day. Raises NotFound."""
        record = await self.get_team(team)
        usage = await read_hash(self._redis, key_names.team_usage(team))
        return record, *charges(records.texts(usage.items()))

    def _after(self, team: str, changed: Changed) -> TeamRecord:
        return records.team_from_fields(team, changed.fields, self._store.moment(changed.now_us))


def _target(team: str) -> Target:
    target = Target(team, key_names.team_record(team), "team", team, "deleted")
    if not is_team_id(team):
        raise target.missing()
    return target
