"""What the admin API reads by plain commands, over a store in this process: no server, and done within seconds."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis
from redis.asyncio import ConnectionPool, Redis

from proxy.domain.errors import InvalidRequest, NotFound, StoreUnavailable
from proxy.domain.limits import KeyRecord, Limits, TeamRecord
from proxy.metering.accounts import registry
from proxy.metering.accounts.registry import KeyRegistry, TeamRegistry
from proxy.metering.accounts.team_figures import TeamFigures
from proxy.metering.ledger.audit_log import AuditLog
from proxy.metering.ledger.books import LedgerBooks
from proxy.metering.ledger.pages import LedgerFilter, LedgerPages
from proxy.metering.ledger.walk import Span
from proxy.metering.pages import Page
from proxy.metering.redis import pool as redis_connection
from proxy.metering.redis.pool import ask, ask_all, read_hash
from proxy.metering.redis.runner import ScriptRunner
from proxy.metering.redis_store import facts as records
from proxy.metering.redis_store.charges import Charges
from proxy.metering.redis_store.store import RedisStore
from proxy.telemetry.metrics import Metrics

NOW_US = 1_795_000_000_000_000
DAY = NOW_US // 1_000 // records.DAY_MS


class StillStore(RedisStore):
    """A store in which no lease runs out, and where it is always the same moment."""

    async def reclaim(self, team: str) -> records.StoreTime:
        self.reclaimed.append(team)
        return self.moment(NOW_US)

    reclaimed: list[str]


@dataclass
class Reads:
    """Everything that reads, over one store."""

    redis: Redis
    pool: ConnectionPool
    store: StillStore
    runner: ScriptRunner
    keys: KeyRegistry
    teams: TeamRegistry
    ledger: LedgerPages
    audit: AuditLog
    books: LedgerBooks

    async def add_team(self, team: str, **fields: Any) -> None:
        """A team as ``create_team.lua`` leaves it."""
        await self.redis.zadd("lm:teams", {team: 0})
        await self._write(f"lm:{{{team}}}:team", {"created_ms": 5, **fields})

    async def add_key(self, key_id: str, **fields: Any) -> None:
        """A key as ``create_key.lua`` leaves it, of a team that is there."""
        team = key_id.rpartition("_")[0]
        await self.redis.zadd(f"lm:{{{team}}}:keys", {key_id: 0})
        await self._write(f"lm:{{{team}}}:key:{key_id}", {"created_ms": 7, **fields})

    async def add_entry(self, team: str, at_ms: int, **fields: Any) -> str:
        """A ledger entry of a moment."""
        given: dict[Any, Any] = {
            "kind": "request",
            "images": 1,
            "charged": 5,
            "overage": 0,
            "facts": '{"model":"m"}',
            **fields,
        }
        stream_id = await self.redis.xadd(f"lm:{{{team}}}:ledger", given, id=f"{at_ms}-*")
        assert isinstance(stream_id, bytes)
        return f"{team}_{stream_id.decode()}"

    async def _write(self, name: str, fields: dict[Any, Any]) -> None:
        await self.redis.hset(name, mapping=fields)


@pytest.fixture
async def reads() -> AsyncIterator[Reads]:
    fake = FakeAsyncRedis()
    pool = fake.connection_pool
    metrics = Metrics()
    runner = ScriptRunner("redis://127.0.0.1:1", metrics, timeout_s=1)
    store = StillStore(runner, metrics, lease_ms=60_000, settled_ids_ms=60_000)
    store.reclaimed = []
    yield Reads(
        *(fake, pool, store, runner, KeyRegistry(runner, pool, store), TeamRegistry(runner, pool, store)),
        *(LedgerPages(pool, store), AuditLog(pool, store), LedgerBooks(runner, pool, store)),
    )
    await fake.aclose()


def key_ids(team: str, count: int) -> list[str]:
    return [f"{team}_{number:010d}" for number in range(count)]


async def all_of(read: Any) -> tuple[list[Any], int]:
    """Every item of a list, and the number of its pages."""
    found: list[Any] = []
    cursor, pages = None, 0
    while True:
        page: Page[Any] = await read(cursor)
        found += page.items
        cursor, pages = page.next_cursor, pages + 1
        if cursor is None:
            return found, pages


# --- Keys and teams ---------------------------------------------------------------------------------------------------


async def test_unit_a_key_is_read_with_its_counters_and_windows(reads: Reads) -> None:
    (key_id,) = key_ids("acme", 1)
    counters = struct.pack(">13q", 10, 100, 7, 3, 2, DAY, 4, 40, DAY - 3, 5, 50, 0, 0)
    await reads.add_key(key_id, name="nightly", quota_units=1_000, granted=500, models="a\nb/*", counters=counters)
    record = await reads.keys.get(key_id)
    assert (record.id, record.team, record.name, record.created_ms) == (key_id, "acme", "nightly", 7)
    assert record.limits == Limits(quota_units=1_000, models=("a", "b/*"))
    assert (record.quota.limit, record.quota.posted, record.quota.reserved) == (1_500, 100, 10)
    assert (record.overage_units, record.images, record.held) == (7, 3, 2)
    day = record.quotas["quota_units_per_day"]
    assert (day.window, day.posted, day.reserved) == (records.utc_day(DAY * records.DAY_MS), 40, 4)
    with pytest.raises(NotFound):
        await reads.keys.get("acme_9999999999")
    with pytest.raises(NotFound):
        await reads.keys.get("no key's id")


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_unit_keys_of_all_teams_come_in_pages(reads: Reads, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "TEAMS_LIMIT", 2)
    monkeypatch.setattr(registry, "RECORDS_A_ROUND_TRIP", 2)
    wanted = [*key_ids("a", 3), *key_ids("c", 1), *key_ids("z", 2)]
    for team in ("a", "b", "c", "d", "e", "f", "z"):
        await reads.add_team(team)
    for key_id in wanted:
        await reads.add_key(key_id)
    found, _pages = await all_of(lambda cursor: reads.keys.page(None, cursor=cursor, limit=limit))
    assert [record.id for record in found] == wanted
    found, _pages = await all_of(lambda cursor: reads.keys.page("a", cursor=cursor, limit=limit))
    assert [record.id for record in found] == wanted[:3]
    with pytest.raises(InvalidRequest, match="of the team 'a'"):
        await reads.keys.page("a", cursor=wanted[-1], limit=limit)


async def test_unit_teams_come_in_pages_and_one_that_has_no_record_is_passed(reads: Reads) -> None:
    for team in ("a", "b", "c"):
        await reads.add_team(team, name=team.upper())
    await reads.redis.zadd("lm:teams", {"broken-off": 0})
    found, pages = await all_of(lambda cursor: reads.teams.page(cursor=cursor, limit=2))
    assert ([team.name for team in found], pages) == (["A", "B", "C"], 2)
    assert reads.store.reclaimed == ["a", "b", "broken-off", "c"]
    names, pages = await all_of(lambda cursor: reads.books.teams(cursor=cursor, limit=3))
    assert (names, pages) == (["a", "b", "broken-off", "c"], 2)


async def test_unit_usage_is_told_by_model_and_by_day_and_long_past_days_are_one(reads: Reads) -> None:
    (key_id,) = key_ids("acme", 1)
    await reads.add_team("acme")
    await reads.add_key(key_id)
    usage: dict[Any, Any] = {
        "from": "2025-10-01",
        "earlier:units:m": 10,
        "earlier:images:m": 1,
        "2026-11-01:units:m": 20,
        "2026-11-01:units:with:colon": 3,
    }
    await reads.redis.hset(f"lm:{{acme}}:usage:{key_id}", mapping=usage)
    await reads.redis.hset("lm:{acme}:usage", mapping=usage)
    for _record, by_model, by_day in (await reads.keys.usage(key_id), await reads.teams.usage("acme")):
        assert by_model == {"m": Charges(1, 30), "with:colon": Charges(0, 3)}
        assert by_day == {"2026-11-01": Charges(0, 23), "earlier": Charges(1, 10)}
    day = {"2026-11-01": {"m": Charges(0, 20), "with:colon": Charges(0, 3)}}
    for daily in (reads.keys.daily_usage(key_id, "2026-11-01"), reads.teams.daily_usage("acme", "2026-10-31")):
        assert await daily == day
    assert await reads.teams.daily_usage("acme", "2026-11-02") == {}


# --- The ledger and the audit record ----------------------------------------------------------------------------------


async def test_unit_the_ledger_is_searched(reads: Reads) -> None:
    first, second = key_ids("acme", 2)
    await reads.add_team("acme")
    wanted = [
        await reads.add_entry("acme", at, key=key, outcome=outcome, request=f"req_{at}")
        for at, key, outcome in ((100, first, "delivered"), (200, second, "failed"), (300, first, "failed"))
    ]

    async def ids(**wanted: Any) -> list[str]:
        page = await reads.ledger.list_entries(LedgerFilter(**wanted), cursor=None, limit=10)
        return [entry.id for entry in page.items]

    assert await ids() == await ids(team="acme") == wanted
    assert await ids(team="acme", key_id=first) == [wanted[0], wanted[2]]
    assert await ids(outcome="failed") == wanted[1:]
    assert await ids(span=Span(200)) == await ids(team="acme", span=Span(200)) == wanted[1:]
    newest = Span(newest_first=True)
    least = await reads.ledger.list_entries(LedgerFilter("acme", span=newest), cursor="acme_0-0", limit=10)
    assert least.items == []
    before = Span(until_ms=200)
    assert await ids(span=before) == await ids(team="acme", span=before) == wanted[:1]
    assert await ids(team="acme", span=Span(200, newest_first=True)) == wanted[:0:-1]
    assert await ids(request="req_200") == await ids(team="acme", request="req_200") == wanted[1:2]
    assert await ids(team="nobody") == []
    page = await reads.ledger.list_entries(LedgerFilter(team="acme"), cursor=None, limit=1)
    assert (page.items[0].at_ms, page.items[0].facts["model"], page.items[0].facts["charged"]) == (100, "m", 5)
    assert (page.next_cursor, page.resume_cursor) == (wanted[0], None)
    last = await reads.ledger.list_entries(LedgerFilter(team="acme"), cursor=wanted[1], limit=10)
    assert ([entry.id for entry in last.items], last.next_cursor, last.resume_cursor) == (wanted[2:], None, wanted[2])


async def test_unit_the_audit_record_is_read_as_keys_and_teams(reads: Reads) -> None:
    (key_id,) = key_ids("acme", 1)
    await reads.add_team("acme")
    about = {"by": "ann", "request": "req_1", "target": key_id, "owner": key_id}
    made: dict[Any, Any] = {**about, "action": "key.create", "after.name": "x", "after.created_ms": 5}
    renamed: dict[Any, Any] = {**about, "action": "team.update", "before.name": "x", "after.name": "y"}
    for fields in (made, renamed):
        await reads.redis.xadd("lm:{acme}:audit", fields)
    page = await reads.audit.list_entries(None, since_ms=None, cursor=None, limit=10)
    first, second = page.items
    assert (first.by, first.action, first.before) == ("ann", "key.create", None)
    assert isinstance(first.after, KeyRecord)
    assert isinstance(second.before, TeamRecord)
    assert isinstance(second.after, TeamRecord)
    assert (first.after.name, second.before.name, second.after.name) == ("x", "x", "y")
    later = await reads.audit.list_entries(None, since_ms=None, cursor=page.resume_cursor, limit=10)
    assert later.items == []


# --- Figures, and reading itself --------------------------------------------------------------------------------------


async def test_unit_the_figures_of_teams_are_those_of_the_first_that_are_not_revoked(reads: Reads) -> None:
    metrics = Metrics(label_teams=2)
    assert metrics.teams is not None
    for team in ("a", "b", "c", "d"):
        await reads.add_team(team, quota_units=9, **({"revoked_ms": 1} if team == "a" else {}))
    figures = await TeamFigures(reads.teams, metrics.teams, refresh_s=60).read()
    assert sorted(figures)[: metrics.teams.label_teams] == ["b", "c"]
    assert figures["b"]["quota_units"].limit == 9


async def test_unit_a_large_hash_is_read_in_parts(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_connection, "FIELDS_A_COMMAND", 3)
    fields: dict[Any, Any] = {f"{number}": number for number in range(20)}
    await reads.redis.hset("some", mapping=fields)
    assert await read_hash(reads.redis, "some") == {f"{n}".encode(): f"{n}".encode() for n in range(20)}
    assert await read_hash(reads.redis, "none") == {}


async def test_unit_what_the_store_refuses_is_no_answer(reads: Reads) -> None:
    await reads.redis.set("word", "x")
    commands: Sequence[Sequence[str | int]] = [("GET", "word"), ("INCR", "word")]
    with pytest.raises(StoreUnavailable):
        await ask_all(reads.redis, commands)
    with pytest.raises(StoreUnavailable):
        await ask(reads.redis, "INCR", "word")
    assert await ask_all(reads.redis, commands[:1]) == [b"x"]
    assert await ask_all(reads.redis, []) == []
