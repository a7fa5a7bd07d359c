from __future__ import annotations

import asyncio
from time import perf_counter
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from proxy.domain.billing.settlement import Delivery, settle
from proxy.domain.errors import StoreUnavailable
from proxy.metering.redis.runner import PING, ScriptRunner
from proxy.metering.redis.scripts import load_script
from proxy.telemetry.metrics import Metrics
from tests.metering.conftest import Bench, open_bench
from tests.support.lossy_proxy import lossy_proxy
from tests.support.processes import free_port


async def calls_of(redis: Redis, command: str) -> int:
    stats = await redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


async def test_one_round_trip_to_admit_and_one_to_settle(bench: Bench) -> None:
    key = await bench.make_key(1_000_000)
    warm = await bench.admit(key, "req_0", 5_000)
    await bench.store.settle(settle(warm, Delivery(images=1)))
    before = await calls_of(bench.redis, "evalsha"), await calls_of(bench.redis, "eval")
    reservation = await bench.admit(key, "req_1", 5_000)
    assert (await calls_of(bench.redis, "evalsha"), await calls_of(bench.redis, "eval")) == (before[0] + 1, before[1])
    await bench.store.settle(settle(reservation, Delivery(images=1)))
    assert (await calls_of(bench.redis, "evalsha"), await calls_of(bench.redis, "eval")) == (before[0] + 2, before[1])


async def test_a_lost_reply_is_asked_for_again_and_counts_once(bench: Bench, store_url: str) -> None:
    key = await bench.make_key(10_000)
    address = urlsplit(store_url)
    async with (
        lossy_proxy("127.0.0.1", address.port or 0) as proxy,
        open_bench(f"redis://127.0.0.1:{proxy.port}") as far,
    ):
        proxy.lose_replies = 1
        reservation = await far.admit(key, "req_1", 5_000)
        assert (await bench.record(key)).quota.reserved == 5_000
        proxy.lose_replies = 1
        await far.store.settle(settle(reservation, Delivery(images=1)))
        assert proxy.lose_replies == 0
    record = await bench.record(key)
    assert (record.quota.posted, record.quota.reserved) == (5_000, 0)
    await bench.check_books(key)


async def test_a_store_that_stalls_is_unavailable_within_a_bounded_time(store_url: str) -> None:
    address = urlsplit(store_url)
    async with lossy_proxy("127.0.0.1", address.port or 0) as proxy:
        runner = ScriptRunner(f"redis://127.0.0.1:{proxy.port}", Metrics(), timeout_s=0.3)
        assert await runner.ping()
        proxy.stall()
        began = perf_counter()
        with pytest.raises(StoreUnavailable):
            await runner.run(load_script("ping"), (PING,), ("req_1",))
        assert perf_counter() - began < 10
        health = [runner.healthy]
        proxy.resume()
        assert await runner.ping()
        assert [*health, runner.healthy] == [False, True]
        await runner.close()


@pytest.mark.parametrize("connected", [True, False])
async def test_a_call_under_way_fails_when_all_is_closed(store_url: str, connected: bool) -> None:
    address = urlsplit(store_url)
    async with lossy_proxy("127.0.0.1", address.port or 0) as proxy:
        runner = ScriptRunner(f"redis://:any@127.0.0.1:{proxy.port}", Metrics(), timeout_s=30)
        if connected:
            runner = ScriptRunner(f"redis://127.0.0.1:{proxy.port}", Metrics(), timeout_s=30)
            assert await runner.ping()
        proxy.stall()
        call = runner.submit(load_script("ping"), (PING,), ("ping",))
        for _ in range(20):
            await asyncio.sleep(0)
        await runner.close()
        async with asyncio.timeout(5):
            with pytest.raises(StoreUnavailable) as told:
                await call.reply
        assert told.value.may_have_happened == connected
        # Nothing connects anew for a call that has failed.
        await asyncio.sleep(0)
        assert runner._connecting is None


async def test_nobody_there_is_unavailable_at_once() -> None:
    runner = ScriptRunner(f"redis://127.0.0.1:{free_port()}", Metrics(), timeout_s=60)
    began = perf_counter()
    with pytest.raises(StoreUnavailable):
        await runner.run(load_script("ping"), (PING,), ("req_1",))
    assert perf_counter() - began < 20


async def test_a_storm_of_cancellations_gives_nobody_the_wrong_reply(bench: Bench) -> None:
    script = load_script("ping")

    async def ask(number: int) -> None:
        # The reply is checked against the id inside; a wrong one would raise.
        assert await bench.runner.run(script, (PING,), (f"req_{number}",)) == []

    for round_number in range(20):
        tasks = [asyncio.create_task(ask(round_number * 50 + number)) for number in range(50)]
        for turns in range(round_number % 4):
            await asyncio.sleep(0 if turns else 0.0002)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
        assert all(result is None for result in results[1::2])


async def test_a_reply_that_belongs_to_another_call_reaches_nobody() -> None:
    async def answer_wrongly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            writer.write(b"*1\r\n$9\r\nreq_other\r\n")
        writer.close()

    server = await asyncio.start_server(answer_wrongly, "127.0.0.1", 0)
    runner = ScriptRunner(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", Metrics(), timeout_s=1)
    with pytest.raises(StoreUnavailable):
        await runner.run(load_script("ping"), (PING,), ("req_mine",))
    await runner.close()
    server.close()


async def test_any_number_of_calls_take_one_connection(bench: Bench) -> None:
    before = (await bench.redis.info("stats"))["total_connections_received"]
    replies = await asyncio.gather(
        *(bench.runner.run(load_script("ping"), (PING,), (f"req_{number}",)) for number in range(1_000))
    )
    assert replies == [[]] * 1_000
    after = (await bench.redis.info("stats"))["total_connections_received"]
    assert after - before <= 1


async def test_a_connection_that_the_server_closed_meanwhile_is_not_noticed(bench: Bench) -> None:
    assert await bench.runner.run(load_script("ping"), (PING,), ("req_before",)) == []
    await bench.redis.client_kill_filter(_type="normal", skipme=True)
    assert await bench.runner.run(load_script("ping"), (PING,), ("req_after",)) == []
    assert bench.runner.healthy


async def test_passwords_and_databases_of_the_address_are_used(bench: Bench, store_url: str) -> None:
    await bench.redis.config_set("requirepass", "open-sesame")
    try:
        address = store_url.replace("redis://", "redis://:open-sesame@").replace("/0", "/3")
        runner = ScriptRunner(address, Metrics(), timeout_s=2)
        assert await runner.ping()
        clients = await bench.redis.client_list()
        assert [client["db"] for client in clients if client["name"] == "lightmeter"].count("3") == 1
        await runner.close()
        stranger = ScriptRunner(store_url, Metrics(), timeout_s=2)
        assert not await stranger.ping()
        await stranger.close()
    finally:
        await bench.redis.config_set("requirepass", "")
