from __future__ import annotations

import asyncio
import re
from time import time

import pytest

from proxy.domain.billing.settlement import Delivery, Reservation, Served, settle
from proxy.metering.ledger import ship_lag
from proxy.metering.ledger.books import LedgerBooks
from proxy.metering.ledger.shipped import LedgerHead, ShippedLedger
from tests.metering.conftest import Bench, open_bench
from tests.support.polling import eventually


@pytest.fixture
def books(bench: Bench) -> LedgerBooks:
    return LedgerBooks(bench.runner, bench.pool, bench.store)


@pytest.fixture
def shipped(bench: Bench, books: LedgerBooks) -> ShippedLedger:
    return ShippedLedger(bench.runner, bench.pool, bench.store, books)


async def deliver(bench: Bench, reservation: Reservation) -> str:
    delivery = Delivery(images=1, served=Served("sample", 200))
    delivery.end(complete=True)
    return await bench.store.settle(settle(reservation, delivery))


async def test_heads_come_in_pages_with_how_far_each_shipper_is(
    bench: Bench, books: LedgerBooks, shipped: ShippedLedger
) -> None:
    key = await bench.make_key()
    await bench.make_key(team="other")
    entries = [await deliver(bench, await bench.admit(key, f"req_{number}", 5)) for number in range(2)]
    await shipped.report("books", {"acme": entries[0]}, 1_794_000_000_000)
    page = await shipped.heads("books", cursor=None, limit=1)
    (head,) = page.items
    assert head == LedgerHead("acme", entries[1], "0-0", entries[0], head.read_ms)
    # The store's clock, which the entry's id is made by as well.
    assert head.read_ms >= int(entries[1].partition("-")[0])
    (other,) = (await shipped.heads("books", cursor=page.next_cursor, limit=1)).items
    assert (other.team, other.last, other.shipped) == ("other", "0-0", "0-0")
    assert (await shipped.heads("elsewhere", cursor=None, limit=1)).items[0].shipped == "0-0"
    now_s = time()
    behind = await shipped.behind_s(["books", "elsewhere"])
    assert behind == {"books": pytest.approx(now_s - 1_794_000_000, abs=5)}
    # One that is trimmed to its end has an end all the same.
    await asyncio.sleep(0.005)
    assert (await books.trim("acme", keep_ms=1)).entries == 2
    (head,) = (await shipped.heads("books", cursor=None, limit=1)).items
    assert (head.last, head.trimmed, head.shipped) == (entries[1], entries[1], entries[0])


async def test_a_destination_that_was_restored_may_be_further_back(bench: Bench, shipped: ShippedLedger) -> None:
    await bench.make_key()
    for place in ("1794000000000-5", "1794000000000-2"):
        await shipped.report("books", {"acme": place}, None)
        assert (await shipped.heads("books", cursor=None, limit=1)).items[0].shipped == place
    assert await shipped.behind_s(["books"]) == {}
    assert await shipped.behind_s([]) == {}


async def test_how_far_behind_a_shipper_is_can_be_scraped_and_is_told(
    bench: Bench, shipped: ShippedLedger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(ship_lag, "REFRESH_S", 0.01)
    store_s = int(time())
    await shipped.report("books", {}, (store_s - 7_500) * 1_000)
    lag = ship_lag.ShipLag(shipped, bench.metrics, ("books", "never"))
    lag.start()

    def seconds(shipper: str) -> float:
        found = re.search(rf'ledger_ship_lag_seconds{{shipper="{shipper}"}} (\S+)', bench.metrics.render().decode())
        assert found is not None
        return float(found[1])

    async def is_late() -> bool:
        return seconds("books") == pytest.approx(7_500, abs=10)

    async def is_told() -> bool:
        return "'books' has shipped the whole ledger again" in caplog.text

    await eventually(is_late)
    # One that has never shipped anything is behind since the process began.
    assert seconds("never") < 60
    await shipped.report("books", {}, store_s * 1_000)
    await eventually(is_told)
    assert seconds("books") < 60
    assert caplog.text.count("'books' has not shipped the whole ledger for 2.1 hours") == 1
    assert "never" not in caplog.text
    await lag.stop()


async def test_an_expired_lease_is_reclaimed_so_that_its_entry_is_shipped(store_url: str) -> None:
    async with open_bench(store_url, lease_ms=20) as bench:
        books = LedgerBooks(bench.runner, bench.pool, bench.store)
        shipped = ShippedLedger(bench.runner, bench.pool, bench.store, books)
        await bench.admit(await bench.make_key(), "req_1", 5)
        await asyncio.sleep(0.03)
        (head,) = (await shipped.heads("books", cursor=None, limit=1)).items
        assert head.last != "0-0"
        assert await bench.redis.zcard("lm:{acme}:leases") == 0
