"""TLS and passwords, to sentinels and their store, and to the nodes of a Cluster; Debian's Redis speaks TLS."""

from __future__ import annotations

import logging
import signal
from pathlib import Path

import psutil
import pytest

from proxy.domain.billing.settlement import Delivery, settle
from proxy.domain.errors import StoreUnavailable
from proxy.metering.redis.durability import survey
from proxy.metering.redis.pool import ask, open_pool, reads_of
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
        async with open_bench(store.url, timeout_s=5, min_replicas=1) as bench:
            await use(bench)
            held = await bench.admit(await bench.make_key(10_000), "req_2", 5_000)
            store.primary.stop(9)

            async def settled() -> bool:
                try:
                    await bench.store.settle(settle(held, Delivery(images=1)))
                except StoreUnavailable:
                    return False
                return True

            await eventually(settled, within_s=60)
            # The sentinel that is asked here may hear of it later than the one that led the fail-over.
            await eventually(lambda: store.primary_of_now() != store.primary_port)
        for wrong in (
            # Nobody that one trusts has signed it.
            store.url.partition("&ssl_ca_certs")[0],
            store.url.replace("sentinel_password=", "sentinel_password=not-"),
        ):
            async with open_bench(wrong, timeout_s=1) as stranger:
                assert not await stranger.runner.ping()


async def test_a_store_that_stands_still_over_tls_is_let_go_of(tmp_path: Path) -> None:
    with watched_store(tmp_path, "redis", tls=True) as store:
        pool = open_pool(store.url, timeout_s=2)
        redis = reads_of(pool)
        assert await ask(redis, "ECHO", "one") == b"one"
        stopped = [store.primary, *store.sentinels]
        for server in stopped:
            server.process.send_signal(signal.SIGSTOP)
        try:
            # It raises nothing, and goes on to the sentinels.
            await pool.aclose()
        finally:
            for server in stopped:
                server.process.send_signal(signal.SIGCONT)
        await eventually(lambda: not connections_to(store.primary_port, *store.sentinel_tls_ports))


def connections_to(*ports: int) -> list[int]:
    """The ports of these to which this process has a connection."""
    theirs = [each.raddr[1:] for each in psutil.Process().net_connections("tcp")]
    return [port for port in ports if (port,) in theirs]


async def test_a_cluster_over_tls_with_a_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with cluster_of("redis", tmp_path, tls=True, password="s/ecret") as cluster:
        url = cluster.url.replace("s/ecret", "s%2Fecret")
        async with open_bench(url, timeout_s=10, min_replicas=1) as bench:
            await use(bench)
            for number in range(12):
                await bench.make_key(1, team=f"team-{number}")
            assert len((await bench.teams.page(cursor=None, limit=100)).items) == 13
            assert {port for _, port in bench.runner._nodes} == {node.tls_port for node in cluster.primaries}  # type: ignore[attr-defined]
        pool = open_pool(url, timeout_s=20)
        texts = [finding.text for finding in await survey(pool, min_replicas=1) if finding.level == logging.ERROR]
        await pool.aclose()
        assert texts == [
            "appendonly is no: a crash of the store loses everything, quota and ledger: set appendonly yes"
        ]
        for wrong in (cluster.url.replace("s/ecret", "wrong"), url.partition("?")[0]):
            async with open_bench(wrong, timeout_s=1) as stranger:
                assert not await stranger.runner.ping()
        assert "s/ecret" not in caplog.text
