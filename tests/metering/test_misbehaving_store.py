"""A store that does what stores do on bad days: no wrong reply, no double count, and words that help."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

import pytest

from proxy.domain.api_key import Credential
from proxy.domain.billing.settlement import Delivery, settle
from proxy.domain.errors import StoreUnavailable
from proxy.metering.redis.runner import ScriptRunner
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import Observation
from tests.metering.conftest import ENDPOINT, MODEL, Bench, open_bench, quote
from tests.support.polling import eventually


async def nothing_is_held(bench: Bench) -> bool:
    return not await bench.redis.zcard("lm:{acme}:leases")


async def run_one(bench: Bench, key: Credential, number: int) -> None:
    observation = Observation(f"req_{number}", ENDPOINT, model=MODEL)
    async with bench.meter.admit(key, observation, MODEL, quote(5_000)) as delivery:
        await asyncio.sleep(0)
        delivery.images = 1
        delivery.end(complete=True)


async def test_scripts_flushed_under_load(bench: Bench) -> None:
    key = await bench.make_key(None)
    done = asyncio.Event()

    async def flush() -> None:
        while not done.is_set():
            await bench.redis.script_flush()
            await asyncio.sleep(0.001)

    flushing = asyncio.create_task(flush())
    for start in range(0, 400, 40):
        await asyncio.gather(*(run_one(bench, key, number) for number in range(start, start + 40)))
    done.set()
    await flushing
    assert (await bench.record(key)).quota.posted == 400 * 5_000
    await bench.check_books(key)


async def test_a_stall_is_a_bounded_wait_and_then_503(bench: Bench, store_url: str) -> None:
    key = await bench.make_key(None)
    async with open_bench(store_url, timeout_s=0.3) as hasty:
        await hasty.runner.ping()
        # Nothing but this ends it early.
        await bench.redis.client_pause(30_000, all=False)
        began = perf_counter()
        results = await asyncio.gather(*(run_one(hasty, key, number) for number in range(20)), return_exceptions=True)
        assert perf_counter() - began < 10
        await bench.redis.client_unpause()
        assert all(isinstance(result, StoreUnavailable) for result in results)
        # Some may have been admitted when the pause was over; all of that is taken back.
        await eventually(hasty.runner.ping)
        await hasty.meter.close(timeout_s=10)
    assert await nothing_is_held(bench)
    assert (await bench.record(key)).quota.posted == 0
    await bench.check_books(key)


async def test_memory_that_is_full_refuses_whole_and_settles_later(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    key = await bench.make_key(20_000)
    reservation = await bench.admit(key, "req_1", 5_000)
    before = await bench.redis.dump(f"lm:{{acme}}:key:{key.key_id}")
    await bench.redis.config_set("maxmemory", 1)
    for _ in range(3):
        with pytest.raises(StoreUnavailable) as refused:
            await bench.admit(key, "req_2", 5_000)
        assert not refused.value.may_have_happened
        with pytest.raises(StoreUnavailable):
            await bench.store.settle(settle(reservation, Delivery(images=1)))
    assert await bench.redis.dump(f"lm:{{acme}}:key:{key.key_id}") == before
    assert caplog.text.count("its memory is full; raise its maxmemory") == 1
    await bench.meter.post(settle(reservation, Delivery(images=1)))
    await bench.redis.config_set("maxmemory", 0)
    await bench.meter.close(timeout_s=10)
    assert (await bench.record(key)).quota.posted == 5_000
    await bench.check_books(key)


async def test_a_replica_refuses_and_is_left(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    key = await bench.make_key(20_000)
    await bench.redis.replicaof("127.0.0.1", 1)
    try:
        with pytest.raises(StoreUnavailable):
            await bench.admit(key, "req_1", 5_000)
    finally:
        await bench.redis.replicaof("NO", "ONE")
    assert "it is a replica; point store.url at the primary" in caplog.text
    reservation = await bench.admit(key, "req_1", 5_000)
    await bench.store.settle(settle(reservation, Delivery(images=1)))
    await bench.check_books(key)


async def test_cancellations_at_any_moment_leave_nothing_behind(bench: Bench) -> None:
    key, dice = await bench.make_key(None), random.Random(7)  # noqa: S311 - it throws dice

    async def be_cancelled(number: int) -> None:
        task = asyncio.create_task(run_one(bench, key, number))
        for _ in range(dice.randrange(12)):
            await asyncio.sleep(0)
        await asyncio.sleep(dice.choice((0, 0, 0.0005, 0.002)))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    await asyncio.gather(*(be_cancelled(number) for number in range(500)))
    # Whoever comes after gets its own reply.
    for number in range(500, 520):
        reservation = await bench.admit(key, f"req_{number}", number)
        assert (reservation.id, reservation.quote.units) == (f"req_{number}", number)
        await bench.store.settle(settle(reservation, Delivery()))
    await bench.meter.close(timeout_s=10)
    assert await nothing_is_held(bench)
    await bench.check_books(key)


async def test_admit_and_settle_cancelled_at_every_await(bench: Bench) -> None:
    key = await bench.make_key(None)
    finished = False
    number = 0
    while not finished:
        # One more step of the event loop each time, until the request gets through.
        task = asyncio.create_task(run_one(bench, key, number))
        for _ in range(number):
            await asyncio.sleep(0)
        finished = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        number += 1
        assert number < 5_000
    await bench.meter.close(timeout_s=10)
    assert await nothing_is_held(bench)
    await bench.check_books(key)


@asynccontextmanager
async def refusing_server(refusal: bytes) -> AsyncIterator[str]:
    """Something that speaks Redis's protocol and refuses every command."""

    connections: set[asyncio.Task[None]] = set()

    async def refuse_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                length = int((await reader.readline())[1:])
                words.append((await reader.readexactly(length + 2))[:-2])
            writer.write(b"+OK\r\n" if words[0] == b"CLIENT" else b"-" + refusal + b"\r\n")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await refuse_all(reader, writer)
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        if connections:
            await asyncio.wait(connections)


@pytest.mark.parametrize(
    ("refusal", "advice"),
    [
        (b"LOADING Redis is loading the dataset in memory", "it is reading its data"),
        (b"MISCONF Redis is configured to save RDB snapshots", "cannot write to its disk"),
        (b"NOAUTH Authentication required.", "it wants a password; put it into store.url"),
        (b"NOPERM User default has no permissions", "may not run scripts"),
        (b"ERR something new", "see its log"),
    ],
)
async def test_each_refusal_is_503_and_says_what_to_do(
    refusal: bytes, advice: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with refusing_server(refusal) as url:
        runner = ScriptRunner(url, Metrics(), timeout_s=1)
        assert not await runner.ping()
        assert not await runner.ping()
        assert not runner.healthy
        await runner.close()
    assert caplog.text.count(advice) == 1


async def test_a_wrong_password_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with refusing_server(b"WRONGPASS invalid username-password pair") as url:
        runner = ScriptRunner(url.replace("redis://", "redis://:wrong@"), Metrics(), timeout_s=1)
        assert not await runner.ping()
        await runner.close()
    assert "the password in store.url is wrong" in caplog.text
    assert ":wrong" not in caplog.text
