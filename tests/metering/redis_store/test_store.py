from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.domain.billing.settlement import Delivery, Outcome, Reservation, Served, settle
from proxy.domain.errors import InsufficientQuota, InvalidApiKey, ModelNotAllowed
from proxy.metering.ledger.pages import LedgerFilter
from proxy.metering.redis_store.facts import DAY_LENGTH
from tests.metering.conftest import MODEL, Bench, open_bench, quote
from tests.support.examples import examples


def delivered(images: int) -> Delivery:
    delivery = Delivery(images=images, served=Served("sample", 200))
    delivery.end(complete=True)
    return delivery


async def test_admit_reserves_and_settle_turns_it_into_a_charge(bench: Bench) -> None:
    key = await bench.make_key(20_000)
    reservation = await bench.admit(key, "req_1", 5_000, images=2)
    record = await bench.record(key)
    assert (record.quota.reserved, record.quota.posted, record.quota.remaining) == (10_000, 0, 10_000)
    assert reservation.remaining_units == 10_000

    await bench.store.settle(settle(reservation, delivered(1)))
    record = await bench.record(key)
    assert (record.quota.reserved, record.quota.posted, record.quota.remaining) == (0, 5_000, 15_000)
    await bench.check_books(key)


async def test_the_ledger_entry_tells_everything(bench: Bench) -> None:
    key = await bench.make_key()
    reservation = await bench.admit(key, "req_1", 5_000, images=2)
    delivery = delivered(3)
    delivery.provider_usage = b'{"total_tokens":7}'
    delivery.served.ms = 12
    await bench.store.settle(settle(reservation, delivery))
    page = await bench.ledger.list_entries(LedgerFilter(team="acme"), cursor=None, limit=10)
    (entry,) = page.items
    assert entry.kind == "request"
    assert entry.team == "acme"
    assert entry.facts == {
        "key": key.key_id,
        "request": "req_1",
        "endpoint": "/v1/images/generations",
        "model": MODEL,
        "provider": "sample",
        "outcome": "delivered",
        "images": 3,
        "requested_images": 2,
        "tier": "standard",
        "unit_price": 5_000,
        "reserved": 10_000,
        "charged": 15_000,
        "overage": 5_000,
        "admitted_ms": reservation.admitted_ms,
        "provider_status": 200,
        "provider_ms": 12,
        "provider_usage": {"total_tokens": 7},
    }
    await bench.check_books(key)


async def test_asking_twice_gives_the_first_answer(bench: Bench) -> None:
    key = await bench.make_key(5_000)
    first = await bench.admit(key, "req_1", 5_000)
    again = await bench.admit(key, "req_1", 5_000)
    assert again == first
    assert (await bench.record(key)).quota.reserved == 5_000
    settlement = settle(first, delivered(1))
    await bench.store.settle(settlement)
    await bench.store.settle(settlement)
    # A second account of the same request, with other facts, changes nothing either.
    await bench.store.settle(replace(settlement, charged_units=1))
    assert (await bench.record(key)).quota.posted == 5_000
    await bench.check_books(key)


async def test_a_settlement_posts_where_its_reservation_is_lost(bench: Bench) -> None:
    key = await bench.make_key(50_000)
    reservation = await bench.admit(key, "req_1", 5_000)
    lost = replace(reservation, id="req_lost")
    await bench.store.settle(settle(lost, delivered(2)))
    record = await bench.record(key)
    # No reservation covers any of it, and others may have reserved the rest meanwhile: all of it is overage.
    assert (record.quota.posted, record.quota.reserved, record.overage_units) == (10_000, 5_000, 10_000)
    await bench.store.settle(settle(reservation, delivered(0)))
    await bench.check_books(key)


async def test_overage_passes_the_limit_and_is_recorded_apart(bench: Bench) -> None:
    key = await bench.make_key(5_000)
    reservation = await bench.admit(key, "req_1", 5_000)
    await bench.store.settle(settle(reservation, delivered(3)))
    record = await bench.record(key)
    assert (record.quota.posted, record.overage_units, record.quota.remaining) == (15_000, 10_000, 0)
    with pytest.raises(InsufficientQuota):
        await bench.admit(key, "req_2", 1)
    await bench.check_books(key)


async def test_a_free_model_is_admitted_with_no_quota_left(bench: Bench) -> None:
    key = await bench.make_key(0)
    reservation = await bench.admit(key, "req_1", 0, images=3)
    await bench.store.settle(settle(reservation, delivered(3)))
    record = await bench.record(key)
    assert (record.images, record.quota.posted) == (3, 0)
    await bench.check_books(key)


