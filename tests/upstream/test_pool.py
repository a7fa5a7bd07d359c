"""Providers that are replaced while requests are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from proxy.domain.catalog import Deployment
from proxy.telemetry.metrics import Metrics
from proxy.upstream import pool as pool_module
from proxy.upstream.pool import Pool
from proxy.upstream.provider import Provider
from tests.domain.samples import make_model

ONE = Provider("one", "openai", "http://127.0.0.1:1")
MOVED = Provider("one", "openai", "http://127.0.0.1:2")
TWO = Provider("two", "openai", "http://127.0.0.1:3")


@contextmanager
def quick(patch: pytest.MonkeyPatch) -> Iterator[None]:
    patch.setattr(pool_module, "RETIRE_AFTER_S", 0.0)
    patch.setattr(pool_module, "RETIRE_LOOK_S", 0.001)
    yield


async def closed(pool: Pool) -> None:
    """Wait until everything that has gone is closed."""
    async with asyncio.timeout(5):
        while pool._retiring:
            await asyncio.gather(*pool._retiring)


async def test_what_stays_as_it_is_keeps_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool([ONE, TWO], [], Metrics())
    with quick(monkeypatch):
        before = dict(pool._clients)
        pool.replace([MOVED, TWO], [])
        assert pool._clients["two"] is before["two"]
        assert pool._clients["one"].provider == MOVED
        await closed(pool)
        assert before["one"].session.closed
        assert not pool._clients["one"].session.closed
    await pool.close()


async def test_what_has_gone_is_closed_when_nothing_of_it_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool([ONE, TWO], [], Metrics())
    with quick(monkeypatch):
        client = pool._clients["one"]
        client.in_use = 1
        pool.replace([TWO], [])
        await asyncio.sleep(0.02)
        # Requests that were admitted before may still ask it.
        assert (pool._clients["one"] is client, client.session.closed) == (True, False)
        client.in_use = 0
        await closed(pool)
        assert (set(pool._clients), client.session.closed) == ({"two"}, True)
    await pool.close()


async def test_the_end_of_the_process_closes_what_was_retired_too() -> None:
    pool = Pool([ONE, TWO], [], Metrics())
    clients = list(pool._clients.values())
    pool.replace([MOVED], [])
    await pool.close()
    assert [client.session.closed for client in (*clients, *pool._clients.values())] == [True] * 4


async def test_a_deployed_model_that_stays_keeps_what_is_known_of_it() -> None:
    metrics = Metrics()
    places = tuple(Deployment(name, "image-1") for name in ("one", "two"))
    model, other = make_model(deployments=places), make_model(id="acme/other", deployments=places)
    pool = Pool([ONE, TWO], [model, other], metrics)
    known = pool._balancer_of(model)
    pool.replace([ONE, TWO], [model])
    assert pool._balancer_of(model) is known
    # An old request for the model that has gone goes its way, and leaves nothing behind.
    assert pool._balancer_of(other).model is other
    assert "acme/other" not in metrics.render().decode()
    await pool.close()
