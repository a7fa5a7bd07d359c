"""Settlements that the store does not take at once, on real servers behind a proxy that loses what it is told to."""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from proxy.domain.api_key import Credential
from proxy.domain.billing.settlement import Delivery, Reservation, Served, Settlement, settle
from proxy.domain.errors import JournalUnavailable
from proxy.metering import outbox
from proxy.metering.journal.file import JournalFile
from proxy.metering.journal.records import Posting
from proxy.metering.ledger.pages import LedgerFilter
from proxy.metering.redis_store.facts import COUNTERS
from proxy.telemetry.observation import Observation
from tests.metering.conftest import ENDPOINT, MODEL, Bench, open_bench, quote
from tests.support.lossy_proxy import LossyProxy, lossy_proxy
from tests.support.polling import eventually

LEASES = "lm:{acme}:leases"


@asynccontextmanager
async def far_bench(store_url: str, folder: Path) -> AsyncIterator[tuple[LossyProxy, Bench]]:
    """A bench whose connection to the store can be cut."""
    address = urlsplit(store_url)
    async with (
        lossy_proxy("127.0.0.1", address.port or 0) as proxy,
        open_bench(f"redis://127.0.0.1:{proxy.port}", journal_folder=folder) as bench,
    ):
        yield proxy, bench


TEAM, TEAM_USAGE = "lm:{acme}:team", "lm:{acme}:usage"


def delivered(reservation: Reservation, images: int = 1) -> Settlement:
    delivery = Delivery(images=images, served=Served("sample", 200))
    delivery.end(complete=True)
    return settle(reservation, delivery)


async def run_one(bench: Bench, key: Credential, request_id: str, proxy: LossyProxy | None = None) -> None:
    """A request with one image; the store goes away in the middle of it where there is a ``proxy``."""
    async with bench.meter.admit(key, Observation(request_id, ENDPOINT, model=MODEL), MODEL, quote(5_000)) as delivery:
        if proxy is not None:
            proxy.refuse = True
            await proxy.cut()
        delivery.images = 1
        delivery.end(complete=True)


async def charges(bench: Bench, key: Credential) -> list[tuple[str, str, int]]:
    page = await bench.ledger.list_entries(LedgerFilter(key_id=key.key_id), cursor=None, limit=1_000)
    return [(entry.facts["request"], entry.facts["outcome"], entry.facts["charged"]) for entry in page.items]


