from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest

from proxy.domain.api_key import parse_credential
from proxy.domain.billing.settlement import Delivery, settle
from proxy.domain.errors import Conflict, InsufficientQuota, InvalidApiKey, InvalidRequest, ModelNotAllowed, NotFound
from proxy.domain.limits import Limits
from proxy.metering.accounts import registry
from proxy.metering.ledger.pages import LedgerFilter
from proxy.metering.redis.connection import Argument
from proxy.metering.redis.scripts import Script
from tests.metering.conftest import Bench, open_bench

# --- Keys -------------------------------------------------------------------------------------------------------------


async def test_a_new_key_has_its_limits_and_only_the_hash_of_its_text_is_stored(bench: Bench) -> None:
    record, text = await bench.keys.create(
        "acme", name="nightly", limits=Limits(10_000, models=("acme/*", "other/x")), expires_ms=2_000_000_000_000
    )
    assert record.team == "acme"
    assert record.name == "nightly"
    assert record.limits == Limits(10_000, models=("acme/*", "other/x"))
    assert record.expires_ms == 2_000_000_000_000
    assert record.created_ms > 1_700_000_000_000
    assert record == await bench.keys.get(record.id)
    for name in await bench.redis.keys("*"):
        assert text.encode() not in (await bench.redis.dump(name) or b"")


async def test_changes_touch_what_is_given_and_nothing_else(bench: Bench) -> None:
    key = await bench.make_key(10_000, models=("acme/*",))
    record = await bench.keys.update(key.key_id, {"name": "renamed"})
    assert (record.name, record.limits) == ("renamed", Limits(10_000, models=("acme/*",)))
    record = await bench.keys.update(key.key_id, {"quota_units": None})
    assert record.limits == Limits(None, models=("acme/*",))
    assert record.quota.remaining is None
    record = await bench.keys.update(key.key_id, {"expires_ms": 2_000_000_000_000})
    record = await bench.keys.update(key.key_id, {"expires_ms": None})
    assert record.expires_ms is None


