"""Keys and teams in the store: what the admin API makes, reads and changes.

Both are accounts: a record with limits and counters in its team's slot, changed by the same scripts, and each change
stands in the audit record. ``Kind`` says what differs; only making and listing them have methods of their own.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from typing import Any, Generic, TypeVar

import orjson

from proxy.domain.api_key import hash_key, is_team_id, make_key_id, make_key_text, team_of
from proxy.domain.catalog import UNITS_LIMIT
from proxy.domain.errors import Conflict, InvalidRequest, NotFound
from proxy.domain.limits import Account, Caller, KeyRecord, Limits, LimitsPerUser, TeamRecord, UserUsage
from proxy.metering.actor import NOBODY, Actor
from proxy.metering.pages import Page
from proxy.metering.redis.connection import Argument
from proxy.metering.redis.pool import StorePool, ask, ask_all, names_after, read_hash, reads_of
from proxy.metering.redis.runner import ScriptRunner
from proxy.metering.redis.scripts import load_script
from proxy.metering.redis_store import facts as records
from proxy.metering.redis_store import keys as key_names
from proxy.metering.redis_store.charges import Charges, charges, charges_by_day
from proxy.metering.redis_store.store import RedisStore
from proxy.metering.redis_store.team_index import TeamIndex
from proxy.metering.redis_store.user_counters import write_limits_per_user

RECORDS_A_ROUND_TRIP = 100

TEAMS_LIMIT = 100
"""Teams that one page of keys looks at, at the most, however few of them have keys."""

IDS_TRIED = 5
"""One of them is taken where another of the team's keys has the same ten random characters."""

GRANT_IDS_MS = 86_400_000
CHANGE_IDS_MS = 3_600_000
"""A call whose reply was lost comes again within seconds."""

NOT_NUMBERS = ("models", "limits_per_user")

Record = TypeVar("Record", bound=Account)


@dataclass(frozen=True, slots=True)
class Kind(Generic[Record]):
    """What differs between keys and teams.

    ``name`` is for errors and the audit record, ``end`` and ``ended`` what they call revoking. ``team_of`` is None
    where the text is no such account's id. ``record`` and ``usage`` name the hashes of an account by its team and id.
    """

    name: str
    end: str
    ended: str
    team_of: Callable[[str], str | None]
    record: Callable[[str, str], str]
    usage: Callable[[str, str], str]
    read: Callable[[str, Mapping[str, str], records.StoreTime], Record]


KEY = Kind(
    name="key",
    end="revoke",
    ended="revoked",
    team_of=team_of,
    record=key_names.key_record,
    usage=key_names.key_usage,
    read=records.key_from_fields,
)
TEAM = Kind(
    name="team",
    end="delete",
    ended="deleted",
    team_of=lambda team: team if is_team_id(team) else None,
    record=lambda team, _id: key_names.team_record(team),
    usage=lambda team, _id: key_names.team_usage(team),
    read=records.team_from_fields,
)


