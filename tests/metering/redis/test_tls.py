"""TLS and passwords, to sentinels and their store, and to the nodes of a Cluster; Debian's Redis speaks TLS."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from proxy.domain.billing.settlement import Delivery, settle
from proxy.domain.errors import StoreUnavailable
from proxy.metering.redis.durability import survey
from proxy.metering.redis.pool import open_pool
from tests.metering.conftest import Bench, open_bench
from tests.support.clusters import cluster_of
from tests.support.polling import eventually
from tests.support.sentinels import watched_store


async def use(bench: Bench) -> None:
    """Both ways to the store: scripts, and what the admin API reads."""
    key = await bench.make_key(10_000)
    await bench.store.settle(settle(await bench.admit(key, "req_1", 5_000), Delivery(images=1)))
    assert (await bench.record(key)).quota.posted == 5_000
    assert len((await bench.keys.page(None, cursor=None, limit=10)).items) == 1


async def test_sentinels_and_their_store_over_tls(tmp_path: Path) -> None:
    with watched_store(tmp_path, "redis", tls=True) as store:
        async with open_bench(store.url, timeout_s=2, min_replicas=1) as bench:
            await use(bench)
            held = await bench.admit(await bench.make_key(10_000), "req_2", 5_000)
            store.primary.stop(9)

            async def settled() -> bool:
                try:
                    await bench.store.settle(settle(held, Delivery(images=1)))
                except StoreUnavailable:
                    return False
                return True

            await eventually(settled)
            assert store.primary_of_now() != store.primary_port
        for wrong in (
            # Nobody that one trusts has signed it.
            store.url.partition("&ssl_ca_certs")[0],
            store.url.replace("sentinel_password=", "sentinel_password=not-"),
        ):
            async with open_bench(wrong, timeout_s=1) as stranger:
                assert not await stranger.runner.ping()


async def test_a_cluster_over_tls_with_a_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with cluster_of("redis", tmp_path, tls=True, password="s/ecret") as cluster:
        url = cluster.url.replace("s/ecret", "s%2Fecret")
        async with open_bench(url, min_replicas=1) as bench:
            await use(bench)
            for number in range(12):
                await bench.make_key(1, team=f"team-{number}")
            assert len((await bench.teams.page(cursor=None, limit=100)).items) == 13
            assert {port for _, port in bench.runner._nodes} == {node.tls_port for node in cluster.primaries}  # type: ignore[attr-defined]
        pool = open_pool(url, timeout_s=2)
        texts = [finding.text for finding in await survey(pool, min_replicas=1) if finding.level == logging.ERROR]
        await pool.aclose()
        assert texts == [
            "appendonly is no: a crash of the store loses everything, quota and ledger: set appendonly yes"
        ]
        for wrong in (cluster.url.replace("s/ecret", "wrong"), url.partition("?")[0]):
            async with open_bench(wrong, timeout_s=1) as stranger:
                assert not await stranger.runner.ping()
        assert "s/ecret" not in caplog.text