async def test_lowering_a_limit_below_what_is_used_refuses_and_raising_it_helps_at_once(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    reservation = await bench.admit(key, "req_1", 10_000)
    record = await bench.keys.update(key.key_id, {"quota_units": 1_000})
    assert record.quota.remaining == 0
    with pytest.raises(InsufficientQuota):
        await bench.admit(key, "req_2", 1)
    await bench.keys.update(key.key_id, {"quota_units": 10_001})
    await bench.admit(key, "req_3", 1)
    await bench.store.settle(settle(reservation, Delivery(images=1)))
    assert (await bench.record(key)).quota.posted == 10_000


async def test_a_rotated_key_keeps_its_counters_and_its_old_text_only_for_the_overlap(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    await bench.admit(key, "req_1", 5_000)
    record, text = await bench.keys.rotate(key.key_id, overlap_ms=60_000)
    assert record.quota.reserved == 5_000
    renewed = parse_credential(text)
    assert renewed is not None
    await bench.store.read_own_key(renewed)
    await bench.store.read_own_key(key)

    _record, text = await bench.keys.rotate(key.key_id, overlap_ms=0)
    newest = parse_credential(text)
    assert newest is not None
    await bench.store.read_own_key(newest)
    for old in (key, renewed):
        with pytest.raises(InvalidApiKey):
            await bench.store.read_own_key(old)


async def test_a_revoked_key_cannot_be_brought_back(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    first = await bench.keys.revoke(key.key_id)
    again = await bench.keys.revoke(key.key_id)
    assert first.revoked_ms == again.revoked_ms is not None
    with pytest.raises(Conflict):
        await bench.keys.update(key.key_id, {"name": "x"})
    with pytest.raises(Conflict):
        await bench.keys.rotate(key.key_id, overlap_ms=0)
    with pytest.raises(Conflict):
        await bench.keys.grant(key.key_id, quota_units=1, reason="x")


async def test_grants_top_up_and_take_back_and_stand_in_the_ledger(bench: Bench) -> None:
    key = await bench.make_key(5_000)
    record, entry_id = await bench.keys.grant(key.key_id, quota_units=2_500, reason="goodwill")
    assert (record.quota.limit, record.granted_units) == (7_500, 2_500)
    record, _ = await bench.keys.grant(key.key_id, quota_units=-4_000, reason="mistake")
    assert (record.quota.limit, record.granted_units) == (3_500, -1_500)
    page = await bench.ledger.list_entries(LedgerFilter(key_id=key.key_id, team="acme"), cursor=None, limit=10)
    assert [(entry.kind, entry.facts["quota_units"], entry.facts["reason"]) for entry in page.items] == [
        ("grant", 2_500, "goodwill"),
        ("grant", -4_000, "mistake"),
    ]
    assert page.items[0].id == entry_id
    assert sum(entry.facts["quota_units"] for entry in page.items) == record.granted_units


async def test_grants_cannot_pass_what_can_be_counted(bench: Bench) -> None:
    key = await bench.make_key(5_000)
    await bench.keys.grant(key.key_id, quota_units=2**51, reason="all of it")
    with pytest.raises(InvalidRequest, match="exactly"):
        await bench.keys.grant(key.key_id, quota_units=1, reason="more")
    assert (await bench.record(key)).granted_units == 2**51


async def test_a_grant_that_would_change_nothing_is_refused_with_the_reason(bench: Bench) -> None:
    key = await bench.make_key(limits=Limits(quota_units_per_month=5_000))
    with pytest.raises(Conflict, match=f"'{key.key_id}' has no quota in total"):
        await bench.keys.grant(key.key_id, quota_units=5, reason="x")
    with pytest.raises(Conflict, match="team 'acme' has no quota in total"):
        await bench.teams.grant("acme", quota_units=5, reason="x")
    assert (await bench.record(key)).granted_units == (await bench.teams.get("acme")).granted_units == 0
    assert (await bench.ledger.list_entries(LedgerFilter(team="acme"), cursor=None, limit=10)).items == []


async def test_parallel_grants_all_count(bench: Bench) -> None:
    key = await bench.make_key(0)
    await asyncio.gather(*(bench.keys.grant(key.key_id, quota_units=10, reason="x") for _ in range(50)))
    assert (await bench.record(key)).granted_units == 500


@pytest.mark.parametrize("key_id", ["acme_0000000000", "nonsense", "acme", "", "lm_acme_0000000000"])
async def test_a_key_that_is_not_there_is_not_found(bench: Bench, key_id: str) -> None:
    with pytest.raises(NotFound):
        await bench.keys.get(key_id)
    with pytest.raises(NotFound):
        await bench.keys.update(key_id, {"name": "x"})
    with pytest.raises(NotFound):
        await bench.keys.revoke(key_id)
    with pytest.raises(NotFound):
        await bench.keys.grant(key_id, quota_units=1, reason="x")
    assert await bench.redis.keys("*") == []


async def test_lists_of_keys_come_in_pages_that_hold_each_once(bench: Bench) -> None:
    made = [(await bench.make_key(team=team)).key_id for team in ("b", "a", "c", "a", "b", "a-b")]
    for limit in (1, 2, 3, 10):
        found: list[str] = []
        cursor = None
        while True:
            page = await bench.keys.page(None, cursor=cursor, limit=limit)
            found += [record.id for record in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == sorted(made, key=lambda key_id: (key_id.rpartition("_")[0], key_id))
    page = await bench.keys.page("a", cursor=None, limit=10)
    assert {record.team for record in page.items} == {"a"}
    assert len(page.items) == 2


def lose_the_first_reply(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, script: str, meanwhile: list[Awaitable[object]]
) -> None:
    """The next call of ``script`` is made twice, as after a lost reply, and ``meanwhile`` happens in between."""
    run = bench.runner.run

    async def run_twice(called: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> list[Any]:
        if called.name == script and meanwhile:
            await run(called, keys, arguments)
            await meanwhile.pop()
        return await run(called, keys, arguments)

    monkeypatch.setattr(bench.runner, "run", run_twice)


async def test_a_change_whose_reply_was_lost_does_not_undo_what_another_has_changed_since(
    bench: Bench, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await bench.make_key(1_000)
    async with open_bench(store_url) as other:
        meanwhile: list[Awaitable[object]] = [other.keys.update(key.key_id, {"quota_units": 3_000})]
        lose_the_first_reply(bench, monkeypatch, "update_record", meanwhile)
        changed = await bench.keys.update(key.key_id, {"quota_units": 2_000, "name": "mine"})
        assert (changed.limits.quota_units, changed.name) == (3_000, "mine")
        meanwhile.append(other.teams.update("acme", {"quota_units": 5}))
        assert (await bench.teams.update("acme", {"quota_units": 4})).limits.quota_units == 5
    assert (await bench.record(key)).limits.quota_units == 3_000
    # The same change asked for again is another change.
    assert (await bench.keys.update(key.key_id, {"quota_units": 2_000})).limits.quota_units == 2_000


async def test_a_rotation_whose_reply_was_lost_does_not_undo_a_later_one(
    bench: Bench, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await bench.make_key(1_000)
    later: list[str] = []
    async with open_bench(store_url) as other:

        async def rotate() -> None:
            later.append((await other.keys.rotate(key.key_id, overlap_ms=0))[1])

        lose_the_first_reply(bench, monkeypatch, "update_record", [rotate()])
        await bench.keys.rotate(key.key_id, overlap_ms=0)
    credential = parse_credential(later[0])
    assert credential is not None
    await bench.admit(credential, "req_1", 1)


async def test_a_key_id_that_is_taken_is_not_given_twice(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = await bench.make_key(1_000)
    ids = [taken.key_id, taken.key_id, "acme_0000000000"]
    monkeypatch.setattr(registry, "make_key_id", lambda _team, _choose: ids.pop(0))
    made = await bench.make_key(5)
    assert (made.key_id, ids) == ("acme_0000000000", [])
    await bench.admit(made, "req_1", 5)
    assert (await bench.record(taken)).limits.quota_units == 1_000
    monkeypatch.setattr(registry, "make_key_id", lambda _team, _choose: taken.key_id)
    with pytest.raises(Conflict, match="were all taken"):
        await bench.make_key(5)


# --- Teams ------------------------------------------------------------------------------------------------------------


async def test_a_new_team_has_its_limits(bench: Bench) -> None:
    limits = Limits(quota_units=10, quota_units_per_day=5, requests_per_minute=7, models=("acme/*",))
    record = await bench.teams.create("acme", name="Acme", limits=limits)
    assert (record.id, record.name, record.limits) == ("acme", "Acme", limits)
    assert record.created_ms > 1_700_000_000_000
    assert record == await bench.teams.get("acme")
    with pytest.raises(Conflict, match="There is a team 'acme' already"):
        await bench.teams.create("acme", name="Another", limits=Limits())
    assert (await bench.teams.get("acme")).name == "Acme"


async def test_a_team_is_made_with_its_first_key(bench: Bench) -> None:
    await bench.make_key(10_000)
    assert (await bench.teams.get("acme")).limits == Limits()
    with pytest.raises(NotFound):
        await bench.teams.get("other")
    with pytest.raises(NotFound):
        await bench.teams.update("No Such Name", {"name": "x"})


async def test_a_grant_to_the_team_is_in_the_ledger_and_helps_every_key(bench: Bench) -> None:
    await bench.teams.create("acme", name="", limits=Limits(quota_units=5_000))
    first, second = await bench.make_key(None), await bench.make_key(None)
    await bench.admit(first, "req_1", 5_000)
    with pytest.raises(InsufficientQuota, match="its team has 0 left"):
        await bench.admit(second, "req_2", 5_000)
    record, entry = await bench.teams.grant("acme", quota_units=5_000, reason="goodwill")
    assert (record.granted_units, record.quota.remaining) == (5_000, 5_000)
    assert entry.startswith("acme_")
    await bench.admit(second, "req_2", 5_000)
    with pytest.raises(InvalidRequest, match="past what can be counted"):
        await bench.teams.grant("acme", quota_units=2**51, reason="far too much")


async def test_a_deleted_team_refuses_its_keys_and_settles_what_is_in_flight(bench: Bench) -> None:
    key = await bench.make_key(None)
    reservation = await bench.admit(key, "req_1", 5_000)
    assert (await bench.teams.revoke("acme")).revoked_ms is not None
    with pytest.raises(InvalidApiKey, match="revoked"):
        await bench.admit(key, "req_2", 5_000)
    with pytest.raises(InvalidApiKey):
        await bench.store.read_own_key(key)
    with pytest.raises(Conflict, match="gets no new keys"):
        await bench.make_key(None)
    with pytest.raises(Conflict):
        await bench.teams.update("acme", {"name": "x"})
    await bench.store.settle(settle(reservation, Delivery(images=1)))
    _team, by_model, by_day = await bench.teams.usage("acme")
    assert [each.quota_units for each in (*by_model.values(), *by_day.values())] == [5_000, 5_000]


async def test_both_lists_of_models_have_to_allow_it(bench: Bench) -> None:
    await bench.teams.create("acme", name="", limits=Limits(models=("other/*",)))
    key = await bench.make_key(None)
    with pytest.raises(ModelNotAllowed, match="The team of this API key"):
        await bench.admit(key, "req_1", 5_000)
    await bench.teams.update("acme", {"models": ["acme/*"]})
    await bench.admit(key, "req_1", 5_000)


async def test_teams_are_listed_in_pages(bench: Bench) -> None:
    for team in ("b", "c", "a"):
        await bench.teams.create(team, name="", limits=Limits())
    first = await bench.teams.page(cursor=None, limit=2)
    assert ([team.id for team in first.items], first.next_cursor) == (["a", "b"], "b")
    rest = await bench.teams.page(cursor="b", limit=2)
    assert ([team.id for team in rest.items], rest.next_cursor) == (["c"], None)
