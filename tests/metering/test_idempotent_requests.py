from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from proxy.domain.api_key import Credential
from proxy.domain.billing.settlement import Delivery, Reservation, Served, Settlement, settle
from proxy.domain.errors import (
    IdempotencyInProgress,
    IdempotencyMismatch,
    IdempotencyResponseGone,
    InsufficientQuota,
    InvalidApiKey,
)
from proxy.domain.requests.idempotency import AlreadyAnswered, Idempotency, KeptAnswer
from tests.metering.conftest import ENDPOINT, MODEL, Bench, quote

NAME = Idempotency("1" * 64, "a" * 64)
OTHER_BODY = Idempotency("1" * 64, "b" * 64)


async def admit(bench: Bench, key: Credential, request_id: str, name: Idempotency = NAME) -> Reservation:
    return await bench.store.admit(
        request_id, key, endpoint=ENDPOINT, model=MODEL, quote=quote(5_000), idempotency=name
    )


def delivered(reservation: Reservation, body: bytes = b'{"data": ["\n\\0"]}') -> Settlement:
    delivery = Delivery(images=1, served=Served("sample", 200), body=body)
    delivery.end(complete=True)
    return settle(reservation, delivery)


async def test_while_it_runs_it_runs_once(bench: Bench) -> None:
    key = await bench.make_key(None)
    results = await asyncio.gather(
        *(admit(bench, key, f"req_{number}") for number in range(50)), return_exceptions=True
    )
    admitted = [result for result in results if isinstance(result, Reservation)]
    assert len(admitted) == 1
    assert sum(isinstance(result, IdempotencyInProgress) for result in results) == 49
    assert (await bench.record(key)).quota.reserved == 5_000
    await bench.store.settle(delivered(admitted[0]))
    await bench.check_books(key)


@pytest.mark.parametrize("body", [b"{}", b'{"data": ["\n"]}', b"\x00\xff\r\n " * 10])
async def test_when_it_is_done_its_answer_is_given_again(bench: Bench, body: bytes) -> None:
    key = await bench.make_key(5_000)
    await bench.store.settle(delivered(await admit(bench, key, "req_1"), body))
    for number in (2, 3):
        with pytest.raises(AlreadyAnswered) as again:
            await admit(bench, key, f"req_{number}")
        assert again.value.answer == KeptAnswer(200, body)
    record = await bench.record(key)
    assert (record.quota.posted, record.quota.reserved) == (5_000, 0)
    await bench.check_books(key)


async def test_an_answer_that_was_not_kept_is_gone(bench: Bench) -> None:
    key = await bench.make_key(None)
    await bench.store.settle(delivered(await admit(bench, key, "req_1")).without_answer())
    with pytest.raises(IdempotencyResponseGone):
        await admit(bench, key, "req_2")


async def test_another_request_of_the_same_name_is_a_mismatch_at_any_time(bench: Bench) -> None:
    key = await bench.make_key(None)
    reservation = await admit(bench, key, "req_1")
    with pytest.raises(IdempotencyMismatch):
        await admit(bench, key, "req_2", OTHER_BODY)
    await bench.store.settle(delivered(reservation))
    with pytest.raises(IdempotencyMismatch):
        await admit(bench, key, "req_3", OTHER_BODY)


async def test_a_request_that_generated_nothing_may_run_again(bench: Bench) -> None:
    key = await bench.make_key(5_000)
    for number in range(3):
        reservation = await admit(bench, key, f"req_{number}")
        await bench.store.settle(settle(reservation, Delivery()))
    await bench.store.settle(delivered(await admit(bench, key, "req_3")))
    await bench.check_books(key)


async def test_one_key_never_sees_another_s(bench: Bench) -> None:
    first, second, third = await bench.make_key(None), await bench.make_key(None), await bench.make_key(team="other")
    await bench.store.settle(delivered(await admit(bench, first, "req_1")))
    for number, key in enumerate((second, third)):
        reservation = await admit(bench, key, f"req_other_{number}")
        assert reservation.key_id == key.key_id
    await bench.keys.revoke(first.key_id)
    with pytest.raises(InvalidApiKey):
        await admit(bench, first, "req_2")


async def test_a_refusal_for_quota_leaves_the_name_free_and_an_answer_needs_none(bench: Bench) -> None:
    key = await bench.make_key(4_999)
    with pytest.raises(InsufficientQuota):
        await admit(bench, key, "req_1")
    await bench.keys.update(key.key_id, {"quota_units": 5_000})
    await bench.store.settle(delivered(await admit(bench, key, "req_2")))
    with pytest.raises(AlreadyAnswered):
        await admit(bench, key, "req_3")


async def test_the_same_call_twice_is_still_one_admission_and_one_settlement(bench: Bench) -> None:
    key = await bench.make_key(5_000)
    first = await admit(bench, key, "req_1")
    assert await admit(bench, key, "req_1") == first
    settlement = delivered(first)
    entry = await bench.store.settle(settlement)
    assert await bench.store.settle(settlement.without_answer()) == entry
    with pytest.raises(AlreadyAnswered):
        await admit(bench, key, "req_2")
    await bench.check_books(key)


async def test_where_its_gateway_died_it_never_runs_again_unless_it_was_taken_back(bench: Bench) -> None:
    key = await bench.make_key(None)
    reservation = await admit(bench, key, "req_1")
    await bench.redis.zadd("lm:{acme}:leases", {"req_1": 1})
    with pytest.raises(IdempotencyResponseGone):
        await admit(bench, key, "req_2")
    # It was alive after all.
    await bench.store.settle(delivered(reservation))
    with pytest.raises(AlreadyAnswered):
        await admit(bench, key, "req_3")
    other = replace(NAME, key_sha256="2" * 64)
    await admit(bench, key, "req_4", other)
    await bench.store.void("req_4", key.team, key.key_id)
    assert (await admit(bench, key, "req_5", other)).id == "req_5"


async def names(bench: Bench) -> list[bytes]:
    return [name async for name in bench.redis.scan_iter("lm:{acme}:idempotency:*")]


async def test_it_is_remembered_for_a_day_and_costs_nothing_without_the_header(bench: Bench) -> None:
    key = await bench.make_key(None)
    reservation = await admit(bench, key, "req_1")
    (name,) = await names(bench)
    day_ms = 86_400_000
    assert day_ms - 60_000 < await bench.redis.pttl(name) <= day_ms
    await bench.store.settle(delivered(reservation))
    assert day_ms - 60_000 < await bench.redis.pttl(name) <= day_ms
    await bench.store.settle(delivered(await bench.admit(key, "req_2", 5_000)))
    assert await names(bench) == [name]