def journal_bytes(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


async def is_forgotten(bench: Bench, request_id: str) -> bool:
    return not await bench.redis.exists(f"lm:{{acme}}:reservation:{request_id}")


def pending(bench: Bench) -> float | None:
    return bench.metrics.registry.get_sample_value("lightmeter_journal_pending_settlements")


async def test_a_settlement_is_on_the_disk_before_it_counts_and_the_next_process_posts_it(
    store_url: str, tmp_path: Path, bench: Bench
) -> None:
    key = await bench.make_key(10_000)
    async with far_bench(store_url, tmp_path) as (proxy, far):
        await run_one(far, key, "req_1", proxy)
        assert pending(far) == 1
        assert b'"id":"req_1"' in journal_bytes(tmp_path)
        await far.meter.close(timeout_s=0)
    assert (await bench.record(key)).quota.reserved == 5_000
    async with open_bench(store_url, journal_folder=tmp_path) as following:
        # It has been posted before the process takes its first request.
        assert await charges(following, key) == [("req_1", "delivered", 5_000)]
        assert pending(following) == 0
    assert journal_bytes(tmp_path) == b""
    await bench.check_books(key)


async def test_another_process_on_the_folder_takes_over_from_one_that_died(
    store_url: str, tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "HOUSEKEEPING_S", 0.05)
    key = await bench.make_key(10_000)
    async with open_bench(store_url, journal_folder=tmp_path):
        async with far_bench(store_url, tmp_path) as (proxy, far):
            await run_one(far, key, "req_1", proxy)
        await eventually(lambda: charges(bench, key))
    await bench.check_books(key)


async def test_it_posts_once_also_where_the_answers_are_lost(store_url: str, tmp_path: Path, bench: Bench) -> None:
    key = await bench.make_key(100_000)
    async with far_bench(store_url, tmp_path) as (proxy, far):
        for number in range(4):
            async with far.meter.admit(
                key, Observation(f"req_{number}", ENDPOINT, model=MODEL), MODEL, quote(5_000)
            ) as delivery:
                proxy.lose_replies = 1 + number
                delivery.images = 1
                delivery.end(complete=True)
        await far.meter.close(timeout_s=10)
        assert proxy.lose_replies == 0
    assert sorted(await charges(bench, key)) == [(f"req_{number}", "delivered", 5_000) for number in range(4)]
    assert (await bench.record(key)).quota.posted == 20_000
    await bench.check_books(key)


async def test_many_settlements_during_an_outage(store_url: str, tmp_path: Path, bench: Bench) -> None:
    key = await bench.make_key(None)
    count = outbox.BATCH * 2 + 10
    async with far_bench(store_url, tmp_path) as (proxy, far):
        admitted = [await far.admit(key, f"req_{number}", 5_000) for number in range(count)]
        for reservation in admitted:
            far.meter.reserved(reservation)
        proxy.refuse = True
        await proxy.cut()
        await asyncio.gather(*(far.meter.post(delivered(each)) for each in admitted))
        assert pending(far) == count
        proxy.refuse = False
        await far.meter.close(timeout_s=20)
        assert pending(far) == 0
    assert (await bench.record(key)).quota.posted == 5_000 * count
    await bench.check_books(key)


async def test_a_settlement_in_the_journal_keeps_its_lease(store_url: str, tmp_path: Path, bench: Bench) -> None:
    key = await bench.make_key(10_000)
    async with far_bench(store_url, tmp_path) as (proxy, far):
        await run_one(far, key, "req_1", proxy)
        await bench.redis.zadd(LEASES, {"req_1": 1})
        proxy.refuse = False
        await far.meter.close(timeout_s=10)
    assert await charges(bench, key) == [("req_1", "delivered", 5_000)]
    await bench.check_books(key)


async def test_one_that_was_settled_long_ago_is_found_in_the_ledger(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.metering.redis_store.ledger_search.ENTRIES_A_LOOK", 3)
    async with open_bench(store_url, settled_ids_ms=1, journal_folder=tmp_path) as bench:
        key = await bench.make_key(None)
        reservations = [await bench.admit(key, f"req_{number}", 5_000) for number in range(10)]
        for reservation in reservations[:9]:
            await bench.store.settle(delivered(reservation))
        await eventually(lambda: is_forgotten(bench, "req_8"))
        moments_ago = replace(reservations[8], admitted_ms=reservations[8].admitted_ms - 10_000)
        for number in (0, 4):
            earlier = replace(reservations[number], admitted_ms=reservations[number].admitted_ms - 10_000)
            await bench.store.settle(delivered(earlier))
        await bench.store.settle(delivered(moments_ago))
        assert len(await charges(bench, key)) == 9
        # One that was never settled is not in the ledger, and is posted; where its reservation is lost, too.
        await bench.store.settle(delivered(reservations[9]))
        lost = replace(moments_ago, id="req_lost")
        await bench.store.settle(delivered(lost))
        assert (await bench.record(key)).quota.posted == 11 * 5_000
        await bench.check_books(key)


async def test_what_the_store_forgot_when_it_was_killed_is_posted_again(bench: Bench) -> None:
    key = await bench.make_key(100_000)
    for number in range(3):
        await run_one(bench, key, f"req_{number}")
    # As if the last second of its file had not reached the disk: both the admission and the settlement are gone.
    last = (await bench.ledger.list_entries(LedgerFilter(team="acme"), cursor=None, limit=10)).items[-1]
    await bench.redis.xdel("lm:{acme}:ledger", last.id.removeprefix("acme_"))
    await bench.redis.delete("lm:{acme}:reservation:req_2")
    for name, usage in ((f"lm:{{acme}}:key:{key.key_id}", f"lm:{{acme}}:usage:{key.key_id}"), (TEAM, TEAM_USAGE)):
        found = await bench.redis.hget(name, "counters")
        assert isinstance(found, bytes)
        counters = list(struct.unpack(">13q", found))
        for counter, lost in (("posted", 5_000), ("images", 1), ("day_posted", 5_000), ("month_posted", 5_000)):
            counters[COUNTERS.index(counter)] -= lost
        await bench.redis.hset(name, "counters", struct.pack(">13q", *counters))
        for field in await bench.redis.hkeys(usage):
            await bench.redis.hincrby(usage, field, -5_000 if b":units:" in field else -1)
    assert bench.runner._connection is not None
    bench.runner._connection.abort()
    assert (await bench.record(key)).quota.posted == 15_000
    assert bench.metrics.registry.get_sample_value("lightmeter_reposted_settlements_total") == 1
    assert [request for request, _, _ in await charges(bench, key)] == ["req_0", "req_1", "req_2"]
    await bench.check_books(key)


async def test_a_new_connection_alone_posts_nothing_again(bench: Bench) -> None:
    key = await bench.make_key(100_000)
    for number in range(3):
        await run_one(bench, key, f"req_{number}")
    assert bench.runner._connection is not None
    bench.runner._connection.abort()
    assert (await bench.record(key)).quota.posted == 15_000
    assert bench.metrics.registry.get_sample_value("lightmeter_reposted_settlements_total") == 0
    assert len(await charges(bench, key)) == 3
    await bench.check_books(key)


async def test_nothing_is_admitted_that_could_not_be_written_down(
    store_url: str, tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "HOUSEKEEPING_S", 0.05)
    key = await bench.make_key(100_000)
    async with far_bench(store_url, tmp_path) as (proxy, far):
        with monkeypatch.context() as full:

            def fail(*_: object) -> None:
                raise OSError(28, "No space left on device")

            full.setattr(JournalFile, "append", fail)
            full.setattr(JournalFile, "make_room", fail)
            await run_one(far, key, "req_1", proxy)
            assert isinstance(far.meter.refusal, JournalUnavailable)
            proxy.refuse = False
            with pytest.raises(JournalUnavailable):
                await run_one(far, key, "req_2")
            # What is in memory is posted all the same.
            await eventually(lambda: not pending(far))
        await eventually(lambda: far.meter.refusal is None)
        await run_one(far, key, "req_3")
    assert [request for request, _, _ in await charges(bench, key)] == ["req_1", "req_3"]
    await bench.check_books(key)


async def test_what_was_kept_in_memory_is_written_when_the_journal_can_be(
    store_url: str, tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "HOUSEKEEPING_S", 0.05)
    key = await bench.make_key(100_000)
    async with far_bench(store_url, tmp_path) as (proxy, far):
        with monkeypatch.context() as full:

            def fail(*_: object) -> None:
                raise OSError(28, "No space left on device")

            full.setattr(JournalFile, "append", fail)
            await run_one(far, key, "req_1", proxy)
        await eventually(lambda: b'"id":"req_1"' in journal_bytes(tmp_path))
        await far.meter.close(timeout_s=0)
    async with open_bench(store_url, journal_folder=tmp_path):
        assert await charges(bench, key) == [("req_1", "delivered", 5_000)]
    await bench.check_books(key)


async def test_what_a_cancelled_caller_left_unwritten_is_written_later(
    store_url: str, tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "HOUSEKEEPING_S", 0.05)
    key = await bench.make_key(100_000)
    append = JournalFile.append
    began, may_fail = threading.Event(), threading.Event()

    def fail_once(file: JournalFile, records: bytes) -> None:
        if not began.is_set():
            began.set()
            may_fail.wait(10)
            raise OSError(28, "No space left on device")
        append(file, records)

    async with far_bench(store_url, tmp_path) as (proxy, far):
        first, second = await far.admit(key, "req_1", 5_000), await far.admit(key, "req_2", 5_000)
        proxy.refuse = True
        await proxy.cut()
        monkeypatch.setattr(JournalFile, "append", fail_once)
        adding = asyncio.ensure_future(far.meter._outbox.add(Posting(delivered(first))))
        await asyncio.to_thread(began.wait, 10)
        # The next write comes at once and succeeds, so that the journal is well again before anybody looks.
        following = asyncio.ensure_future(far.meter._outbox.add(Posting(delivered(second))))
        adding.cancel()
        await asyncio.sleep(0)
        may_fail.set()
        await following
        await eventually(lambda: b'"id":"req_1"' in journal_bytes(tmp_path))
        proxy.refuse = False
        await eventually(lambda: not pending(far))
    await bench.check_books(key)


async def test_an_admission_to_be_taken_back_survives_the_process_too(
    store_url: str, tmp_path: Path, bench: Bench
) -> None:
    key = await bench.make_key(10_000)
    async with far_bench(store_url, tmp_path) as (proxy, far):
        await far.admit(key, "req_1", 5_000)
        proxy.refuse = True
        await proxy.cut()
        far.meter.void("req_1", key)
        await far.meter.close(timeout_s=0)
    assert (await bench.record(key)).quota.reserved == 5_000
    async with open_bench(store_url, journal_folder=tmp_path):
        assert await charges(bench, key) == []
        assert (await bench.record(key)).quota.remaining == 10_000
    await bench.check_books(key)


async def test_what_was_settled_long_ago_is_not_charged_again_by_a_new_connection(bench: Bench) -> None:
    key = await bench.make_key(100_000)
    reservation = await bench.admit(key, "req_1", 5_000)
    long_ago = replace(reservation, admitted_ms=reservation.admitted_ms - 3_600_000)
    await bench.store.settle(settle(long_ago, Delivery(images=1)))
    # The store has forgotten on purpose what a gateway that was idle for as long still remembers.
    await bench.redis.delete("lm:{acme}:reservation:req_1")
    assert bench.runner._connection is not None
    bench.runner._connection.abort()
    assert (await bench.record(key)).quota.posted == 5_000
    assert bench.metrics.registry.get_sample_value("lightmeter_reposted_settlements_total") == 0
    assert len(await charges(bench, key)) == 1
