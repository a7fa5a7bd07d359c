from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest

from proxy.domain.api_key import parse_credential
from proxy.domain.billing.settlement import Delivery, settle
from proxy.domain.errors import Conflict, InsufficientQuota, InvalidApiKey, InvalidRequest, NotFound
from proxy.domain.limits import Limits
from proxy.metering.accounts import keys as key_registry
from proxy.metering.ledger.pages import LedgerFilter
from proxy.metering.redis.connection import Argument
from proxy.metering.redis.scripts import Script
from tests.metering.conftest import Bench, open_bench


async def test_a_new_key_has_its_limits_and_only_the_hash_of_its_text_is_stored(bench: Bench) -> None:
    record, text = await bench.registry.create_key(
        "acme", name="nightly", limits=Limits(10_000, models=("acme/*", "other/x")), expires_ms=2_000_000_000_000
    )
    assert record.team == "acme"
    assert record.name == "nightly"
    assert record.limits == Limits(10_000, models=("acme/*", "other/x"))
    assert record.expires_ms == 2_000_000_000_000
    assert record.created_ms > 1_700_000_000_000
    assert record == await bench.registry.get_key(record.id)
    for name in await bench.redis.keys("*"):
        assert text.encode() not in (await bench.redis.dump(name) or b"")


async def test_changes_touch_what_is_given_and_nothing_else(bench: Bench) -> None:
    key = await bench.make_key(10_000, models=("acme/*",))
    record = await bench.registry.update_key(key.key_id, {"name": "renamed"})
    assert (record.name, record.limits) == ("renamed", Limits(10_000, models=("acme/*",)))
    record = await bench.registry.update_key(key.key_id, {"quota_units": None})
    assert record.limits == Limits(None, models=("acme/*",))
    assert record.quota.remaining is None
    record = await bench.registry.update_key(key.key_id, {"expires_ms": 2_000_000_000_000})
    record = await bench.registry.update_key(key.key_id, {"expires_ms": None})
    assert record.expires_ms is None


