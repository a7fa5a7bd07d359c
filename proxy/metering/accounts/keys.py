"""Making, reading and changing keys: what the admin API asks of the store."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from redis.asyncio import ConnectionPool, Redis

from proxy.domain.api_key import hash_key, make_key_id, make_key_text, team_of
from proxy.domain.errors import Conflict, InvalidRequest, NotFound
from proxy.domain.limits import KeyRecord, Limits
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

TEAMS_LIMIT = 100
"""Teams that one page looks at, at the most, however few of them have keys."""

KEYS_A_ROUND_TRIP = 100

IDS_TRIED = 5
"""One of them is taken where another of the team's keys has the same ten random characters."""


class KeyRegistry:
    """Keys in Redis. Everything here raises StoreUnavailable where Redis cannot be asked."""

    def __init__(self, runner: ScriptRunner, pool: ConnectionPool, store: RedisStore) -> None:
        """Change through scripts on ``runner``, read through ``pool``.

        ``store`` reclaims what expired leases hold, before each look at what is used.
        """
        self._runner = runner
        self._changes = RecordChanges(runner)
        self._store = store
        self._redis = Redis(connection_pool=pool)

    async def create_key(
        self, team: str, *, name: str, limits: Limits, expires_ms: int | None, by: Actor = NOBODY
    ) -> tuple[KeyRecord, str]:
        """A new key of ``team``, which is made where it is new; and its text, which nobody can read again."""
        given = given_fields({"name": name, "expires_ms": expires_ms, **asdict(limits)})
        # The index of teams is outside of the team's slot; a team in it that has no key yet does no harm.
        await self._ask("ZADD", key_names.TEAMS, 0, team)
        for _ in range(IDS_TRIED):
            key_id = make_key_id(team, secrets.choice)
            text = make_key_text(key_id, secrets.choice)
            call = by.asks(
                (key_names.key_record(team, key_id), key_names.team_keys(team), key_names.team_record(team)),
                (key_id, key_id, "secret_sha256", hash_key(text), *flat(given)),
                team=team,
                action="key.create",
                target=key_id,
            )
            reply = await self._runner.run(load_script("create_key"), *call)
            if reply[0] == b"team_revoked":
                raise Conflict(f"The team '{team}' has been deleted, and gets no new keys.")
            if reply[0] == b"created":
                return await self.get_key(key_id), text
        raise Conflict(f"{IDS_TRIED} ids for a new key of '{team}' were all taken. Try again.")

    async def get_key(self, key_id: str) -> KeyRecord:
        """One key. Raises NotFound."""
        return await self._read_key(key_id, await self._store.reclaim(_target(key_id).team))

    async def _read_key(self, key_id: str, at: records.StoreTime) -> KeyRecord:
        target = _target(key_id)
        fields = await self._ask("HGETALL", target.record)
        if not fields:
            raise target.missing()
        return records.key_from_fields(key_id, records.texts(fields.items()), at)

    async def list_keys(self, team: str | None, *, cursor: str | None, limit: int) -> Page[KeyRecord]:
        """Keys in the order of their ids, of one team or of all.

        A page may hold fewer than ``limit`` keys and still not be the last, where many teams have none: its cursor is a
        team's id then. Raises InvalidRequest for a cursor of another team.
        """
        after_team = team_of(cursor) if cursor else None
        if team is not None and cursor is not None and after_team != team:
            raise InvalidRequest(f"'cursor' should be of the team '{team}'.", param="cursor")
        more_teams = False
        if team is not None:
            teams = [team]
        else:
            begin, is_in_it = after_team or cursor, after_team is not None
            teams = await names_after(self._redis, key_names.TEAMS, begin, inclusive=is_in_it, count=TEAMS_LIMIT + 1)
            teams, more_teams = teams[:TEAMS_LIMIT], len(teams) > TEAMS_LIMIT
        ids = await self._ids_of(teams, cursor if after_team else None, limit + 1)
        if len(ids) > limit:
            return Page(await self._read_keys(ids[:limit]), ids[limit - 1])
        return Page(await self._read_keys(ids), teams[-1] if more_teams else None)

    async def _ids_of(self, teams: Sequence[str], after: str | None, count: int) -> list[str]:
        """Up to ``count`` ids of the keys of ``teams``, beginning after the key ``after``."""
        firsts = await ask_all(
            self._redis, [("ZRANGEBYLEX", key_names.team_keys(team), "-", "+", "LIMIT", 0, 1) for team in teams]
        )
        ids: list[str] = []
        for team, first in zip(teams, firsts, strict=True):
            if first:
                begin = after if after and team_of(after) == team else None
                ids += await names_after(self._redis, key_names.team_keys(team), begin, count=count - len(ids))
            if len(ids) >= count:
                break
        return ids

    async def _read_keys(self, ids: Sequence[str]) -> list[KeyRecord]:
        found: list[KeyRecord] = []
        for start in range(0, len(ids), KEYS_A_ROUND_TRIP):
            part = ids[start : start + KEYS_A_ROUND_TRIP]
            teams = sorted({_target(key_id).team for key_id in part})
            moments = dict(zip(teams, await self._store.reclaim_all(teams), strict=True))
            records_found = await ask_all(self._redis, [("HGETALL", _target(key_id).record) for key_id in part])
            found += [
                records.key_from_fields(key_id, records.texts(fields.items()), moments[_target(key_id).team])
                for key_id, fields in zip(part, records_found, strict=True)
                if fields
            ]
        return found

    async def update_key(self, key_id: str, changes: Mapping[str, Any], *, by: Actor = NOBODY) -> KeyRecord:
        """Change ``name``, ``expires_ms`` or limits by their names; None takes one away. Raises NotFound."""
        return self._after(
            key_id, await self._changes.change(_target(key_id), "update", flat(fields_of(changes)), by=by)
        )

    async def revoke_key(self, key_id: str, *, by: Actor = NOBODY) -> KeyRecord:
        """Refuse the key from the next request on; what is in flight settles. Raises NotFound."""
        return self._after(key_id, await self._changes.change(_target(key_id), "revoke", by=by))

    async def rotate_key(self, key_id: str, *, overlap_ms: int, by: Actor = NOBODY) -> tuple[KeyRecord, str]:
        """Give the key a new text; the old one stays good for ``overlap_ms`` milliseconds. Raises NotFound."""
        text = make_key_text(key_id, secrets.choice)
        changed = await self._changes.change(_target(key_id), "rotate", (hash_key(text),), overlap_ms=overlap_ms, by=by)
        return self._after(key_id, changed), text

    async def grant(self, key_id: str, *, quota_units: int, reason: str, by: Actor = NOBODY) -> tuple[KeyRecord, str]:
        """Top up, or take back; the record after it, and the ledger entry's id. Raises NotFound or InvalidRequest."""
        changed, entry = await self._changes.grant(_target(key_id), quota_units=quota_units, reason=reason, by=by)
        return self._after(key_id, changed), entry

    async def usage(self, key_id: str) -> tuple[KeyRecord, dict[str, Charges], dict[str, Charges]]:
        """A key, and what it was charged by model and by UTC day. Raises NotFound."""
        record = await self.get_key(key_id)
        counters = records.texts((await read_hash(self._redis, key_names.key_usage(record.team, key_id))).items())
        return record, *charges(counters)

    def _after(self, key_id: str, changed: Changed) -> KeyRecord:
        return records.key_from_fields(key_id, changed.fields, self._store.moment(changed.now_us))

    async def _ask(self, *words: str | int) -> Any:
        return await ask(self._redis, *words)


def _target(key_id: str) -> Target:
    team = team_of(key_id)
    if team is None:
        raise NotFound(f"There is no key '{key_id[:100]}'.")
    return Target(team, key_names.key_record(team, key_id), "key", key_id, "revoked", key_id)
