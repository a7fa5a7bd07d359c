"""Making, reading and changing teams: what the admin wire asks of the store."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson
from redis.asyncio import ConnectionPool, Redis

from proxy.domain.api_key import is_team_id
from proxy.domain.catalog import UNITS_LIMIT
from proxy.domain.errors import Conflict, InvalidRequest, NotFound
from proxy.domain.limits import Limits, TeamRecord
from proxy.metering import key_names, records
from proxy.metering.actor import NOBODY, Actor
from proxy.metering.key_registry import (
    GRANT_IDS_MS,
    Charges,
    Page,
    charges,
    fields_of,
    flat,
    given_fields,
)
from proxy.metering.redis_connection import ask
from proxy.metering.redis_store import RedisStore
from proxy.metering.script_connection import Argument
from proxy.metering.script_runner import ScriptRunner
from proxy.metering.scripts import load_script


class TeamRegistry:
    """Teams in Redis. Everything here raises StoreUnavailable where Redis cannot be asked."""

    def __init__(self, runner: ScriptRunner, pool: ConnectionPool, store: RedisStore) -> None:
        """Change through scripts on ``runner``, read through ``pool``.

        ``store`` takes back what leases hold that have run out, before each look at what is used.
        """
        self._runner = runner
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
        return self._read(team, reply[1], reply[2])

    async def get_team(self, team: str) -> TeamRecord:
        """One team. Raises NotFound."""
        if not is_team_id(team):
            raise _no_team(team)
        at = await self._store.reclaim(team)
        fields = await ask(self._redis, "HGETALL", key_names.team_record(team))
        if not fields:
            raise _no_team(team)
        return records.team_from_fields(team, records.texts(fields.items()), at)

    async def list_teams(self, *, cursor: str | None, limit: int) -> Page[TeamRecord]:
        """Teams in the order of their ids."""
        start = f"({cursor}" if cursor else "-"
        found = await ask(self._redis, "ZRANGEBYLEX", key_names.TEAMS, start, "+", "LIMIT", 0, limit + 1)
        names = [name.decode() for name in found]
        teams = []
        for name in names[:limit]:
            try:
                teams.append(await self.get_team(name))
            except NotFound:
                # Its making was broken off.
                continue
        return Page(teams, names[limit - 1] if len(names) > limit else None)

    async def update_team(self, team: str, changes: Mapping[str, Any], *, by: Actor = NOBODY) -> TeamRecord:
        """Change ``name`` or limits by their names; None takes one away. Raises NotFound or Conflict."""
        return await self._change(team, "update", flat(fields_of(changes)), by)

    async def revoke_team(self, team: str, *, by: Actor = NOBODY) -> TeamRecord:
        """Refuse all keys of the team from the next request on; what is in flight settles. Raises NotFound."""
        return await self._change(team, "revoke", (), by)

    async def grant(self, team: str, *, quota_units: int, reason: str, by: Actor = NOBODY) -> tuple[TeamRecord, str]:
        """Top up, or take back; the record after it, and the ledger entry's id. Raises NotFound or InvalidRequest."""
        if not is_team_id(team):
            raise _no_team(team)
        grant_id = f"grant_{secrets.token_hex(12)}"
        call = by.asks(
            (key_names.team_record(team), key_names.grant(team, grant_id), key_names.ledger(team)),
            (grant_id, quota_units, UNITS_LIMIT // 4, GRANT_IDS_MS, "", orjson.dumps({"reason": reason})),
            team=team,
            action="team.grant",
            target=team,
        )
        reply = await self._runner.run(load_script("grant"), *call)
        _raise_verdict(reply[0], team)
        if reply[0] == b"too_much":
            raise InvalidRequest(
                f"'quota_units' brings the sum of grants, now {reply[1]:,}, past what can be counted exactly.",
                param="quota_units",
            )
        return self._read(team, reply[2], reply[3]), f"{team}_{reply[1].decode()}"

    async def usage(self, team: str) -> tuple[TeamRecord, dict[str, Charges], dict[str, Charges]]:
        """A team, and what its keys were charged by model and by UTC day. Raises NotFound."""
        record = await self.get_team(team)
        usage = await ask(self._redis, "HGETALL", key_names.team_usage(team))
        return record, *charges(records.texts(usage.items()))

    async def _change(self, team: str, action: str, rest: Sequence[Argument], by: Actor) -> TeamRecord:
        if not is_team_id(team):
            raise _no_team(team)
        call = by.asks(
            (key_names.team_record(team),),
            (team, action, 0, *rest),
            team=team,
            action="team.delete" if action == "revoke" else f"team.{action}",
            target=team,
        )
        reply = await self._runner.run(load_script("update_record"), *call)
        _raise_verdict(reply[0], team)
        return self._read(team, reply[1], reply[2])

    def _read(self, team: str, pairs: Sequence[bytes], now_us: int) -> TeamRecord:
        return records.team_from_fields(team, records.fields_from_pairs(pairs), self._store.moment(now_us))


def _no_team(team: str) -> NotFound:
    return NotFound(f"There is no team '{team[:100]}'.")


def _raise_verdict(verdict: bytes, team: str) -> None:
    if verdict == b"missing":
        raise _no_team(team)
    if verdict == b"revoked":
        raise Conflict(f"The team '{team}' has been deleted, and cannot be changed any more.")
