from __future__ import annotations

import pytest

from proxy.domain.billing.settlement import Delivery, settle
from proxy.domain.errors import Conflict, InsufficientQuota, InvalidApiKey, InvalidRequest, ModelNotAllowed, NotFound
from proxy.domain.limits import Limits
from tests.metering.conftest import Bench


async def test_a_new_team_has_its_limits(bench: Bench) -> None:
    limits = Limits(quota_units=10, quota_units_per_day=5, requests_per_minute=7, models=("acme/*",))
    record = await bench.teams.create_team("acme", name="Acme", limits=limits)
    assert (record.id, record.name, record.limits) == ("acme", "Acme", limits)
    assert record.created_ms > 1_700_000_000_000
    assert record == await bench.teams.get_team("acme")
    with pytest.raises(Conflict, match="There is a team 'acme' already"):
        await bench.teams.create_team("acme", name="Another", limits=Limits())
    assert (await bench.teams.get_team("acme")).name == "Acme"


async def test_a_team_is_made_with_its_first_key(bench: Bench) -> None:
    await bench.make_key(10_000)
    assert (await bench.teams.get_team("acme")).limits == Limits()
    with pytest.raises(NotFound):
        await bench.teams.get_team("other")
    with pytest.raises(NotFound):
        await bench.teams.update_team("No Such Name", {"name": "x"})


async def test_a_grant_to_the_team_is_in_the_ledger_and_helps_every_key(bench: Bench) -> None:
    await bench.teams.create_team("acme", name="", limits=Limits(quota_units=5_000))
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
    assert (await bench.teams.revoke_team("acme")).revoked_ms is not None
    with pytest.raises(InvalidApiKey, match="revoked"):
        await bench.admit(key, "req_2", 5_000)
    with pytest.raises(InvalidApiKey):
        await bench.store.read_own_key(key)
    with pytest.raises(Conflict, match="gets no new keys"):
        await bench.make_key(None)
    with pytest.raises(Conflict):
        await bench.teams.update_team("acme", {"name": "x"})
    await bench.store.settle(settle(reservation, Delivery(images=1)))
    _team, by_model, by_day = await bench.teams.usage("acme")
    assert [each.quota_units for each in (*by_model.values(), *by_day.values())] == [5_000, 5_000]


async def test_both_lists_of_models_have_to_allow_it(bench: Bench) -> None:
    await bench.teams.create_team("acme", name="", limits=Limits(models=("other/*",)))
    key = await bench.make_key(None)
    with pytest.raises(ModelNotAllowed, match="The team of this API key"):
        await bench.admit(key, "req_1", 5_000)
    await bench.teams.update_team("acme", {"models": ["acme/*"]})
    await bench.admit(key, "req_1", 5_000)


async def test_teams_are_listed_in_pages(bench: Bench) -> None:
    for team in ("b", "c", "a"):
        await bench.teams.create_team(team, name="", limits=Limits())
    first = await bench.teams.list_teams(cursor=None, limit=2)
    assert ([team.id for team in first.items], first.next_cursor) == (["a", "b"], "b")
    rest = await bench.teams.list_teams(cursor="b", limit=2)
    assert ([team.id for team in rest.items], rest.next_cursor) == (["c"], None)
