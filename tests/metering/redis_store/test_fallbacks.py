"""Reservations for a model that others may stand in for: who may, what is reserved, and for how long."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

import pytest

from proxy.domain.api_key import Credential
from proxy.domain.billing.pricing import Quote, Tier
from proxy.domain.billing.settlement import Delivery, Outcome, Reservation, Served, settle
from proxy.domain.errors import InsufficientQuota, ModelNotAllowed
from proxy.domain.limits import Limits
from proxy.domain.requests.idempotency import Idempotency
from proxy.metering.store import Details
from tests.metering.conftest import ENDPOINT, MODEL, Bench, open_bench, quote

NAME = Idempotency("0" * 64, "1" * 64)


async def admit(
    bench: Bench,
    key: Credential,
    request_id: str,
    fallback_units: Mapping[str, int],
    *,
    alias: str | None = None,
    idempotency: Idempotency | None = None,
    own: Quote | None = None,
) -> Reservation:
    return await bench.store.admit(
        request_id,
        key,
        endpoint=ENDPOINT,
        model=MODEL,
        quote=own or quote(100),
        idempotency=idempotency,
        details=Details(alias, fallback_units),
    )


async def held(bench: Bench, key: Credential) -> int:
    return (await bench.record(key)).quota.reserved


@pytest.mark.parametrize("idempotency", [None, NAME])
async def test_the_dearest_is_reserved(bench: Bench, idempotency: Idempotency | None) -> None:
    key = await bench.make_key(1_000)
    reservation = await admit(bench, key, "req_1", {"b": 30, "c": 300}, idempotency=idempotency)
    assert (reservation.quote.units, reservation.quote.unit_price) == (300, 100)
    assert reservation.fallbacks == ("b", "c")
    assert reservation.remaining_units == 700
    assert await held(bench, key) == 300
    cheaper = await admit(bench, key, "req_2", {"b": 30})
    assert (cheaper.quote.units, cheaper.fallbacks, cheaper.remaining_units) == (100, ("b",), 600)


async def test_one_that_key_or_team_may_not_use_is_none(bench: Bench) -> None:
    key = await bench.make_key(models=(MODEL, "x/*", "b"))
    reservation = await admit(bench, key, "req_1", {"b": 200, "c": 900, "x/y": 300, "x": 900})
    assert (reservation.fallbacks, reservation.quote.units) == (("b", "x/y"), 300)
    with pytest.raises(ModelNotAllowed):
        await admit(bench, await bench.make_key(models=("b",)), "req_2", {"b": 200})
    by_alias = await bench.make_key(models=("latest", "b"))
    assert (await admit(bench, by_alias, "req_3", {"b": 200, "c": 1}, alias="latest")).fallbacks == ("b",)


async def test_one_that_the_quota_has_no_room_for_is_none_and_the_model_itself_has_to_fit(bench: Bench) -> None:
    key = await bench.make_key(limits=Limits(quota_units=1_000, quota_units_per_day=250, quota_units_per_month=500))
    reservation = await admit(bench, key, "req_1", {"b": 251, "c": 200, "d": 1_000})
    assert (reservation.fallbacks, reservation.quote.units, reservation.remaining_units) == (("c",), 200, 50)
    with pytest.raises(InsufficientQuota, match="needs 100 quota units"):
        await admit(bench, key, "req_2", {"c": 10})
    assert await held(bench, key) == 200


async def test_asked_twice_it_gives_the_first_answer_whatever_has_changed_since(bench: Bench) -> None:
    key = await bench.make_key(500)
    first = await admit(bench, key, "req_1", {"b": 400, "c": 501})
    again = await admit(bench, key, "req_1", {"b": 400, "c": 501})
    assert (first.quote.units, first.fallbacks) == (again.quote.units, again.fallbacks) == (400, ("b",))
    assert await held(bench, key) == 400


async def test_what_another_model_made_is_its_own_in_the_books(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    reservation = await admit(bench, key, "req_1", {"b": 600}, own=quote(100, 2))
    made = reservation.made_by("b", Quote(images=2, unit_price=300, units=600, tier=Tier.FOUR_K))
    delivery = Delivery(served=Served("spare", 200, 2), outcome=Outcome.DELIVERED, ended=True, images=2)
    await bench.store.settle(settle(made, delivery))
    record, by_model, _by_day = await bench.keys.usage(key.key_id)
    assert (record.quota.posted, record.quota.reserved) == (600, 0)
    assert {name: (each.quota_units, each.images) for name, each in by_model.items()} == {"b": (600, 2)}
    await bench.check_books(key)


async def test_parallel_admissions_never_reserve_more_than_there_is(bench: Bench) -> None:
    key = await bench.make_key(1_000)
    asked = [admit(bench, key, f"req_{number}", {"b": 170, "c": 30}) for number in range(40)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    units = [answer.quote.units for answer in answers if isinstance(answer, Reservation)]
    assert sum(units) == await held(bench, key) <= 1_000
    # The last of them have room for the model itself only.
    assert Counter(units) == {170: 5, 100: 1}
    assert all(isinstance(answer, Reservation | InsufficientQuota) for answer in answers)


async def test_a_void_gives_back_what_was_reserved(bench: Bench) -> None:
    key = await bench.make_key(1_000)
    await admit(bench, key, "req_1", {"b": 600})
    await bench.store.void("req_1", key.team, key.key_id)
    assert await held(bench, key) == 0
    await bench.check_books(key)


async def test_a_lease_that_expired_and_was_charged_is_corrected_by_who_made_it(store_url: str) -> None:
    async with open_bench(store_url, lease_ms=50, charge_expired=True) as bench:
        key = await bench.make_key(10_000)
        reservation = await admit(bench, key, "req_1", {"b": 600})
        await asyncio.sleep(0.1)
        assert await held(bench, key) == 0
        made = reservation.made_by("b", quote(300))
        delivery = Delivery(served=Served("spare", 200, 2), outcome=Outcome.DELIVERED, ended=True, images=1)
        await bench.store.settle(settle(made, delivery))
        record, by_model, _by_day = await bench.keys.usage(key.key_id)
        assert record.quota.posted == 300
        assert sum(each.quota_units for each in by_model.values()) == 300
        await bench.check_books(key)
