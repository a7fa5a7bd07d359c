"""Whatever is raised between an answer and its charge, the charge ends in the store or in the journal, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.domain.api_key import Credential
from proxy.domain.billing.settlement import Settlement
from proxy.metering import meter as meter_module
from proxy.metering.ledger.pages import LedgerFilter
from proxy.metering.meter import Meter
from proxy.telemetry.observation import Observation
from tests.metering.conftest import ENDPOINT, MODEL, Bench, quote
from tests.support.odd_store import ODD, OddStore
from tests.support.polling import eventually


@pytest.fixture
async def odd(bench: Bench) -> AsyncIterator[OddStore]:
    """The bench's meter on a store that can be odd."""
    store = OddStore(bench.store)
    meter = bench.meter
    meter.store = meter._outbox._store = meter._leases._store = store
    yield store
    store.raises = {}


async def run(meter: Meter, key: Credential, request_id: str = "req_1", images: int = 1) -> None:
    async with meter.admit(key, Observation(request_id, ENDPOINT, model=MODEL), MODEL, quote(5_000)) as delivery:
        delivery.served.provider, delivery.served.status, delivery.images = "sample", 200, images
        delivery.end(complete=True)


async def charges(bench: Bench, key: Credential) -> list[tuple[str, str, int]]:
    page = await bench.ledger.list_entries(LedgerFilter(key_id=key.key_id), cursor=None, limit=100)
    return [(entry.facts["request"], entry.facts["outcome"], entry.facts["charged"]) for entry in page.items]


async def at_rest(bench: Bench) -> None:
    outbox = bench.meter._outbox
    await eventually(lambda: not outbox._owed and not outbox._adding)
    assert len(bench.meter._leases) == 0


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", ODD)
async def test_a_settlement_that_raises_is_written_down_and_posted_once(
    bench: Bench, odd: OddStore, kind: type[BaseException], *, after: bool
) -> None:
    key = await bench.make_key(10_000)
    odd.raises, odd.after = {"settle": kind("odd")}, after
    await run(bench.meter, key)
    odd.raises = {}
    bench.meter._outbox._wake.set()
    await at_rest(bench)
    assert await charges(bench, key) == [("req_1", "delivered", 5_000)]
    await bench.check_books(key)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", [*ODD, asyncio.CancelledError])
async def test_an_admission_that_raises_holds_nothing_in_the_end(
    bench: Bench, odd: OddStore, kind: type[BaseException], *, after: bool
) -> None:
    key = await bench.make_key(5_000)
    odd.raises, odd.after = {"admit": kind("odd")}, after
    with pytest.raises(kind):
        await run(bench.meter, key)
    odd.raises = {}
    await at_rest(bench)
    await run(bench.meter, key, "req_2")
    assert await charges(bench, key) == [("req_2", "delivered", 5_000)]
    await bench.check_books(key)


@pytest.mark.parametrize("kind", ODD)
async def test_a_lease_that_cannot_be_renewed_is_tried_again(
    bench: Bench, odd: OddStore, kind: type[BaseException]
) -> None:
    key = await bench.make_key(10_000)
    odd.raises = {"renew": kind("odd")}
    async with bench.meter.admit(key, Observation("req_1", ENDPOINT, model=MODEL), MODEL, quote(5_000)) as delivery:
        with pytest.raises(kind):
            await bench.meter._leases.renew()
        delivery.images = 1
        delivery.end(complete=True)
    await at_rest(bench)
    await bench.check_books(key)


@pytest.mark.parametrize("metric", ["reserved", "settled"])
async def test_a_metric_that_raises_fails_no_request(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    def fail(_fact: object) -> None:
        raise KeyError("no such label")

    monkeypatch.setattr(bench.metrics, metric, fail)
    key = await bench.make_key(10_000)
    await run(bench.meter, key)
    await at_rest(bench)
    assert await charges(bench, key) == [("req_1", "delivered", 5_000)]
    await bench.check_books(key)


async def test_no_metric_comes_before_the_money(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await bench.make_key(10_000)
    order: list[str] = []
    settle = bench.store.settle

    async def settle_and_tell(settlement: Settlement) -> str:
        entry = await settle(settlement)
        order.append("money")
        return entry

    monkeypatch.setattr(bench.store, "settle", settle_and_tell)
    monkeypatch.setattr(bench.metrics, "settled", lambda _settlement: order.append("metric"))
    await run(bench.meter, key)
    assert order == ["money", "metric"]


async def test_what_cannot_be_reckoned_is_settled_by_its_images(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_facts: object) -> Settlement:
        raise ZeroDivisionError

    monkeypatch.setattr(meter_module, "settle", fail)
    key = await bench.make_key(20_000)
    await run(bench.meter, key, images=2)
    await at_rest(bench)
    assert await charges(bench, key) == [("req_1", "delivered", 10_000)]
    await bench.check_books(key)


async def test_a_settlement_that_is_cancelled_anywhere_is_posted_once(bench: Bench) -> None:
    key = await bench.make_key(1_000_000)
    for turns in range(12):
        task = asyncio.create_task(run(bench.meter, key, f"req_{turns}"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
    await at_rest(bench)
    entries = await charges(bench, key)
    assert len({request for request, *_ in entries}) == len(entries)
    await bench.check_books(key)
