"""Records that the store does not take, however often it is told, and an outbox that meets what nobody foresaw."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.domain.billing.settlement import Delivery, Reservation, Served, Settlement, settle
from proxy.domain.errors import JournalUnavailable, StoreUnavailable
from proxy.metering import outbox
from proxy.metering.journal.journal import Journal
from proxy.metering.journal.parked import drop, parked_records, pending_records, retry
from proxy.metering.journal.records import Posting
from proxy.metering.ledger.books import LedgerBooks
from proxy.metering.redis_store import ledger_search
from tests.metering.conftest import Bench, open_bench
from tests.metering.journal.test_journal import files
from tests.metering.ledger.test_books import age
from tests.metering.test_outbox import charges, far_bench, is_forgotten, journal_bytes, run_one
from tests.support.polling import eventually

DAY_MS = 86_400_000
LEDGER = "lm:{acme}:ledger"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "HOUSEKEEPING_S", 0.05)
    monkeypatch.setattr(outbox, "LAST_RETRY_S", 0.1)
    monkeypatch.setattr(outbox, "TRIES_TO_TELL", 4)


def delivered(reservation: Reservation) -> Settlement:
    delivery = Delivery(images=1, served=Served("sample", 200))
    delivery.end(complete=True)
    return settle(reservation, delivery)


def value(bench: Bench, name: str) -> float | None:
    return bench.metrics.registry.get_sample_value(f"lightmeter_journal_{name}")


async def test_what_the_store_refuses_every_time_is_parked_and_posted_when_it_is_retried(
    store_url: str, tmp_path: Path
) -> None:
    async with open_bench(store_url, journal_folder=tmp_path) as bench:
        key = await bench.make_key(None)
        await run_one(bench, key, "req_0")
        await bench.redis.rename(LEDGER, "aside")
        await bench.redis.set(LEDGER, "no stream")
        await run_one(bench, key, "req_1")
        await eventually(lambda: value(bench, "parked_settlements") == 1)
        assert value(bench, "pending_settlements") == 0
        (parked,) = parked_records(tmp_path)
        assert parked.owed.id == "req_1"
        assert "WRONGTYPE" in parked.note["reason"]
        # Nothing of it keeps the journal's own file, or the lease, any longer.
        await eventually(lambda: not pending_records(tmp_path))
        assert len(bench.meter._leases) == 0
        await bench.redis.rename("aside", LEDGER)
        retry(parked)
        await eventually(lambda: value(bench, "parked_settlements") == 0 and not pending_records(tmp_path))
        await eventually(lambda: charged(bench, 2))
        await bench.check_books(key)


async def charged(bench: Bench, entries: int) -> bool:
    return await bench.redis.xlen(LEDGER) == entries


async def test_what_cannot_be_parked_either_stays_owed(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = 0

    async def full(*_: object) -> Path:
        nonlocal refused
        refused += 1
        raise OSError(28, "No space left on device")

    async with open_bench(store_url, journal_folder=tmp_path) as bench:
        key = await bench.make_key(None)
        await bench.redis.set(LEDGER, "no stream")
        with monkeypatch.context() as disk:
            disk.setattr(Journal, "park", full)
            await run_one(bench, key, "req_1")
            await eventually(lambda: refused > 2)
            assert set(pending_records(tmp_path)) == {"req_1"}
            assert value(bench, "pending_settlements") == 1
        await eventually(lambda: value(bench, "parked_settlements") == 1)
        # What is dropped stays readable, and is never told again.
        drop(parked_records(tmp_path)[0], "a test")
        await bench.redis.delete(LEDGER)
        await eventually(lambda: value(bench, "parked_settlements") == 0)
    (dropped,) = files(tmp_path)
    assert dropped.name.startswith("dropped-")
    assert b'"dropped_because":"a test"' in journal_bytes(tmp_path)


async def test_a_journal_older_than_the_trimmed_ledger_charges_nothing_twice(
    store_url: str, tmp_path: Path, bench: Bench
) -> None:
    books = LedgerBooks(bench.runner, bench.pool, bench.store)
    key = await bench.make_key(None)
    count, posted = 300, 200
    admitted = [await bench.admit(key, f"req_{number}", 5_000) for number in range(count)]
    old = [replace(each, admitted_ms=each.admitted_ms - 2 * DAY_MS) for each in admitted]
    dead = Journal(tmp_path, bench.metrics, store_url="redis://test")
    await dead.open()
    await dead.write([Posting(delivered(each)) for each in old])
    await dead.close()
    for each in old[:posted]:
        await bench.store.settle(delivered(each))
    # Two days pass: the rest are still held, the settled ids are forgotten, and their entries trimmed.
    await age(bench, 2)
    await bench.redis.delete(*(f"lm:{{acme}}:reservation:req_{number}" for number in range(posted)))
    assert (await books.trim("acme", keep_ms=DAY_MS)).entries == posted
    async with open_bench(store_url, journal_folder=tmp_path) as following:
        await eventually(lambda: value(following, "pending_settlements") == 0)
        assert value(following, "parked_settlements") == posted
    assert {each.owed.id for each in parked_records(tmp_path)} == {f"req_{number}" for number in range(posted)}
    assert "trimmed" in parked_records(tmp_path)[0].note["reason"]
    assert await bench.redis.xlen(LEDGER) == count - posted
    record = await bench.record(key)
    assert (record.quota.posted, record.quota.reserved) == (count * 5_000, 0)


async def test_many_old_records_are_looked_for_in_one_walk(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_search, "ENTRIES_A_LOOK", 50)
    async with open_bench(store_url, settled_ids_ms=1) as bench:
        key = await bench.make_key(None)
        admitted = [await bench.admit(key, f"req_{number}", 5_000) for number in range(200)]
        for each in admitted:
            await bench.store.settle(delivered(each))
        await eventually(lambda: is_forgotten(bench, "req_199"))
        looks = 0
        submit = bench.runner.submit

        def counted(script, keys, arguments):  # type: ignore[no-untyped-def]
            nonlocal looks
            looks += script.name == "find_entry"
            return submit(script, keys, arguments)

        monkeypatch.setattr(bench.runner, "submit", counted)
        old = [replace(each, admitted_ms=each.admitted_ms - 10_000) for each in admitted]
        for each in old:
            bench.meter._outbox.add_soon(Posting(delivered(each)))
        await eventually(lambda: looks and not bench.meter._outbox._owed)
        assert 0 < looks <= 15
        await bench.check_books(key)
        assert (await bench.record(key)).quota.posted == 200 * 5_000


async def test_a_search_that_is_cancelled_keeps_nobody_waiting(bench: Bench) -> None:
    key = await bench.make_key(None)
    search = ledger_search.LedgerSearch(bench.runner)
    held = [await bench.admit(key, f"req_{number}", 5_000) for number in range(3)]
    asking = [asyncio.ensure_future(search.find(each)) for each in held]
    await asyncio.sleep(0)
    (walk,) = search._walks.values()
    walk.cancel()
    found = await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), timeout=5)
    assert [type(each) for each in found] == [StoreUnavailable] * 3
    assert await search.find(held[0]) == "new"


async def test_past_the_limit_of_voids_nothing_is_admitted_and_none_is_dropped(
    store_url: str, tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "VOIDS_LIMIT", 3)
    key = await bench.make_key(None)
    async with far_bench(store_url, tmp_path) as (proxy, far):
        for number in range(5):
            await far.admit(key, f"req_{number}", 5_000)
        proxy.refuse = True
        await proxy.cut()
        for number in range(5):
            far.meter.void(f"req_{number}", key)
        # It is the store that is behind, and no disk that is full.
        with pytest.raises(StoreUnavailable) as refused:
            await run_one(far, key, "req_more")
        assert not isinstance(refused.value, JournalUnavailable)
        assert "journal" not in str(refused.value)
        proxy.refuse = False
        await eventually(lambda: far.meter.refusal is None and value(far, "pending_settlements") == 0)
    assert (await bench.record(key)).quota.reserved == 0
    await bench.check_books(key)


async def test_what_nobody_foresaw_ends_neither_housekeeping_nor_the_telling_nor_the_end(
    store_url: str, tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await bench.make_key(None)
    met: list[str] = []

    def odd(name: str):  # type: ignore[no-untyped-def]
        async def fail(*_: object, **__: object) -> None:
            met.append(name)
            raise RuntimeError(f"odd: {name}")

        return fail

    async with far_bench(store_url, tmp_path) as (proxy, far):
        with monkeypatch.context() as strange:
            for name in ("probe", "adopt", "taken", "count_parked", "write"):
                strange.setattr(Journal, name, odd(name))
            await run_one(far, key, "req_1", proxy)
            await eventually(lambda: met.count("probe") > 1 and "write" in met)
        # It was kept in memory alone, and is written now.
        await eventually(lambda: set(pending_records(tmp_path)) == {"req_1"})
        with monkeypatch.context() as strange:
            strange.setattr(Journal, "adopt", odd("adopt"))
            strange.setattr(Journal, "taken", odd("taken"))
            proxy.refuse = False
            await eventually(lambda: "taken" in met)
            await run_one(far, key, "req_2", proxy)
            await far.meter.close(timeout_s=0)
    async with open_bench(store_url, journal_folder=tmp_path):
        assert [request for request, _, _ in await charges(bench, key)] == ["req_1", "req_2"]
    await bench.check_books(key)