async def test_insufficient_quota_says_how_much_is_left_and_reserves_nothing(bench: Bench) -> None:
    key = await bench.make_key(12_000)
    await bench.admit(key, "req_1", 5_000)
    with pytest.raises(InsufficientQuota, match=r"needs 10,000 quota units and the key has 7,000 left"):
        await bench.admit(key, "req_2", 5_000, images=2)
    assert (await bench.record(key)).quota.reserved == 5_000
    assert await bench.redis.exists("lm:{acme}:reservation:req_2") == 0


async def test_the_last_unit_can_be_spent_and_not_one_more(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    await bench.admit(key, "req_1", 10_000)
    with pytest.raises(InsufficientQuota):
        await bench.admit(key, "req_2", 1)


async def test_only_the_secret_opens_the_key(bench: Bench) -> None:
    key = await bench.make_key()
    guess = replace(key, secret_sha256="0" * 64)
    stranger = replace(key, key_id="acme_0000000000")
    for credential in (guess, stranger):
        with pytest.raises(InvalidApiKey, match="not known"):
            await bench.admit(credential, "req_1", 5_000)
        with pytest.raises(InvalidApiKey, match="not known"):
            await bench.store.read_own_key(credential)
    assert await bench.redis.exists("lm:{acme}:key:acme_0000000000") == 0


async def test_revoking_works_on_the_next_request_and_lets_the_last_one_settle(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    reservation = await bench.admit(key, "req_1", 5_000)
    await bench.keys.revoke(key.key_id)
    with pytest.raises(InvalidApiKey, match="revoked"):
        await bench.admit(key, "req_2", 5_000)
    await bench.store.settle(settle(reservation, delivered(1)))
    assert (await bench.record(key)).quota.posted == 5_000
    await bench.check_books(key)


async def test_a_key_expires_by_the_clock_of_the_store(bench: Bench) -> None:
    key = await bench.make_key()
    seconds, microseconds = await bench.redis.time()
    now_ms = int(seconds) * 1000 + int(microseconds) // 1000
    await bench.keys.update(key.key_id, {"expires_ms": now_ms + 60_000})
    await bench.admit(key, "req_1", 5_000)
    await bench.keys.update(key.key_id, {"expires_ms": now_ms})
    with pytest.raises(InvalidApiKey, match="expired"):
        await bench.admit(key, "req_2", 5_000)


@pytest.mark.parametrize(
    ("models", "allowed"),
    [
        (("*",), True),
        ((MODEL,), True),
        (("acme/*",), True),
        (("other/*", MODEL), True),
        (("acme/image-10",), False),
        (("acme/image",), False),
        (("acme",), False),
        (("acm/*",), False),
        (("acme/image-1/*",), False),
    ],
)
async def test_models_by_exact_id_or_prefix(bench: Bench, models: tuple[str, ...], *, allowed: bool) -> None:
    key = await bench.make_key(models=models)
    if allowed:
        await bench.admit(key, "req_1", 5_000)
    else:
        with pytest.raises(ModelNotAllowed):
            await bench.admit(key, "req_1", 5_000)
        assert (await bench.record(key)).quota.reserved == 0


async def test_500_at_once_against_quota_for_37(bench: Bench) -> None:
    key = await bench.make_key(37 * 5_000 + 4_999)

    async def spend(number: int) -> Reservation | None:
        try:
            return await bench.admit(key, f"req_{number}", 5_000)
        except InsufficientQuota:
            return None

    admitted = [one for one in await asyncio.gather(*(spend(number) for number in range(500))) if one]
    assert len(admitted) == 37
    assert (await bench.record(key)).quota.reserved == 37 * 5_000
    await asyncio.gather(*(bench.store.settle(settle(one, delivered(1))) for one in admitted))
    assert (await bench.record(key)).quota.posted == 37 * 5_000
    await bench.check_books(key)


Plan = list[tuple[str, int, int]]

steps = st.lists(
    st.tuples(st.sampled_from(["admit", "settle", "settle again"]), st.integers(1, 4), st.integers(0, 6)),
    max_size=30,
)


@examples(30)
@given(limit=st.integers(0, 60_000), plan=steps)
def test_every_interleaving_keeps_to_the_limit(shared_store_url: str, limit: int, plan: Plan) -> None:
    asyncio.run(check_interleaving(shared_store_url, limit, plan))


async def check_interleaving(url: str, limit: int, plan: Plan) -> None:
    async with open_bench(url) as bench:
        key = await bench.make_key(limit)
        held: list[Reservation] = []
        ended: list[tuple[Reservation, int]] = []
        posted = overage = 0
        for number, (step, images, made) in enumerate(plan):
            if step == "admit":
                fits = posted + sum(one.quote.units for one in held) + images * 5_000 <= limit
                try:
                    held.append(await bench.admit(key, f"req_{key.key_id}_{number}", 5_000, images))
                    assert fits
                except InsufficientQuota:
                    assert not fits
            elif step == "settle" and held:
                reservation = held.pop(made % len(held))
                await bench.store.settle(settle(reservation, delivered(made)))
                ended.append((reservation, made))
                posted += made * 5_000
                overage += max(0, made * 5_000 - reservation.quote.units)
            elif ended:
                await bench.store.settle(settle(ended[-1][0], delivered(made + 1)))
            record = await bench.record(key)
            assert record.quota.posted == posted
            assert record.overage_units == overage
            assert record.quota.reserved == sum(one.quote.units for one in held)
            assert record.quota.posted + record.quota.reserved - overage <= limit
        for reservation in held:
            await bench.store.settle(settle(reservation, delivered(0)))


async def used_by_heading(bench: Bench, name: str) -> dict[str, int]:
    """What stands in the usage of a key or a team, its days added up: midnight may pass meanwhile."""
    used: dict[str, int] = defaultdict(int)
    stored: dict[Any, Any] = await bench.redis.hgetall(f"lm:{{acme}}:{name}")
    for field, number in stored.items():
        used[field.decode()[DAY_LENGTH:]] += int(number)
    return used


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 2, 0, 3)])
async def test_usage_adds_up_charges_with_and_without_images(bench: Bench, order: tuple[int, ...]) -> None:
    kinds = ((1, 5_000), (2, 0), (0, 700), (0, 0))
    key = await bench.make_key()
    for turn in range(2):
        for kind in order:
            images, charged = kinds[kind]
            reservation = await bench.admit(key, f"req_{turn}{kind}", 5_000)
            await bench.store.settle(replace(settle(reservation, delivered(images)), charged_units=charged))
    for name in (f"usage:{key.key_id}", "usage"):
        used = await used_by_heading(bench, name)
        assert used == {f":units:{MODEL}": 11_400, f":images:{MODEL}": 6}
    await bench.check_books(key)


