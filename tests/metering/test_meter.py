from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from proxy.domain.api_key import Credential
from proxy.domain.errors import (
    InsufficientQuota,
    ProviderRefusal,
    StoreUnavailable,
    UpstreamError,
    UpstreamUnreachable,
)
from proxy.metering.ledger.pages import LedgerFilter
from proxy.telemetry.observation import Observation
from tests.metering.conftest import ENDPOINT, MODEL, Bench, open_bench, quote
from tests.support.lossy_proxy import LossyProxy, lossy_proxy


def observation(request_id: str = "req_1") -> Observation:
    return Observation(request_id, ENDPOINT, model=MODEL)


async def outcomes(bench: Bench, key: Credential) -> list[tuple[str, int]]:
    page = await bench.ledger.list_entries(LedgerFilter(key_id=key.key_id), cursor=None, limit=100)
    return [(entry.facts["outcome"], entry.facts["charged"]) for entry in page.items]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (UpstreamUnreachable("x"), "unreachable"),
        (UpstreamError("x"), "failed"),
        (ProviderRefusal("x", provider_status=400, provider_code=None, param=None), "refused"),
        (RuntimeError("a bug"), "failed"),
        (asyncio.CancelledError(), "failed"),
    ],
)
async def test_whatever_ends_a_request_it_is_settled_once_and_for_nothing(
    bench: Bench, error: BaseException, outcome: str
) -> None:
    key = await bench.make_key(10_000)
    with pytest.raises(type(error)):
        async with bench.meter.admit(key, observation(), MODEL, quote(5_000)):
            raise error
    assert await outcomes(bench, key) == [(outcome, 0)]
    await bench.check_books(key)


async def test_images_that_came_before_an_error_are_charged(bench: Bench) -> None:
    key = await bench.make_key(20_000)

    async def break_off_after_two() -> None:
        async with bench.meter.admit(key, observation(), MODEL, quote(5_000, 3)) as delivery:
            delivery.images = 2
            delivery.end(complete=False)
            raise UpstreamError("broke off")

    with pytest.raises(UpstreamError):
        await break_off_after_two()
    assert await outcomes(bench, key) == [("truncated", 10_000)]
    await bench.check_books(key)


async def test_what_is_refused_never_runs(bench: Bench) -> None:
    key = await bench.make_key(4_999)
    ran = False
    with pytest.raises(InsufficientQuota):
        async with bench.meter.admit(key, observation(), MODEL, quote(5_000)):
            ran = True
    assert not ran
    assert await outcomes(bench, key) == []


@pytest.fixture
async def far(store_url: str) -> AsyncIterator[tuple[LossyProxy, Bench]]:
    """A bench whose connection to the store can be cut."""
    address = urlsplit(store_url)
    async with (
        lossy_proxy("127.0.0.1", address.port or 0) as proxy,
        open_bench(f"redis://127.0.0.1:{proxy.port}") as bench,
    ):
        yield proxy, bench


async def test_a_store_that_is_away_admits_nothing(far: tuple[LossyProxy, Bench]) -> None:
    proxy, bench = far
    key = await bench.make_key(10_000)
    proxy.refuse = True
    await proxy.cut()
    with pytest.raises(StoreUnavailable):
        async with bench.meter.admit(key, observation(), MODEL, quote(5_000)):
            pytest.fail("it was admitted")


async def test_a_store_that_is_away_at_the_end_is_told_when_it_is_back(far: tuple[LossyProxy, Bench]) -> None:
    proxy, bench = far
    key = await bench.make_key(10_000)
    async with bench.meter.admit(key, observation(), MODEL, quote(5_000)) as delivery:
        proxy.refuse = True
        await proxy.cut()
        delivery.images = 1
        delivery.end(complete=True)
    proxy.refuse = False
    await bench.meter.close(timeout_s=10)
    assert await outcomes(bench, key) == [("delivered", 5_000)]
    await bench.check_books(key)


async def test_being_cancelled_while_settling_settles_all_the_same(bench: Bench) -> None:
    key = await bench.make_key(100_000)

    async def one(number: int) -> None:
        async with bench.meter.admit(key, observation(f"req_{number}"), MODEL, quote(5_000)) as delivery:
            delivery.images = 1
            delivery.end(complete=True)
            asyncio.get_running_loop().call_soon(tasks[number].cancel)

    tasks = [asyncio.create_task(one(number)) for number in range(10)]
    await asyncio.gather(*tasks, return_exceptions=True)
    await bench.meter.close(timeout_s=10)
    assert await outcomes(bench, key) == [("delivered", 5_000)] * 10
    await bench.check_books(key)


async def test_reserved_is_charged_less_overage_and_released_and_held(bench: Bench) -> None:
    key = await bench.make_key(None)

    def units(state: str) -> float:
        value = bench.metrics.registry.get_sample_value(
            "lightmeter_quota_units_total", {"model": MODEL, "state": state}
        )
        return value or 0.0

    def check() -> None:
        held = bench.metrics.registry.get_sample_value("lightmeter_quota_units_held", {"model": MODEL}) or 0.0
        assert units("reserved") == units("charged") - units("overage") + units("released") + held

    for number, images in enumerate((0, 1, 2, 9)):
        async with bench.meter.admit(key, observation(f"req_{number}"), MODEL, quote(5_000, 2)) as delivery:
            check()
            delivery.images = images
            delivery.end(complete=True)
        check()
    assert units("reserved") == 40_000
    assert units("charged") == 60_000
    assert units("overage") == 35_000
    assert units("released") == 15_000


async def test_an_admission_whose_answer_never_came_is_taken_back(far: tuple[LossyProxy, Bench], bench: Bench) -> None:
    proxy, far_bench = far
    key = await bench.make_key(10_000)
    proxy.lose_replies = 2
    with pytest.raises(StoreUnavailable):
        async with far_bench.meter.admit(key, observation(), MODEL, quote(5_000)):
            pytest.fail("it was admitted")
    await far_bench.meter.close(timeout_s=10)
    assert (await bench.record(key)).quota.remaining == 10_000
    # The admission itself, should it come late, finds that it was taken back.
    with pytest.raises(StoreUnavailable):
        await bench.admit(key, "req_1", 5_000)
    assert await outcomes(bench, key) == []
    await bench.check_books(key)


async def test_an_admission_that_was_cancelled_is_taken_back(bench: Bench) -> None:
    key = await bench.make_key(100_000)

    async def one(number: int) -> None:
        async with bench.meter.admit(key, observation(f"req_{number}"), MODEL, quote(5_000)):
            await asyncio.sleep(30)

    for turns in range(8):
        task = asyncio.create_task(one(turns))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await bench.meter.close(timeout_s=10)
    assert (await bench.record(key)).quota.posted == 0
    await bench.check_books(key)


async def test_taking_back_what_has_been_settled_changes_nothing(bench: Bench) -> None:
    key = await bench.make_key(10_000)
    async with bench.meter.admit(key, observation(), MODEL, quote(5_000)) as delivery:
        delivery.images = 1
        delivery.end(complete=True)
    await bench.store.void("req_1", key.team, key.key_id)
    await bench.store.void("req_1", key.team, key.key_id)
    assert await outcomes(bench, key) == [("delivered", 5_000)]
    await bench.check_books(key)
