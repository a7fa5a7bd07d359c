"""Reading from the store over pooled connections that may have broken unnoticed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.asyncio import Redis

from proxy.domain.errors import StoreBusy, StoreUnavailable
from proxy.metering.redis import pool as redis_connection
from proxy.metering.redis.pool import CONNECTIONS, ask, open_server_pool
from tests.metering.conftest import open_bench
from tests.support.stores import store_server


async def test_a_connection_that_broke_while_nobody_used_it_is_not_noticed(store_url: str) -> None:
    pool = open_server_pool(store_url, timeout_s=20)
    client = Redis(connection_pool=pool)
    assert await ask(client, "ECHO", "one") == b"one"
    with redis.Redis.from_url(store_url) as other:
        (mine,) = [each["id"] for each in other.client_list() if each["cmd"] == "echo"]
        other.client_kill_filter(_id=mine)
    assert await ask(client, "ECHO", "two") == b"two"
    await pool.aclose()


async def test_what_the_store_refuses_is_asked_once(store_url: str) -> None:
    pool = open_server_pool(store_url, timeout_s=20)
    client = Redis(connection_pool=pool)
    await ask(client, "SET", "word", "x")
    with pytest.raises(StoreUnavailable):
        await ask(client, "INCR", "word")
    with redis.Redis.from_url(store_url) as other:
        assert int(other.info("commandstats")["cmdstat_incr"]["calls"]) == 1
    await pool.aclose()


async def test_a_store_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    with store_server("valkey", tmp_path) as (url, server):
        pool = open_server_pool(url, timeout_s=20)
        client = Redis(connection_pool=pool)
        await ask(client, "ECHO", "one")
        server.stop()
        with pytest.raises(StoreUnavailable):
            await ask(client, "ECHO", "two")
        await pool.aclose()


async def test_more_readers_than_connections_wait_for_one(store_url: str) -> None:
    pool = open_server_pool(store_url, timeout_s=20)
    client = Redis(connection_pool=pool)
    readers = range(4 * CONNECTIONS)
    assert await asyncio.gather(*(ask(client, "ECHO", str(reader)) for reader in readers)) == [
        str(reader).encode() for reader in readers
    ]
    with redis.Redis.from_url(store_url) as other:
        assert len([each for each in other.client_list() if each["cmd"] == "echo"]) <= CONNECTIONS
    await pool.aclose()


async def test_who_waits_too_long_is_told_that_others_read(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_connection, "WAIT_S", 0.05)
    pool = open_server_pool(store_url, timeout_s=20)
    client = Redis(connection_pool=pool)
    with redis.Redis.from_url(store_url) as other:
        # Nothing of that ends it early: also on a busy machine all connections are taken by then.
        other.client_pause(2_000)
        readers = [asyncio.create_task(ask(client, "ECHO", "x")) for _ in range(CONNECTIONS)]
        await asyncio.sleep(0)
        with pytest.raises(StoreBusy):
            await ask(client, "ECHO", "one too many")
    assert await asyncio.gather(*readers) == [b"x"] * CONNECTIONS
    assert await ask(client, "ECHO", "after") == b"after"
    await pool.aclose()


@pytest.fixture
def narrow_user(store_url: str) -> Iterator[str]:
    """The address of a store for a user who may do what accounting needs, and nothing about clients."""
    with redis.Redis.from_url(store_url) as admin:
        admin.execute_command("ACL", "SETUSER", "narrow", "on", ">secret", "~lm:*", "+@all", "-client")
        yield store_url.replace("redis://", "redis://narrow:secret@")
        admin.execute_command("ACL", "DELUSER", "narrow")


async def test_a_user_without_the_right_to_name_a_connection_is_served(narrow_user: str) -> None:
    async with open_bench(narrow_user) as bench:
        key = await bench.make_key(10_000)
        await bench.admit(key, "req_1", 5_000)
        assert (await bench.record(key)).quota.reserved == 5_000