class AccountRegistry(Generic[Record]):
    """Accounts of one kind. Everything here raises StoreUnavailable where Redis cannot be asked."""

    def __init__(self, kind: Kind[Record], runner: ScriptRunner, pool: StorePool, store: RedisStore) -> None:
        """Change through scripts on ``runner``, read through ``pool``.

        ``store`` reclaims what expired leases hold, before each look at what is used.
        """
        self._kind = kind
        self._runner = runner
        self._store = store
        self._redis = reads_of(pool)
        self._index = TeamIndex(self._redis)

    async def get(self, account_id: str) -> Record:
        """One account. Raises NotFound."""
        team = self._team_of(account_id)
        at = await self._store.reclaim(team)
        fields = await ask(self._redis, "HGETALL", self._kind.record(team, account_id))
        if not fields:
            raise self._missing(account_id)
        return self._kind.read(account_id, records.texts(fields.items()), at)

    async def read_many(self, ids: Sequence[str]) -> list[Record]:
        """The accounts of these ids that there are."""
        return await self._read(ids)

    async def usage(self, account_id: str) -> tuple[Record, dict[str, Charges], dict[str, Charges]]:
        """An account, and what it was charged by model and by UTC day. Raises NotFound."""
        record = await self.get(account_id)
        counters = await read_hash(self._redis, self._kind.usage(record.team, account_id))
        return record, *charges(records.texts(counters.items()))

    async def daily_usage(self, account_id: str, since: str) -> dict[str, dict[str, Charges]]:
        """What an account was charged by UTC day, from ``since`` on, and by model. Raises NotFound."""
        counters = await read_hash(self._redis, self._kind.usage(self._team_of(account_id), account_id))
        return charges_by_day(records.texts(counters.items()), since)

    async def user_usage(self, account_id: str, user: str) -> UserUsage:
        """What an end user has used of a key or a team. Raises NotFound, also where it has no limits of each user."""
        team = self._team_of(account_id)
        at = await self._store.reclaim(team)
        name = key_names.used_by_user(team, "" if account_id == team else account_id, user)
        record, stored = await asyncio.gather(self.get(account_id), ask(self._redis, "GET", name))
        limits = record.limits.limits_per_user
        if limits is None:
            raise NotFound(f"The {self._kind.name} '{account_id}' has no limits of each user (limits_per_user).")
        return records.user_usage(user, limits.of(user), stored, at)

    async def update(self, account_id: str, changes: Mapping[str, Any], *, by: Actor = NOBODY) -> Record:
        """Change ``name``, a key's ``expires_ms`` or limits by their names; None takes one away.

        Raises NotFound or Conflict.
        """
        return await self._change(account_id, "update", _pairs(_fields(changes)), by=by)

    async def revoke(self, account_id: str, *, by: Actor = NOBODY) -> Record:
        """Refuse the key, or all keys of the team, from the next request on; what is in flight settles.

        Raises NotFound.
        """
        return await self._change(account_id, "revoke", by=by)

    async def grant(self, account_id: str, *, quota_units: int, reason: str, by: Actor = NOBODY) -> tuple[Record, str]:
        """Top up, or take back; the record after it, and the ledger entry's id.

        Raises NotFound, Conflict or InvalidRequest.
        """
        team = self._team_of(account_id)
        grant_id = f"grant_{secrets.token_hex(12)}"
        # A team's entries name no key.
        key_id = "" if account_id == team else account_id
        call = by.asks(
            (self._kind.record(team, account_id), key_names.grant(team, grant_id), key_names.ledger(team)),
            (grant_id, quota_units, UNITS_LIMIT // 4, GRANT_IDS_MS, key_id, orjson.dumps({"reason": reason})),
            team=team,
            action=f"{self._kind.name}.grant",
            target=account_id,
        )
        reply = await self._runner.run(load_script("grant"), *call)
        self._raise_verdict(reply[0], account_id)
        if reply[0] == b"no_quota":
            name = self._kind.name
            raise Conflict(
                f"The {name} '{account_id}' has no quota in total (quota_units), so a grant would change nothing: "
                "what a day or a month may take is raised by changing that limit."
            )
        if reply[0] == b"too_much":
            raise InvalidRequest(
                f"'quota_units' brings the sum of grants, now {reply[1]:,}, past what can be counted exactly.",
                param="quota_units",
            )
        return self._after(account_id, reply[2], reply[3]), f"{team}_{reply[1].decode()}"

    # --- For those of one kind ----------------------------------------------------------------------------------------

    async def _enter_team(self, team: str) -> None:
        """Put the team into the index, which is outside of its slot. One in it that has no record does no harm."""
        await self._index.enter(team)

    async def _read(self, ids: Sequence[str]) -> list[Record]:
        """The accounts of these ids, without those that have no record: their making was broken off."""
        found: list[Record] = []
        for start in range(0, len(ids), RECORDS_A_ROUND_TRIP):
            part = [(self._team_of(account_id), account_id) for account_id in ids[start : start + RECORDS_A_ROUND_TRIP]]
            teams = sorted({team for team, _ in part})
            moments = dict(zip(teams, await self._store.reclaim_all(teams), strict=True))
            hashes = await ask_all(self._redis, [("HGETALL", self._kind.record(*account)) for account in part])
            found += [
                self._kind.read(account_id, records.texts(fields.items()), moments[team])
                for (team, account_id), fields in zip(part, hashes, strict=True)
                if fields
            ]
        return found

    async def _change(
        self, account_id: str, action: str, rest: Sequence[Argument] = (), *, overlap_ms: int = 0, by: Actor
    ) -> Record:
        """``update``, ``revoke`` or ``rotate`` a record. Raises NotFound or Conflict."""
        team = self._team_of(account_id)
        change_id = f"change_{secrets.token_hex(12)}"
        said = self._kind.end if action == "revoke" else action
        call = by.asks(
            (self._kind.record(team, account_id), key_names.change(team, change_id)),
            (change_id, action, overlap_ms, CHANGE_IDS_MS, *rest),
            team=team,
            action=f"{self._kind.name}.{said}",
            target=account_id,
        )
        reply = await self._runner.run(load_script("update_record"), *call)
        self._raise_verdict(reply[0], account_id)
        return self._after(account_id, reply[1], reply[2])

    def _after(self, account_id: str, pairs: Sequence[bytes], now_us: int) -> Record:
        """The record as a script has left it."""
        return self._kind.read(account_id, records.fields_from_pairs(pairs), self._store.moment(now_us))

    def _team_of(self, account_id: str) -> str:
        team = self._kind.team_of(account_id)
        if team is None:
            raise self._missing(account_id)
        return team

    def _missing(self, account_id: str) -> NotFound:
        return NotFound(f"There is no {self._kind.name} '{account_id[:100]}'.")

    def _raise_verdict(self, verdict: bytes, account_id: str) -> None:
        if verdict == b"missing":
            raise self._missing(account_id)
        if verdict == b"revoked":
            name, ended = self._kind.name, self._kind.ended
            raise Conflict(f"The {name} '{account_id}' has been {ended}, and cannot be changed any more.")


class KeyRegistry(AccountRegistry[KeyRecord]):
    """Keys in Redis."""

    def __init__(self, runner: ScriptRunner, pool: StorePool, store: RedisStore) -> None:
        """What each is for, ``AccountRegistry`` says."""
        super().__init__(KEY, runner, pool, store)

    async def create(
        self, team: str, *, name: str, limits: Limits, expires_ms: int | None, by: Actor = NOBODY
    ) -> tuple[KeyRecord, str]:
        """A new key of ``team``, which is made where it is new; and its text, which nobody can read again.

        Raises Conflict where the team has been deleted.
        """
        await self._enter_team(team)
        given = _new_fields({"name": name, "expires_ms": expires_ms, **limits_by_name(limits)})
        for _ in range(IDS_TRIED):
            key_id = make_key_id(team, secrets.choice)
            text = make_key_text(key_id, secrets.choice)
            call = by.asks(
                (key_names.key_record(team, key_id), key_names.team_keys(team), key_names.team_record(team)),
                (key_id, key_id, "secret_sha256", hash_key(text), *_pairs(given)),
                team=team,
                action="key.create",
                target=key_id,
            )
            reply = await self._runner.run(load_script("create_key"), *call)
            if reply[0] == b"team_revoked":
                raise Conflict(f"The team '{team}' has been deleted, and gets no new keys.")
            if reply[0] == b"created":
                return await self.get(key_id), text
        raise Conflict(f"{IDS_TRIED} ids for a new key of '{team}' were all taken. Try again.")

    async def page(self, team: str | None, *, cursor: str | None, limit: int, prefix: str = "") -> Page[KeyRecord]:
        """Keys in the order of their ids, of one team or of all; with a ``prefix``, those whose ids begin with it.

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
            teams = await self._teams_for(prefix, begin, inclusive=is_in_it)
            teams, more_teams = teams[:TEAMS_LIMIT], len(teams) > TEAMS_LIMIT
        ids = await self._ids_of(teams, cursor if after_team else None, limit + 1, prefix)
        if len(ids) > limit:
            return Page(await self._read(ids[:limit]), ids[limit - 1])
        return Page(await self._read(ids), teams[-1] if more_teams else None)

    async def _teams_for(self, prefix: str, begin: str | None, *, inclusive: bool) -> list[str]:
        """Teams whose keys' ids may begin with ``prefix``, from ``begin`` on."""
        team, has_more, _ = prefix.partition("_")
        if has_more:
            return [team] if begin is None or begin < team or (inclusive and begin == team) else []
        return await self._index.after(begin, inclusive=inclusive, count=TEAMS_LIMIT + 1, prefix=prefix)

    async def _ids_of(self, teams: Sequence[str], after: str | None, count: int, prefix: str) -> list[str]:
        """Up to ``count`` ids of the keys of ``teams``, beginning after the key ``after``."""
        firsts = await ask_all(
            self._redis, [("ZRANGEBYLEX", key_names.team_keys(team), "-", "+", "LIMIT", 0, 1) for team in teams]
        )
        ids: list[str] = []
        for team, first in zip(teams, firsts, strict=True):
            if first:
                begin = after if after and team_of(after) == team else None
                index, left = key_names.team_keys(team), count - len(ids)
                ids += await names_after(self._redis, index, begin, count=left, prefix=prefix)
            if len(ids) >= count:
                break
        return ids

    async def user_of_caller(self, caller: Caller, user: str) -> tuple[UserUsage | None, UserUsage | None]:
        """What an end user has used of a key and of its team; None where that has no limits of each user."""
        key = caller.key
        at = await self._store.reclaim(key.team)
        names = (key_names.used_by_user(key.team, key.id, user), key_names.used_by_user(key.team, "", user))
        stored = await asyncio.gather(*(ask(self._redis, "GET", name) for name in names))
        limits = (key.limits.limits_per_user, caller.team.limits.limits_per_user)
        of_key, of_team = (
            None if each is None else records.user_usage(user, each.of(user), used, at)
            for each, used in zip(limits, stored, strict=True)
        )
        return of_key, of_team

    async def rotate(self, key_id: str, *, overlap_ms: int, by: Actor = NOBODY) -> tuple[KeyRecord, str]:
        """Give the key a new text; the old one stays good for ``overlap_ms`` milliseconds.

        Raises NotFound or Conflict.
        """
        text = make_key_text(key_id, secrets.choice)
        return await self._change(key_id, "rotate", (hash_key(text),), overlap_ms=overlap_ms, by=by), text


class TeamRegistry(AccountRegistry[TeamRecord]):
    """Teams in Redis."""

    def __init__(self, runner: ScriptRunner, pool: StorePool, store: RedisStore) -> None:
        """What each is for, ``AccountRegistry`` says."""
        super().__init__(TEAM, runner, pool, store)

    async def create(self, team: str, *, name: str, limits: Limits, by: Actor = NOBODY) -> TeamRecord:
        """A new team. Raises Conflict where there is one of that id."""
        await self._enter_team(team)
        given = _new_fields({"name": name, **limits_by_name(limits)})
        call = by.asks(
            (key_names.team_record(team),),
            (f"create_{secrets.token_hex(12)}", *_pairs(given)),
            team=team,
            action="team.create",
            target=team,
        )
        reply = await self._runner.run(load_script("create_team"), *call)
        if reply[0] == b"exists":
            raise Conflict(f"There is a team '{team}' already.")
        return self._after(team, reply[1], reply[2])

    async def page(self, *, cursor: str | None, limit: int, prefix: str = "") -> Page[TeamRecord]:
        """Teams in the order of their ids; with a ``prefix``, those whose ids begin with it."""
        ids = await self._index.after(cursor, count=limit + 1, prefix=prefix)
        return await self.page_of(ids, limit=limit)

    async def page_of(self, ids: Sequence[str], *, limit: int) -> Page[TeamRecord]:
        """Of the teams with these ids, which are in order, the first ``limit``."""
        return Page(await self._read(ids[:limit]), ids[limit - 1] if len(ids) > limit else None)


# --- Records as they are written -------------------------------------------------------------------------------------


def limits_by_name(limits: Limits) -> dict[str, Any]:
    """Each limit by its name."""
    return {each.name: getattr(limits, each.name) for each in fields_of(limits)}


def _fields(values: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a record; None becomes the empty text, which takes a field away."""
    texts = {name: "" if value is None else str(value) for name, value in values.items() if name not in NOT_NUMBERS}
    if "models" in values:
        texts["models"] = "\n".join(values["models"])
    if "limits_per_user" in values:
        per_user: LimitsPerUser | None = values["limits_per_user"]
        texts["limits_per_user"] = "" if per_user is None else write_limits_per_user(per_user)
    return texts


def _new_fields(values: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a new record: those that have a value."""
    return {name: value for name, value in _fields(values).items() if value != ""}


def _pairs(fields: Mapping[str, str]) -> tuple[str, ...]:
    """As a script takes them: name, value, name, value, …"""
    return tuple(text for pair in fields.items() for text in pair)
