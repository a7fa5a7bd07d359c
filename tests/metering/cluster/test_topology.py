from __future__ import annotations

import asyncio

import pytest

from proxy.metering.redis.cluster.address import parse_cluster_url
from proxy.metering.redis.cluster.slots import slot_of_command, slot_of_key, tag_within
from proxy.metering.redis.cluster.topology import SlotRange, Topology, read_slot_map
from proxy.metering.redis.connection import ConnectError, pack
from tests.support.clusters import Cluster
from tests.support.processes import free_port

INFO = b"cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_current_epoch:7\r\n"


def test_what_a_node_says_is_read() -> None:
    slots = [[0, 99, [b"a", 1, b"id"], [b"b", 2, b"id"]], [100, 16_383, [b"", 3, b"id", [b"hostname", b"x"]]]]
    found = read_slot_map(("asked", 9), INFO, slots)
    assert list(found.ranges) == [SlotRange(0, 99, ("a", 1)), SlotRange(100, 16_383, ("asked", 3))]
    assert found.nodes == {("asked", 9), ("a", 1), ("b", 2), ("asked", 3)}
    assert (found.epoch, found.is_whole) == (7, True)
    # An endpoint that is not known is null, or a question mark.
    assert read_slot_map(("asked", 9), INFO, [[0, 1, [None, 3]], [2, 3, [b"?", 4]]]).ranges[1].primary == ("asked", 4)
    with pytest.raises(ValueError, match="has no slots"):
        read_slot_map(("asked", 9), INFO, [])


@pytest.mark.parametrize("team", ["acme", "a", "x" * 30])
def test_a_call_goes_where_its_keys_are(team: str) -> None:
    key = f"lm:{{{team}}}:key:{team}_1"
    assert slot_of_command(pack("EVALSHA", "0" * 40, 1, key, "{not}")) == slot_of_key(key)
    assert slot_of_command(pack("EVALSHA", "0" * 40, 1, "lm:ping", "ping")) == slot_of_key("lm:ping")
    assert 100 <= slot_of_key(f"lm:ping:{{{tag_within(100, 120)}}}") <= 120


async def test_one_node_that_answers_is_enough(cluster: Cluster) -> None:
    away = f"127.0.0.1:{free_port()}"
    topology = Topology(parse_cluster_url(f"redis+cluster://{away},127.0.0.1:{cluster.nodes[-1].port}"), timeout_s=2)
    await asyncio.gather(*(topology.refresh() for _ in range(5)))
    assert {port for _, port in topology.primaries} == {node.port for node in cluster.primaries}
    assert topology.owner(0) is not None
    await topology.close()


async def test_a_server_that_is_no_cluster_and_nobody_at_all_are_told_apart() -> None:
    topology = Topology(parse_cluster_url(f"redis+cluster://127.0.0.1:{free_port()}"), timeout_s=1)
    with pytest.raises(ConnectError, match="no node of the Cluster answers"):
        await topology.refresh()
    assert not topology.is_known
    await topology.close()
