"""Reading from the store over pooled connections that may have broken unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from redis.asyncio import Redis

from proxy.domain.errors import StoreUnavailable
from proxy.metering.redis_connection import ask, open_pool
from tests.support.stores import store_server


async def test_a_connection_that_broke_while_nobody_used_it_is_not_noticed(store_url: str) -> None:
    pool = open_pool(store_url, timeout_s=2)
    client = Redis(connection_pool=pool)
    assert await ask(client, "ECHO", "one") == b"one"
    with redis.Redis.from_url(store_url) as other:
        (mine,) = [each["id"] for each in other.client_list() if each["cmd"] == "echo"]
        other.client_kill_filter(_id=mine)
    assert await ask(client, "ECHO", "two") == b"two"
    await pool.aclose()


async def test_what_the_store_refuses_is_asked_once(store_url: str) -> None:
    pool = open_pool(store_url, timeout_s=2)
    client = Redis(connection_pool=pool)
    await ask(client, "SET", "word", "x")
    with pytest.raises(StoreUnavailable):
        await ask(client, "INCR", "word")
    with redis.Redis.from_url(store_url) as other:
        assert int(other.info("commandstats")["cmdstat_incr"]["calls"]) == 1
    await pool.aclose()


async def test_a_store_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    with store_server("valkey", tmp_path) as (url, server):
        pool = open_pool(url, timeout_s=2)
        client = Redis(connection_pool=pool)
        await ask(client, "ECHO", "one")
        server.stop()
        with pytest.raises(StoreUnavailable):
            await ask(client, "ECHO", "two")
        await pool.aclose()
