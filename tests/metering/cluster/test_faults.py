"""What happens to a Cluster under load: each request is charged once, and only teams without a primary are refused."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest

from proxy.domain.billing.settlement import Delivery, settle
from proxy.domain.errors import StoreUnavailable
from proxy.metering.redis.cluster import runner as cluster_runner
from proxy.metering.redis.durability import survey
from proxy.metering.redis_store import recent
from tests.metering.cluster.load import in_thread, load_on, owners, teams_of_all
from tests.metering.conftest import open_bench
from tests.support.clusters import Cluster, cluster_of, slot_of
from tests.support.polling import eventually
from tests.support.processes import wait_for
from tests.support.stores import BACKENDS


@pytest.fixture(scope="module", params=BACKENDS)
def moving(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Cluster whose slots these tests move about."""
    with cluster_of(request.param, tmp_path_factory.mktemp(f"moving-{request.param}")) as cluster:
        yield cluster


@pytest.fixture(params=BACKENDS)
def failing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A Cluster whose servers a test stops."""
    with cluster_of(request.param, tmp_path_factory.mktemp(f"failing-{request.param}")) as cluster:
        yield cluster


async def test_a_slot_is_moved_key_by_key(moving: Cluster) -> None:
    teams = teams_of_all(moving, 3, "move")
    source, target = owners(moving)[:2]
    moved = teams[source.port][0]
    async with load_on(moving, [team for some in teams.values() for team in some]) as load:
        half = asyncio.Event()
        loop = asyncio.get_running_loop()

        def pause() -> None:
            loop.call_soon_threadsafe(half.set)
            # Calls that need keys of both nodes are refused with TRYAGAIN meanwhile.
            asyncio.run_coroutine_threadsafe(load.all_go_on(5, teams[target.port]), loop).result(20)

        await in_thread(lambda: moving.move(slot_of(moved), source, target, pause=pause))
        assert half.is_set()
        await load.all_go_on()
    assert not load.refused
    assert moving.owner(moved) is target


async def test_a_slot_is_moved_at_once(moving: Cluster) -> None:
    if moving.backend != "valkey":
        return
    teams = teams_of_all(moving, 3, "atomic")
    source, target = owners(moving)[1:3]
    moved = teams[source.port][0]
    slot = slot_of(moved)
    async with load_on(moving, [team for some in teams.values() for team in some]) as load:
        await in_thread(source.ask, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)
        await eventually(lambda: in_thread(lambda: moving.owner(moved) is target))
        await load.all_go_on()
    assert not load.refused


async def test_a_node_is_added_and_removed(moving: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_runner, "IDLE_S", 0.2)
    teams = teams_of_all(moving, 2, "grow")
    source = owners(moving)[0]
    moved = teams[source.port][0]
    async with load_on(moving, [team for some in teams.values() for team in some]) as load:
        added = await in_thread(moving.add)
        await in_thread(lambda: moving.move(slot_of(moved), source, added))
        await load.all_go_on()
        node = f"127.0.0.1:{added.port}"
        registry = load.bench.metrics.registry
        assert registry.get_sample_value("lightmeter_store_node_up", {"node": node}) == 1
        await in_thread(lambda: moving.move(slot_of(moved), added, source))
        await in_thread(moving.remove, added)
        await load.all_go_on()
        await eventually(lambda: registry.get_sample_value("lightmeter_store_node_up", {"node": node}) is None)
    assert not load.refused


async def test_money_that_is_owed_waits_for_no_replica_and_nobody_for_those_of_other_nodes(moving: Cluster) -> None:
    waiting, other = (moving.teams(node, 1, "owed")[0] for node in owners(moving)[:2])
    replica = moving.replica_of(moving.owner(waiting))
    assert replica.server is not None
    async with open_bench(moving.url, timeout_s=1, min_replicas=1) as bench:
        keys = {team: await bench.make_key(10, team=team) for team in (waiting, other)}
        held = await bench.admit(keys[waiting], "req_1", 1)
        replica.server.process.send_signal(signal.SIGSTOP)
        try:
            refused = asyncio.create_task(bench.admit(keys[waiting], "req_2", 1))
            await bench.store.settle(settle(held, Delivery(images=1)))
            await bench.admit(keys[other], "req_3", 1)
            # Half of the timeout is the replica's.
            assert not refused.done()
            with pytest.raises(StoreUnavailable):
                await refused
        finally:
            replica.server.process.send_signal(signal.SIGCONT)
        assert (await bench.record(keys[waiting])).quota.posted == 1


async def test_a_node_whose_connection_for_admissions_was_lost_once_is_waited_for_ever_after(moving: Cluster) -> None:
    (team,) = moving.teams(owners(moving)[0], 1, "once")
    replica = moving.replica_of(moving.owner(team))
    assert replica.server is not None
    async with open_bench(moving.url, timeout_s=1, min_replicas=1) as bench:
        key = await bench.make_key(10, team=team)
        await bench.admit(key, "req_1", 1)
        runner: Any = bench.runner
        (admissions,) = {each._admissions for each in runner._nodes.values() if each._admissions._connection}
        replica.server.process.send_signal(signal.SIGSTOP)
        try:
            lost = asyncio.create_task(bench.admit(key, "req_2", 1))
            await eventually(lambda: admissions._wait is not None)
            first = admissions._connection
            first.abort()
            await eventually(lambda: admissions._connection not in (None, first))
        finally:
            replica.server.process.send_signal(signal.SIGCONT)
        await lost
        # The other connection has been up all the time, and is not made again.
        assert not runner._failing_since


async def test_a_primary_is_killed_and_its_replica_takes_over(failing: Cluster) -> None:
    teams = teams_of_all(failing, 3, "kill")
    lost = failing.primaries[0]
    assert lost.server is not None
    others = [team for port, some in teams.items() if port != lost.port for team in some]
    # What a replica has not got is posted again, so admissions wait for it: what they reserve is not lost either.
    async with load_on(failing, [*teams[lost.port], *others], timeout_s=1, min_replicas=1) as load:
        load.longest_s.clear()
        lost.server.stop(signal.SIGKILL)
        await load.all_go_on(3, others)
        await eventually(lambda: in_thread(lambda: failing.owner(teams[lost.port][0]) is not lost), within_s=20)
        # Without a replica its teams are refused for as long as admissions want one.
        await in_thread(failing.start, lost)
        await load.all_go_on()
        assert not set(load.refused) & set(others)
        assert max(load.longest_s[team] for team in others) < min(load.longest_s[team] for team in teams[lost.port])
        assert load.bench.metrics.registry.get_sample_value("lightmeter_store_up") == 1


async def test_what_a_replica_had_not_received_is_posted_again(
    failing: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fail-over takes longer than settlements are remembered for where others come.
    monkeypatch.setattr(recent, "MEMORY_S", 0.3)
    teams = teams_of_all(failing, 2, "behind")
    lost = failing.primaries[2]
    replica = failing.replica_of(lost)
    assert lost.server is not None
    assert replica.server is not None
    async with load_on(failing, [team for some in teams.values() for team in some]) as load:
        replica.server.process.send_signal(signal.SIGSTOP)
        try:
            # What is in its socket already would be read when it wakes up.
            await in_thread(lost.ask, "CLIENT", "KILL", "TYPE", "replica")
            await load.all_go_on(5, teams[lost.port])
            lost.server.stop(signal.SIGKILL)
        finally:
            replica.server.process.send_signal(signal.SIGCONT)
        await load.all_go_on()
        registry = load.bench.metrics.registry
        assert registry.get_sample_value("lightmeter_reposted_settlements_total") >= 1  # type: ignore[operator]


async def test_a_primary_without_a_replica_hangs(failing: Cluster) -> None:
    lost = failing.primaries[1]
    replica = failing.replica_of(lost)
    assert lost.server is not None
    assert replica.server is not None
    replica.server.stop(signal.SIGKILL)
    teams = teams_of_all(failing, 3, "hang")
    others = [team for port, some in teams.items() if port != lost.port for team in some]
    (newcomer,) = failing.teams(failing.primaries[0], 1, "new")
    async with load_on(failing, [*teams[lost.port], *others], timeout_s=0.5) as load:
        load.longest_s.clear()
        lost.server.process.send_signal(signal.SIGSTOP)
        began = monotonic()
        try:
            await eventually(lambda: all(load.refused[team] for team in teams[lost.port]))
            assert monotonic() - began < 15
            await load.all_go_on(20, others)
            await load.bench.make_key(1, team=newcomer)
            findings = await survey(load.bench.pool, min_replicas=0)
            assert f"127.0.0.1:{lost.port}: it does not answer (in time)" in [each.text for each in findings]
            # The gateway is of use to the teams that it can serve.
            assert await load.bench.runner.ping()
            assert load.bench.metrics.registry.get_sample_value("lightmeter_store_up") == 0
        finally:
            lost.server.process.send_signal(signal.SIGCONT)
        await load.all_go_on()
        assert not set(load.refused) & set(others)
        assert max(load.longest_s[team] for team in others) < min(load.longest_s[team] for team in teams[lost.port])
        wait_for(lambda: load.bench.runner.healthy, "the store to be well")
