"""Reads of a node that does not answer, while another one has taken over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import ConnectionError as NoConnectionError

from proxy.domain.errors import StoreUnavailable
from proxy.metering.redis.cluster import topology
from proxy.metering.redis.cluster.address import parse_cluster_url
from proxy.metering.redis.cluster.reads import ClusterReads
from tests.support.polling import eventually

INFO = b"cluster_state:ok\r\ncluster_current_epoch:7\r\n"
BEFORE, AFTER = 1, 2


@pytest.mark.parametrize("error", [StoreUnavailable(), NoConnectionError("refused")])
@pytest.mark.parametrize(
    "ask",
    [
        lambda reads: reads.ask("GET", "a"),
        lambda reads: reads.ask_primaries("TIME"),
    ],
)
async def test_the_next_one_who_asks_finds_the_node_that_has_taken_over(
    monkeypatch: pytest.MonkeyPatch, error: Exception, ask: Callable[[ClusterReads], Awaitable[Any]]
) -> None:
    primary = BEFORE
    told: list[int] = []

    async def tell(*_: Any, timeout_s: float) -> tuple[bytes, list[Any]]:
        assert timeout_s
        told.append(primary)
        return INFO, [[0, 16_383, [b"127.0.0.1", primary]]]

    async def send(redis: Redis, commands: Sequence[Any]) -> list[Any]:
        if redis.connection_pool.connection_kwargs["port"] == BEFORE:
            raise error
        return [b"reply"] * len(commands)

    monkeypatch.setattr(topology, "ask_once", tell)
    hosts = parse_cluster_url("redis+cluster://127.0.0.1:9")
    # Whoever finds no connection asks again until then.
    reads = ClusterReads(hosts, ConnectionPool.from_url, send, timeout_s=0.01)
    try:
        with pytest.raises(StoreUnavailable):
            await ask(reads)
        primary = AFTER
        with pytest.raises(StoreUnavailable):
            await ask(reads)
        await eventually(lambda: AFTER in told)
        assert await ask(reads) in (b"reply", {("127.0.0.1", AFTER): b"reply"})
    finally:
        await reads.aclose()
