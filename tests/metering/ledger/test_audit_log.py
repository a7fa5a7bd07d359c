from __future__ import annotations

from unittest.mock import patch

import pytest

from proxy.domain.billing.settlement import Delivery, settle
from proxy.domain.errors import Conflict, NotFound
from proxy.domain.limits import KeyRecord, Limits, TeamRecord
from proxy.metering.accounts.registry import TeamRegistry
from proxy.metering.actor import Actor
from proxy.metering.ledger.audit_log import AuditEntry, AuditLog
from proxy.metering.ledger.books import LedgerBooks
from proxy.metering.redis.pool import ask
from proxy.metering.redis_store import keys as key_names
from tests.metering.conftest import Bench

ANN = Actor("ann", "req_1")


async def entries(bench: Bench, team: str | None = "acme") -> list[AuditEntry]:
    log = AuditLog(bench.pool, bench.store)
    return (await log.list_entries(team, since_ms=None, cursor=None, limit=1_000)).items


async def test_each_change_of_a_key_is_recorded_with_who_and_what(bench: Bench) -> None:
    record, _text = await bench.keys.create("acme", name="nightly", limits=Limits(10_000), expires_ms=None, by=ANN)
    await bench.keys.update(record.id, {"quota_units": 20_000, "name": "daily"}, by=ANN)
    await bench.keys.rotate(record.id, overlap_ms=0, by=ANN)
    await bench.keys.grant(record.id, quota_units=500, reason="goodwill", by=Actor("bob", "req_2"))
    await bench.keys.revoke(record.id, by=ANN)
    found = await entries(bench)
    assert [(each.by, each.request, each.action, each.target) for each in found] == [
        ("ann", "req_1", "team.create", "acme"),
        ("ann", "req_1", "key.create", record.id),
        ("ann", "req_1", "key.update", record.id),
        ("ann", "req_1", "key.rotate", record.id),
        ("bob", "req_2", "key.grant", record.id),
        ("ann", "req_1", "key.revoke", record.id),
    ]
    team, made, updated, rotated, granted, revoked = found
    assert isinstance(team.after, TeamRecord)
    assert made.before is None
    assert made.after == updated.before
    assert isinstance(updated.before, KeyRecord)
    assert isinstance(updated.after, KeyRecord)
    assert (updated.before.name, updated.before.limits.quota_units) == ("nightly", 10_000)
    assert (updated.after.name, updated.after.limits.quota_units) == ("daily", 20_000)
    assert rotated.before is not None
    assert granted.after is not None
    assert granted.after.granted_units == 500
    assert revoked.before is not None
    assert revoked.before.revoked_ms is None
    assert revoked.after is not None
    assert revoked.after.revoked_ms is not None


async def test_each_change_of_a_team_is_recorded(bench: Bench) -> None:
    teams = TeamRegistry(bench.runner, bench.pool, bench.store)
    await teams.create("acme", name="Acme", limits=Limits(1), by=ANN)
    await teams.update("acme", {"images_per_minute": 5}, by=ANN)
    await teams.grant("acme", quota_units=7, reason="goodwill", by=ANN)
    await teams.revoke("acme", by=ANN)
    found = await entries(bench)
    assert [each.action for each in found] == ["team.create", "team.update", "team.grant", "team.delete"]
    assert all(isinstance(each.after, TeamRecord) and each.target == "acme" for each in found)
    assert found[1].after is not None
    assert found[1].after.limits.images_per_minute == 5


async def test_a_refund_is_recorded_with_its_key(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    reservation = await bench.admit(key, "req_1", 5_000)
    entry = await bench.store.settle(settle(reservation, Delivery(images=1)))
    books = LedgerBooks(bench.runner, bench.pool, bench.store)
    await books.refund("acme", entry, reason="black", by=ANN)
    with pytest.raises(Conflict):
        await books.refund("acme", entry, reason="black", by=ANN)
    refund = (await entries(bench))[-1]
    assert (refund.action, refund.target) == ("ledger.refund", f"acme_{entry}")
    assert refund.before is not None
    assert refund.after is not None
    assert (refund.before.id, refund.before.quota.posted, refund.after.quota.posted) == (key.key_id, 5_000, 0)


async def test_counters_are_recorded_as_they_stood(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    reservation = await bench.admit(key, "req_1", 5_000)
    await bench.keys.update(key.key_id, {"name": "held"}, by=ANN)
    await bench.store.settle(settle(reservation, Delivery(images=1)))
    await bench.keys.update(key.key_id, {"name": "posted"}, by=ANN)
    held, posted = (await entries(bench))[-2:]
    assert held.after is not None
    assert posted.after is not None
    assert (held.after.quota.reserved, held.after.quota.posted, held.after.held) == (5_000, 0, 1)
    assert (posted.after.quota.reserved, posted.after.quota.posted, posted.after.images) == (0, 5_000, 1)


async def test_what_changes_nothing_is_no_change(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    await bench.keys.update(key.key_id, {"quota_units": 10_000}, by=ANN)
    await bench.keys.revoke(key.key_id, by=ANN)
    await bench.keys.revoke(key.key_id, by=ANN)
    with pytest.raises(Conflict):
        await bench.keys.update(key.key_id, {"quota_units": 5}, by=ANN)
    with pytest.raises(NotFound):
        await bench.keys.revoke("acme_0000000000", by=ANN)
    assert [each.action for each in await entries(bench)] == ["team.create", "key.create", "key.revoke"]


async def test_the_same_call_twice_is_recorded_once(bench: Bench) -> None:
    """As it comes where the reply to the first was lost."""
    registry, run = bench.keys, bench.runner.run

    async def run_twice(*call: object) -> list[object]:
        await run(*call)  # type: ignore[arg-type]
        return await run(*call)  # type: ignore[arg-type]

    with patch.object(bench.runner, "run", run_twice):
        record, _text = await registry.create("acme", name="", limits=Limits(10_000), expires_ms=None, by=ANN)
        await registry.update(record.id, {"name": "daily"}, by=ANN)
        await registry.rotate(record.id, overlap_ms=1_000, by=ANN)
        await registry.grant(record.id, quota_units=500, reason="goodwill", by=ANN)
        await registry.revoke(record.id, by=ANN)
        await TeamRegistry(bench.runner, bench.pool, bench.store).create("other", name="", limits=Limits(), by=ANN)
    assert [each.action for each in await entries(bench)] == [
        *("team.create", "key.create", "key.update", "key.rotate", "key.grant", "key.revoke"),
    ]
    assert [each.action for each in await entries(bench, "other")] == ["team.create"]


async def test_no_secret_is_recorded(bench: Bench) -> None:
    record, _text = await bench.keys.create("acme", name="", limits=Limits(), expires_ms=None, by=ANN)
    await bench.keys.rotate(record.id, overlap_ms=60_000, by=ANN)
    found = await ask(bench.redis, "XRANGE", key_names.audit("acme"), "-", "+")
    assert len(found) == 3
    for _id, fields in found:
        assert b"after.created_ms" in fields
        assert not any(b"sha256" in name for name in fields)


async def test_pages_go_on_where_they_ended_over_all_teams(bench: Bench) -> None:
    for team in ("b", "a", "b"):
        await bench.make_key(team=team)
    log = AuditLog(bench.pool, bench.store)
    found: list[str] = []
    cursor = None
    while True:
        page = await log.list_entries(None, since_ms=None, cursor=cursor, limit=1)
        assert len(page.items) <= 1
        found += [each.team for each in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == ["a", "a", "b", "b", "b"]