async def test_lowering_a_limit_below_what_is_used_refuses_and_raising_it_helps_at_once(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    reservation = await bench.admit(key, "req_1", 10_000)
    record = await bench.registry.update_key(key.key_id, {"quota_units": 1_000})
    assert record.quota.remaining == 0
    with pytest.raises(InsufficientQuota):
        await bench.admit(key, "req_2", 1)
    await bench.registry.update_key(key.key_id, {"quota_units": 10_001})
    await bench.admit(key, "req_3", 1)
    await bench.store.settle(settle(reservation, Delivery(images=1)))
    assert (await bench.record(key)).quota.posted == 10_000


async def test_a_rotated_key_keeps_its_counters_and_its_old_text_only_for_the_overlap(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    await bench.admit(key, "req_1", 5_000)
    record, text = await bench.registry.rotate_key(key.key_id, overlap_ms=60_000)
    assert record.quota.reserved == 5_000
    renewed = parse_credential(text)
    assert renewed is not None
    await bench.store.read_own_key(renewed)
    await bench.store.read_own_key(key)

    _record, text = await bench.registry.rotate_key(key.key_id, overlap_ms=0)
    newest = parse_credential(text)
    assert newest is not None
    await bench.store.read_own_key(newest)
    for old in (key, renewed):
        with pytest.raises(InvalidApiKey):
            await bench.store.read_own_key(old)


async def test_a_revoked_key_cannot_be_brought_back(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    first = await bench.registry.revoke_key(key.key_id)
    again = await bench.registry.revoke_key(key.key_id)
    assert first.revoked_ms == again.revoked_ms is not None
    with pytest.raises(Conflict):
        await bench.registry.update_key(key.key_id, {"name": "x"})
    with pytest.raises(Conflict):
        await bench.registry.rotate_key(key.key_id, overlap_ms=0)
    with pytest.raises(Conflict):
        await bench.registry.grant(key.key_id, quota_units=1, reason="x")


async def test_grants_top_up_and_take_back_and_stand_in_the_ledger(bench: Bench) -> None:
    key = await bench.make_key(5_000)
    record, entry_id = await bench.registry.grant(key.key_id, quota_units=2_500, reason="goodwill")
    assert (record.quota.limit, record.granted_units) == (7_500, 2_500)
    record, _ = await bench.registry.grant(key.key_id, quota_units=-4_000, reason="mistake")
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
    await bench.registry.grant(key.key_id, quota_units=2**51, reason="all of it")
    with pytest.raises(InvalidRequest, match="exactly"):
        await bench.registry.grant(key.key_id, quota_units=1, reason="more")
    assert (await bench.record(key)).granted_units == 2**51


async def test_parallel_grants_all_count(bench: Bench) -> None:
    key = await bench.make_key(0)
    await asyncio.gather(*(bench.registry.grant(key.key_id, quota_units=10, reason="x") for _ in range(50)))
    assert (await bench.record(key)).granted_units == 500


@pytest.mark.parametrize("key_id", ["acme_0000000000", "nonsense", "acme", "", "lm_acme_0000000000"])
async def test_a_key_that_is_not_there_is_not_found(bench: Bench, key_id: str) -> None:
    with pytest.raises(NotFound):
        await bench.registry.get_key(key_id)
    with pytest.raises(NotFound):
        await bench.registry.update_key(key_id, {"name": "x"})
    with pytest.raises(NotFound):
        await bench.registry.revoke_key(key_id)
    with pytest.raises(NotFound):
        await bench.registry.grant(key_id, quota_units=1, reason="x")
    assert await bench.redis.keys("*") == []


async def test_lists_of_keys_come_in_pages_that_hold_each_once(bench: Bench) -> None:
    made = [(await bench.make_key(team=team)).key_id for team in ("b", "a", "c", "a", "b", "a-b")]
    for limit in (1, 2, 3, 10):
        found: list[str] = []
        cursor = None
        while True:
            page = await bench.registry.list_keys(None, cursor=cursor, limit=limit)
            found += [record.id for record in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == sorted(made, key=lambda key_id: (key_id.rpartition("_")[0], key_id))
    page = await bench.registry.list_keys("a", cursor=None, limit=10)
    assert {record.team for record in page.items} == {"a"}
    assert len(page.items) == 2


async def test_the_ledger_comes_in_pages_that_hold_each_entry_once(bench: Bench) -> None:
    wanted = []
    for team in ("a", "b"):
        key = await bench.make_key(team=team)
        for number in range(7):
            reservation = await bench.admit(key, f"req_{team}{number}", 5_000)
            await bench.store.settle(settle(reservation, Delivery(images=number % 2)))
            wanted.append(f"req_{team}{number}")
    for limit in (1, 3, 7, 100):
        found: list[str] = []
        cursor = None
        while True:
            page = await bench.ledger.list_entries(LedgerFilter(), cursor=cursor, limit=limit)
            found += [entry.facts["request"] for entry in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == wanted


async def test_the_ledger_is_searched_by_key_outcome_and_time(bench: Bench) -> None:
    key, other = await bench.make_key(), await bench.make_key()
    for number, credential in enumerate((key, other, key)):
        reservation = await bench.admit(credential, f"req_{number}", 5_000)
        delivery = Delivery(images=number)
        delivery.end(complete=True)
        await bench.store.settle(settle(reservation, delivery))

    async def requests(**wanted: str | int) -> list[str]:
        page = await bench.ledger.list_entries(LedgerFilter(team="acme", **wanted), cursor=None, limit=10)  # type: ignore[arg-type]
        return [entry.facts["request"] for entry in page.items]

    assert await requests(key_id=key.key_id) == ["req_0", "req_2"]
    assert await requests(outcome="empty") == ["req_0"]
    assert await requests(key_id=key.key_id, outcome="delivered") == ["req_2"]
    everything = await bench.ledger.list_entries(LedgerFilter(team="acme"), cursor=None, limit=10)
    assert await requests(since_ms=everything.items[-1].at_ms + 1) == []
    assert await requests(since_ms=everything.items[0].at_ms) == ["req_0", "req_1", "req_2"]


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
        meanwhile: list[Awaitable[object]] = [other.registry.update_key(key.key_id, {"quota_units": 3_000})]
        lose_the_first_reply(bench, monkeypatch, "update_record", meanwhile)
        changed = await bench.registry.update_key(key.key_id, {"quota_units": 2_000, "name": "mine"})
        assert (changed.limits.quota_units, changed.name) == (3_000, "mine")
        meanwhile.append(other.teams.update_team("acme", {"quota_units": 5}))
        assert (await bench.teams.update_team("acme", {"quota_units": 4})).limits.quota_units == 5
    assert (await bench.record(key)).limits.quota_units == 3_000
    # The same change asked for again is another change.
    assert (await bench.registry.update_key(key.key_id, {"quota_units": 2_000})).limits.quota_units == 2_000


async def test_a_rotation_whose_reply_was_lost_does_not_undo_a_later_one(
    bench: Bench, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await bench.make_key(1_000)
    later: list[str] = []
    async with open_bench(store_url) as other:

        async def rotate() -> None:
            later.append((await other.registry.rotate_key(key.key_id, overlap_ms=0))[1])

        lose_the_first_reply(bench, monkeypatch, "update_record", [rotate()])
        await bench.registry.rotate_key(key.key_id, overlap_ms=0)
    credential = parse_credential(later[0])
    assert credential is not None
    await bench.admit(credential, "req_1", 1)


async def test_a_key_id_that_is_taken_is_not_given_twice(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = await bench.make_key(1_000)
    ids = [taken.key_id, taken.key_id, "acme_0000000000"]
    monkeypatch.setattr(key_registry, "make_key_id", lambda _team, _choose: ids.pop(0))
    made = await bench.make_key(5)
    assert (made.key_id, ids) == ("acme_0000000000", [])
    await bench.admit(made, "req_1", 5)
    assert (await bench.record(taken)).limits.quota_units == 1_000
    monkeypatch.setattr(key_registry, "make_key_id", lambda _team, _choose: taken.key_id)
    with pytest.raises(Conflict, match="were all taken"):
        await bench.make_key(5)
