"""What holds over several processes: two pools in this one, each with a column of its own."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from proxy.domain.catalog import Deployment, Model
from proxy.domain.errors import BodiesUnavailable, NoConnectionLeft, UploadsUnavailable
from proxy.machine.limits import Board, SharedLimits
from proxy.machine.segment import Segment
from proxy.telemetry.metrics import Metrics
from proxy.upstream.auth.auth import Auth
from proxy.upstream.breaker import Result
from proxy.upstream.pool import Pool
from proxy.upstream.provider import Provider
from proxy.web.intake.body_memory import BodyMemory
from proxy.web.intake.spool import Spools

MIB = 2**20


@pytest.fixture
def two() -> tuple[SharedLimits, SharedLimits]:
    """Those of two processes."""
    board = Board(Segment.create())
    return SharedLimits(board, 0), SharedLimits(board, 1)


async def test_a_providers_connections_are_those_of_all(two: tuple[SharedLimits, SharedLimits]) -> None:
    provider = Provider("one", "openai", "http://127.0.0.1:9", Auth(key="x"), max_connections=3, pool_timeout_s=0.05)
    pools = [Pool([provider], [], Metrics(), limits=limits) for limits in two]
    one, other = (pool.client("one") for pool in pools)
    for client in (one, other, one):
        assert await client.take_connection() < 0.05
    for client in (one, other):
        with pytest.raises(NoConnectionLeft):
            await client.take_connection()
    one.give_connection_back()
    await other.take_connection()
    for pool in pools:
        await pool.close()


async def test_a_deployment_has_room_for_all_together(two: tuple[SharedLimits, SharedLimits]) -> None:
    deployments = (Deployment("a", "image-1", max_in_flight=2), Deployment("b", "image-1", priority=1))
    model = Model("acme/image-1", "a", "image-1", Decimal(1), frozenset(), deployments=deployments)
    pools = [Pool([], [model], Metrics(), limits=limits) for limits in two]
    one, other = (pool._balancer_of(model) for pool in pools)
    begun = [each.begin(0.0, "key") for each in (one, other, one, other)]
    assert [attempt and attempt.target.deployment.provider for attempt in begun] == ["a", "a", "b", "b"]
    first = begun[0]
    assert first is not None
    one.end(first, 0.0, Result.OK)
    freed = other.begin(0.0, "key")
    assert freed is not None
    assert freed.target.deployment.provider == "a"
    for pool in pools:
        await pool.close()


def test_bodies_and_uploads_of_all_are_bounded_together(two: tuple[SharedLimits, SharedLimits], tmp_path: Path) -> None:
    one, other = (BodyMemory(8 * MIB, max_body_bytes=6 * MIB, shared=each.count("bodies")) for each in two)
    with one.open("a") as held, other.open("b") as refused:
        held.grow_to(6 * MIB)
        with pytest.raises(BodiesUnavailable):
            refused.grow_to(3 * MIB)
        refused.grow_to(2 * MIB)
    with other.open("b") as held:
        held.grow_to(6 * MIB)
    first, second = (Spools(tmp_path, max_disk_bytes=8 * MIB, shared=each.count("uploads")) for each in two)
    first.take_room("a", 6 * MIB)
    with pytest.raises(UploadsUnavailable):
        second.take_room("b", 3 * MIB)
    first.give_room("a", 6 * MIB)
    second.take_room("b", 8 * MIB)
