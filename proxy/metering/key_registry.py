"""Making, reading and changing keys, and reading the ledger: what the admin wire asks of the store."""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

import orjson
from redis.asyncio import ConnectionPool, Redis

from proxy.domain.api_key import hash_key, make_key_id, make_key_text, team_of
from proxy.domain.catalog import UNITS_LIMIT
from proxy.domain.errors import Conflict, InvalidRequest, NotFound
from proxy.domain.limits import KeyRecord, Limits
from proxy.domain.settlement import LedgerEntry
from proxy.metering import key_names, records
from proxy.metering.actor import NOBODY, Actor
from proxy.metering.redis_connection import ask
from proxy.metering.redis_store import RedisStore
from proxy.metering.script_connection import Argument
from proxy.metering.script_runner import ScriptRunner
from proxy.metering.scripts import load_script

T = TypeVar("T")

GRANT_IDS_MS = 86_400_000
SCAN_LIMIT = 1_000
"""Ledger entries that one page looks at, at the most, however few of them are asked for."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list, and where the next part begins; None at the end."""

    items: list[T]
    next_cursor: str | None


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


@dataclass(frozen=True, slots=True)
class Charges:
    """What was charged under one heading."""

    images: int = 0
    quota_units: int = 0


class KeyRegistry:
    """Keys and ledger in Redis. Everything here raises StoreUnavailable where Redis cannot be asked."""

    def __init__(self, runner: ScriptRunner, pool: ConnectionPool, store: RedisStore) -> None:
        """Change through scripts on ``runner``, read through ``pool``.

        ``store`` takes back what leases hold that have run out, before each look at what is used.
        """
        self._runner = runner
        self._store = store
        self._redis = Redis(connection_pool=pool)

    # --- Keys ---------------------------------------------------------------------------------------------------------

    async def create_key(
        self, team: str, *, name: str, limits: Limits, expires_ms: int | None, by: Actor = NOBODY
    ) -> tuple[KeyRecord, str]:
        """A new key of ``team``, which is made where it is new; and its text, which nobody can read again."""
        key_id = make_key_id(team, secrets.choice)
        text = make_key_text(key_id, secrets.choice)
        given = given_fields({"name": name, "expires_ms": expires_ms, **asdict(limits)})
        # The index of teams is outside of the team's slot; a team in it that has no key yet does no harm.
        await self._ask("ZADD", key_names.TEAMS, 0, team)
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
        return await self.get_key(key_id), text

    async def get_key(self, key_id: str) -> KeyRecord:
        """One key. Raises NotFound."""
        return await self._read_key(key_id, await self._store.reclaim(_team(key_id)))

    async def _read_key(self, key_id: str, at: records.Moment) -> KeyRecord:
        team = _team(key_id)
        fields = await self._ask("HGETALL", key_names.key_record(team, key_id))
        if not fields:
            raise _no_key(key_id)
        return records.key_from_fields(key_id, records.texts(fields.items()), at)

    async def list_keys(self, team: str | None, *, cursor: str | None, limit: int) -> Page[KeyRecord]:
        """Keys in the order of their ids, of one team or of all."""
        after = _team(cursor) if cursor else None
        ids: list[tuple[str, records.Moment]] = []
        teams = [team] if team is not None else await self._names(key_names.TEAMS, after, inclusive=True)
        for one in teams:
            at = await self._store.reclaim(one)
            begin = cursor if cursor and one == after else None
            names = await self._names(key_names.team_keys(one), begin, count=limit + 1 - len(ids))
            ids += [(name, at) for name in names]
            if len(ids) > limit:
                break
        more, ids = len(ids) > limit, ids[:limit]
        return Page([await self._read_key(key_id, at) for key_id, at in ids], ids[-1][0] if more else None)

    async def update_key(self, key_id: str, changes: Mapping[str, Any], *, by: Actor = NOBODY) -> KeyRecord:
        """Change ``name``, ``expires_ms`` or limits by their names; None takes one away. Raises NotFound."""
        return await self._change(key_id, "update", 0, flat(fields_of(changes)), by)

    async def revoke_key(self, key_id: str, *, by: Actor = NOBODY) -> KeyRecord:
        """Refuse the key from the next request on; what is in flight settles. Raises NotFound."""
        return await self._change(key_id, "revoke", 0, (), by)

    async def rotate_key(self, key_id: str, *, overlap_ms: int, by: Actor = NOBODY) -> tuple[KeyRecord, str]:
        """Give the key a new text; the old one stays good for ``overlap_ms`` milliseconds. Raises NotFound."""
        text = make_key_text(key_id, secrets.choice)
        return await self._change(key_id, "rotate", overlap_ms, (hash_key(text),), by), text

    async def grant(self, key_id: str, *, quota_units: int, reason: str, by: Actor = NOBODY) -> tuple[KeyRecord, str]:
        """Top up, or take back; the record after it, and the ledger entry's id. Raises NotFound or InvalidRequest."""
        team, grant_id = _team(key_id), f"grant_{secrets.token_hex(12)}"
        call = by.asks(
            (key_names.key_record(team, key_id), key_names.grant(team, grant_id), key_names.ledger(team)),
            (grant_id, quota_units, UNITS_LIMIT // 4, GRANT_IDS_MS, key_id, orjson.dumps({"reason": reason})),
            team=team,
            action="key.grant",
            target=key_id,
        )
        reply = await self._runner.run(load_script("grant"), *call)
        _raise_verdict(reply[0], key_id)
        if reply[0] == b"too_much":
            raise InvalidRequest(
                f"'quota_units' brings the sum of grants, now {reply[1]:,}, past what can be counted exactly.",
                param="quota_units",
            )
        record = records.key_from_fields(key_id, records.fields_from_pairs(reply[2]), self._store.moment(reply[3]))
        return record, f"{team}_{reply[1].decode()}"

    async def usage(self, key_id: str) -> tuple[KeyRecord, dict[str, Charges], dict[str, Charges]]:
        """A key, and what it was charged by model and by UTC day. Raises NotFound."""
        record = await self.get_key(key_id)
        counters = records.texts((await self._ask("HGETALL", key_names.key_usage(record.team, key_id))).items())
        return record, *charges(counters)

    async def _change(
        self, key_id: str, action: str, overlap_ms: int, rest: Sequence[Argument], by: Actor
    ) -> KeyRecord:
        team = _team(key_id)
        call = by.asks(
            (key_names.key_record(team, key_id),),
            (key_id, action, overlap_ms, *rest),
            team=team,
            action=f"key.{action}",
            target=key_id,
        )
        reply = await self._runner.run(load_script("update_record"), *call)
        _raise_verdict(reply[0], key_id)
        return records.key_from_fields(key_id, records.fields_from_pairs(reply[1]), self._store.moment(reply[2]))

    # --- The ledger ---------------------------------------------------------------------------------------------------

    async def list_ledger(self, wanted: LedgerFilter, *, cursor: str | None, limit: int) -> Page[LedgerEntry]:
        """Entries of each team from the oldest to the newest, team by team.

        A page may hold fewer than ``limit`` entries, even none, and still not be the last: see its cursor.
        """
        after_team, _, after = (cursor or "").rpartition("_")
        found: list[LedgerEntry] = []
        looked_at = 0
        teams = [wanted.team] if wanted.team else await self._names(key_names.TEAMS, after_team, inclusive=True)
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
            batch = await self._ask("XRANGE", key_names.ledger(team), start, "+", "COUNT", batch_size)
            for stream_id, facts in batch:
                yield records.entry_from_stream(team, stream_id.decode(), records.texts(facts.items()))
            if len(batch) < batch_size:
                return
            start = f"({batch[-1][0].decode()}"

    async def _names(
        self, index: str, after: str | None, *, inclusive: bool = False, count: int | None = None
    ) -> list[str]:
        start = f"{'[' if inclusive else '('}{after}" if after else "-"
        paging = () if count is None else ("LIMIT", 0, count)
        return [name.decode() for name in await self._ask("ZRANGEBYLEX", index, start, "+", *paging)]

    async def _ask(self, *words: str | int) -> Any:
        return await ask(self._redis, *words)


def _team(key_id: str) -> str:
    team = team_of(key_id)
    if team is None:
        raise _no_key(key_id)
    return team


def _no_key(key_id: str) -> NotFound:
    return NotFound(f"There is no key '{key_id[:100]}'.")


def _raise_verdict(verdict: bytes, key_id: str) -> None:
    if verdict == b"missing":
        raise _no_key(key_id)
    if verdict == b"revoked":
        raise Conflict(f"The key '{key_id}' has been revoked, and cannot be changed any more.")


# --- Records as they are written -------------------------------------------------------------------------------------


def fields_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a record; None becomes the empty text, which takes a field away."""
    texts = {name: "" if value is None else str(value) for name, value in values.items() if name != "models"}
    if "models" in values:
        texts["models"] = "\n".join(values["models"])
    return texts


def given_fields(values: Mapping[str, Any]) -> dict[str, str]:
    """Fields of a new record: those that have a value."""
    return {name: value for name, value in fields_of(values).items() if value != ""}


def flat(fields: Mapping[str, str]) -> tuple[str, ...]:
    """As a script takes them: name, value, name, value, …"""
    return tuple(text for pair in fields.items() for text in pair)


def charges(counters: Mapping[str, str]) -> tuple[dict[str, Charges], dict[str, Charges]]:
    """What a usage hash says, by model and by UTC day."""
    by_model: dict[str, Counter[str]] = defaultdict(Counter)
    by_day: dict[str, Counter[str]] = defaultdict(Counter)
    for name, value in counters.items():
        day, what, model = name.split(":", 2)
        by_model[model][what] += int(value)
        by_day[day][what] += int(value)
    return _sorted_charges(by_model), _sorted_charges(by_day)


def _sorted_charges(sums: Mapping[str, Counter[str]]) -> dict[str, Charges]:
    return {name: Charges(images=sums[name]["images"], quota_units=sums[name]["units"]) for name in sorted(sums)}
