from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest
import redis
from redis.asyncio import Redis

from proxy.metering.embedded.server import EmbeddedStore, EmbeddedStoreError


async def put(store: EmbeddedStore, name: str, value: str) -> None:
    async with Redis.from_url(store.url) as client:
        await client.set(name, value)


async def get(store: EmbeddedStore, name: str) -> bytes | None:
    async with Redis.from_url(store.url) as client:
        value = await client.get(name)
        return value.encode() if isinstance(value, str) else value


async def test_what_is_stored_is_there_at_the_next_start(tmp_path: Path) -> None:
    first = EmbeddedStore(tmp_path / "data")
    await first.start()
    await put(first, "a", "1")
    await first.stop()
    second = EmbeddedStore(tmp_path / "data")
    await second.start()
    assert await get(second, "a") == b"1"
    await second.stop()
    assert second.process_id == 0


async def test_it_is_durable_and_private(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path, appendfsync="always")
    await store.start()
    async with Redis.from_url(store.url) as client:
        assert await client.config_get("appendonly") == {"appendonly": "yes"}
        assert await client.config_get("appendfsync") == {"appendfsync": "always"}
        assert await client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert await client.config_get("port") == {"port": "0"}
    assert (tmp_path / "valkey.sock").stat().st_mode & 0o777 == 0o700
    await store.stop()


async def test_a_second_one_on_the_same_folder_is_told_who_has_it(tmp_path: Path) -> None:
    first = EmbeddedStore(tmp_path)
    await first.start()
    second = EmbeddedStore(tmp_path)
    with pytest.raises(EmbeddedStoreError, match=rf"in use by another Lightmeter \(process {os.getpid()}\).*redis://"):
        await second.start()
    await put(first, "a", "1")
    await first.stop()
    await second.start()
    await second.stop()


async def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path / ("long" * 30))
    await store.start()
    await put(store, "a", "1")
    assert await get(store, "a") == b"1"
    await store.stop()


async def test_a_server_that_was_killed_is_started_again_with_its_data(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path, appendfsync="always")
    await store.start()
    await put(store, "a", "1")
    killed = store.process_id
    os.kill(killed, signal.SIGKILL)
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(redis.RedisError, OSError):
                if store.process_id != killed and await get(store, "a") == b"1":
                    break
            await asyncio.sleep(0.02)
    assert store.process_id not in (0, killed)
    await store.stop()


async def test_the_server_of_a_lightmeter_that_was_killed_is_taken_over(tmp_path: Path) -> None:
    # What a killed process leaves behind: its server still runs, and the lock is free.
    dead = EmbeddedStore(tmp_path)
    await dead.start()
    await put(dead, "a", "1")
    assert dead._lock is not None
    assert dead._watch is not None
    dead._lock.close()
    dead._watch.cancel()
    orphan = dead._process
    assert orphan is not None

    store = EmbeddedStore(tmp_path)
    await store.start()
    assert await orphan.wait() == 0
    assert await get(store, "a") == b"1"
    await store.stop()


@pytest.mark.parametrize("server", ["no-such-server", "/nowhere/valkey-server"])
async def test_a_server_binary_that_is_not_there(tmp_path: Path, server: str) -> None:
    with pytest.raises(EmbeddedStoreError, match=r"store\.server: there is no program"):
        await EmbeddedStore(tmp_path, server=server).start()


async def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedStoreError, match="ended with status 1"):
        await EmbeddedStore(tmp_path, server="/bin/false").start()
    store = EmbeddedStore(tmp_path)
    await store.start()
    await store.stop()


async def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedStoreError, match=r"store\.url: the data folder .* cannot be used"):
        await EmbeddedStore(tmp_path / "file" / "data").start()
