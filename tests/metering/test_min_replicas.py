"""``store.min_replicas`` on a real primary and a real replica."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

import pytest
import redis

from proxy.domain.billing.settlement import Delivery, settle
from proxy.domain.errors import InsufficientQuota, StoreUnavailable
from proxy.metering.redis.replicated import ReplicatedRunner
from proxy.metering.redis.runner import ScriptRunner
from proxy.metering.redis_store.keys import leases
from proxy.telemetry.observation import Observation
from tests.metering.conftest import ENDPOINT, MODEL, Bench, open_bench, quote
from tests.support.polling import eventually
from tests.support.processes import Server, wait_for
from tests.support.stores import BACKENDS, store_server


def both_connections(bench: Bench) -> tuple[ScriptRunner, ScriptRunner]:
    """What runs everything but admissions, and what runs those."""
    assert isinstance(bench.runner, ReplicatedRunner)
    return bench.runner, bench.runner._admissions


@pytest.fixture(params=BACKENDS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Server]]:
    """A primary's address, and its replica's process."""
    for name in ("primary", "replica"):
        (tmp_path / name).mkdir()
    with store_server(request.param, tmp_path / "primary", "--repl-diskless-sync-delay", "0") as (url, _primary):
        port = urlsplit(url).port
        with (
            store_server(request.param, tmp_path / "replica", "--replicaof", f"127.0.0.1 {port}") as (_, replica),
            redis.Redis.from_url(url) as client,
        ):
            wait_for(lambda: client.info("replication")["connected_slaves"] == 1, "the replica")
            # It counts from its first acknowledgement on.
            wait_for(lambda: client.wait(1, 100) == 1, "the replica's acknowledgement")
            yield url, replica
            if replica.process.poll() is None:
                replica.process.send_signal(signal.SIGCONT)


async def test_an_admission_waits_for_its_replica(pair: tuple[str, Server]) -> None:
    url, replica = pair
    async with open_bench(url, timeout_s=4, min_replicas=1) as bench:
        key = await bench.make_key(10_000)
        reservation = await bench.admit(key, "req_1", 5_000)
        assert await bench.admit(key, "req_1", 5_000) == reservation
        replica.process.send_signal(signal.SIGSTOP)
        began = perf_counter()
        with pytest.raises(StoreUnavailable) as refused:
            await bench.admit(key, "req_2", 5_000)
        assert refused.value.may_have_happened
        assert perf_counter() - began < 10
        # A refusal needs no replica; nor does a settlement, which is posted whatever happens.
        with pytest.raises(InsufficientQuota):
            await bench.admit(key, "req_3", 50_000)
        await bench.store.settle(settle(reservation, Delivery(images=1)))
        replica.process.send_signal(signal.SIGCONT)


async def test_what_too_few_replicas_have_is_taken_back(
    pair: tuple[str, Server], caplog: pytest.LogCaptureFixture
) -> None:
    url, replica = pair
    async with open_bench(url, min_replicas=1) as bench:
        key = await bench.make_key(10_000)
        replica.stop(signal.SIGKILL)
        for number in range(3):
            with pytest.raises(StoreUnavailable):
                async with bench.meter.admit(
                    key, Observation(f"req_{number}", ENDPOINT, model=MODEL), MODEL, quote(5_000)
                ):
                    pytest.fail("it was admitted")

        async def is_free() -> bool:
            return (await bench.record(key)).quota.reserved == 0

        await eventually(is_free)
        await bench.check_books(key)
    assert caplog.text.count("0 replica(s) took an admission within 1000 ms and store.min_replicas is 1") == 1


async def test_a_settlement_waits_for_no_replica(pair: tuple[str, Server]) -> None:
    url, replica = pair
    # Half of that is what an admission waits for its replica.
    async with open_bench(url, timeout_s=6, min_replicas=1) as bench:
        key = await bench.make_key(1_000_000)
        held = [await bench.admit(key, f"held_{number}", 5_000) for number in range(10)]
        connections = [runner._connection for runner in both_connections(bench)]
        replica.process.send_signal(signal.SIGSTOP)
        waiting = []
        slowest_s = 0.0
        for number, reservation in enumerate(held):
            waiting.append(asyncio.ensure_future(bench.admit(key, f"waits_{number}", 1_000)))
            # The admission is on its way before the settlement is asked for.
            await asyncio.sleep(0.1)
            began = perf_counter()
            await bench.store.settle(settle(reservation, Delivery(images=1)))
            await bench.store.renew("acme", [f"held_{number}"])
            slowest_s = max(slowest_s, perf_counter() - began)
        assert slowest_s < 2
        refused = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(error, StoreUnavailable) and error.may_have_happened for error in refused), refused
        # A store that answers is not cut off, and an answer to one is no reason to ask again.
        assert [runner._connection for runner in both_connections(bench)] == connections
        replica.process.send_signal(signal.SIGCONT)


async def test_an_admission_that_is_asked_again_waits_for_its_replica_too(pair: tuple[str, Server]) -> None:
    url, replica = pair
    async with open_bench(url, timeout_s=4, min_replicas=1) as bench:
        key = await bench.make_key(10_000)
        await bench.admit(key, "req_0", 1_000)
        replica.process.send_signal(signal.SIGSTOP)
        admission = asyncio.ensure_future(bench.admit(key, "req_1", 5_000))

        async def is_reserved() -> bool:
            return (await bench.record(key)).quota.reserved == 6_000

        await eventually(is_reserved)
        runner = both_connections(bench)[1]
        assert runner._connection is not None
        runner._connection.abort()
        with pytest.raises(StoreUnavailable) as refused:
            await admission
        assert refused.value.may_have_happened
        replica.process.send_signal(signal.SIGCONT)


async def test_leases_are_renewed_before_an_admission_takes_them_for_expired(pair: tuple[str, Server]) -> None:
    url, _replica = pair
    async with open_bench(url, timeout_s=10, min_replicas=1) as bench:
        key = await bench.make_key(10_000)
        await bench.admit(key, "req_0", 5_000)
        bench.store.on_connected(lambda: bench.store.renew_soon("acme", ["req_0"]))
        await bench.redis.zadd(leases("acme"), {"req_0": 1})
        for runner in both_connections(bench):
            assert runner._connection is not None
            runner._connection.abort()
        await bench.admit(key, "req_1", 5_000)
        assert (await bench.record(key)).quota.reserved == 10_000


async def test_a_lost_connection_is_tried_again_and_counts_once(pair: tuple[str, Server]) -> None:
    url, _replica = pair
    async with open_bench(url, timeout_s=10, min_replicas=1) as bench:
        key = await bench.make_key(10_000)
        await bench.runner.ping()
        first = await bench.admit(key, "req_0", 1_000)
        for runner in both_connections(bench):
            assert runner._connection is not None
            runner._connection.abort()
        second = await bench.admit(key, "req_1", 4_000)
        assert (await bench.record(key)).quota.reserved == 5_000
        for reservation in (first, second):
            await bench.store.settle(settle(reservation, Delivery(images=1)))
        await bench.check_books(key)
