"""``lightmeter config check`` on a Cluster."""

from __future__ import annotations

import pytest

from proxy.cli.configuration.store_check import StoreCheck, check_store
from proxy.metering.redis.cluster.slots import slot_of_key
from proxy.metering.redis.runner import PING
from proxy.settings.sections import StoreSettings
from proxy.settings.settings import Settings
from tests.support.clusters import Cluster
from tests.support.processes import free_port


async def check(url: str, **more: int) -> StoreCheck:
    return await check_store(Settings(store=StoreSettings(url=url, timeout=1, **more)))


async def test_each_node_is_asked(cluster: Cluster) -> None:
    found = await check(cluster.url, min_replicas=1)
    assert found.mistakes == []
    assert [each.text.partition(":")[0] for each in found.findings] == ["appendonly is no"]
    one = cluster.primaries[0]
    one.ask("CONFIG", "SET", "cluster-require-full-coverage", "yes")
    try:
        texts = [each.text for each in (await check(cluster.url)).findings]
    finally:
        one.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
    (told,) = [text for text in texts if "cluster-require-full-coverage" in text]
    assert told.startswith(f"127.0.0.1:{one.port}: cluster-require-full-coverage is yes")


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
async def test_nobody_there_is_a_mistake(scheme: str) -> None:
    found = await check(f"{scheme}://127.0.0.1:{free_port()}")
    assert len(found.mistakes) == 1
    assert "the store cannot be used" in found.mistakes[0]


async def test_a_node_taken_for_a_server_leads_to_the_right_address(cluster: Cluster) -> None:
    owner = next(node for node in cluster.primaries if node.owns(slot_of_key(PING)))
    other = next(node for node in cluster.primaries if node is not owner)
    found = await check(f"redis://127.0.0.1:{other.port}")
    assert "redis+cluster://" in found.mistakes[0]