async def test_usage_has_no_number_that_is_not_counted(bench: Bench) -> None:
    key = await bench.make_key()
    for number, (images, charged) in enumerate([(0, 0), (1, 0)]):
        reservation = await bench.admit(key, f"req_{number}", 5_000)
        await bench.store.settle(replace(settle(reservation, delivered(images)), charged_units=charged))
    for name in (f"usage:{key.key_id}", "usage"):
        assert await used_by_heading(bench, name) == {f":images:{MODEL}": 1}


async def test_refused_outcomes_are_in_the_ledger_and_cost_nothing(bench: Bench) -> None:
    key = await bench.make_key(5_000)
    for number, outcome in enumerate((Outcome.REFUSED, Outcome.FAILED, Outcome.UNREACHABLE, Outcome.EMPTY)):
        reservation = await bench.admit(key, f"req_{number}", 5_000)
        await bench.store.settle(settle(reservation, Delivery(outcome=outcome)))
    page = await bench.ledger.list_entries(LedgerFilter(key_id=key.key_id), cursor=None, limit=10)
    assert [entry.facts["outcome"] for entry in page.items] == ["refused", "failed", "unreachable", "empty"]
    assert (await bench.record(key)).quota.posted == 0
    await bench.check_books(key)


async def test_scripts_flushed_under_load_lose_nothing(bench: Bench) -> None:
    key = await bench.make_key(100 * 5_000)

    async def one(number: int) -> None:
        reservation = await bench.admit(key, f"req_{number}", 5_000)
        if number % 7 == 0:
            await bench.redis.script_flush()
        await bench.store.settle(settle(reservation, delivered(1)))

    await asyncio.gather(*(one(number) for number in range(100)))
    assert (await bench.record(key)).quota.posted == 100 * 5_000
    await bench.check_books(key)


async def test_figures_near_the_limit_of_exact_counting(bench: Bench) -> None:
    quota = 2**51
    key = await bench.make_key(quota)
    units = quota - 1
    reservation = await bench.store.admit("req_1", key, endpoint="/", model=MODEL, quote=quote(units))
    record = await bench.record(key)
    assert (record.quota.reserved, record.quota.remaining) == (units, 1)
    await bench.store.settle(settle(reservation, delivered(1)))
    assert (await bench.record(key)).quota.posted == units
    await bench.check_books(key)
