"""Providers that are replaced while requests are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from proxy.domain.billing.settlement import Served
from proxy.domain.catalog import Deployment
from proxy.domain.errors import NoConnectionLeft, UpstreamUnreachable
from proxy.domain.requests.image import parse_image_request
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import Observation
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
            await asyncio.gather(*pool._retiring.values(), return_exceptions=True)


async def test_what_stays_as_it_is_keeps_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool([ONE, TWO], [], Metrics())
    with quick(monkeypatch):
        before = dict(pool._clients)
        pool.replace([MOVED, TWO], [])
        assert pool._clients["two"] is before["two"]
        assert pool._clients["one"].provider == MOVED
        await closed(pool)
        assert before["one"].http.closed
        assert not pool._clients["one"].http.closed
    await pool.close()


async def test_what_has_gone_is_closed_when_nothing_of_it_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool([ONE, TWO], [], Metrics())
    with quick(monkeypatch):
        client = pool._clients["one"]
        client.in_use = 1
        pool.replace([TWO], [])
        await asyncio.sleep(0.02)
        # Requests that were admitted before may still ask it.
        assert (pool._clients["one"] is client, client.http.closed) == (True, False)
        client.in_use = 0
        await closed(pool)
        assert (set(pool._clients), client.http.closed) == ({"two"}, True)
    await pool.close()


# A provider's life, as reloads of the configuration tell it: what is configured after each of them, and whether the
# client of the beginning serves then, and is closed in the end.
LIVES: dict[str, tuple[list[list[Provider]], bool, bool]] = {
    "there": ([[ONE, TWO]], True, False),
    "there twice": ([[ONE, TWO], [ONE, TWO]], True, False),
    "gone": ([[TWO]], False, True),
    "gone twice": ([[TWO], [TWO]], False, True),
    "back": ([[TWO], [ONE, TWO]], True, False),
    "back and gone again": ([[TWO], [ONE, TWO], [TWO]], False, True),
    "moved": ([[MOVED, TWO]], False, True),
    "moved and back": ([[MOVED, TWO], [ONE, TWO]], True, False),
    "gone and then moved": ([[TWO], [MOVED, TWO]], False, True),
    "gone, moved and back": ([[TWO], [MOVED, TWO], [ONE, TWO]], True, False),
}


@pytest.mark.parametrize(("reloads", "serves", "is_closed"), LIVES.values(), ids=LIVES)
async def test_a_providers_life(
    reloads: list[list[Provider]], monkeypatch: pytest.MonkeyPatch, *, serves: bool, is_closed: bool
) -> None:
    pool = Pool([ONE, TWO], [], Metrics())
    first, other = pool._clients["one"], pool._clients["two"]
    # A minute passes only after the last reload.
    monkeypatch.setattr(pool_module, "RETIRE_AFTER_S", 0.05)
    monkeypatch.setattr(pool_module, "RETIRE_LOOK_S", 0.001)
    for configured in reloads:
        pool.replace(configured, [])
        await asyncio.sleep(0)
    await closed(pool)
    assert (pool._clients.get("one") is first, first.http.closed) == (serves, is_closed)
    assert pool.client("two") is other
    for provider in reloads[-1]:
        assert pool.client(provider.name).provider == provider
        assert not pool.client(provider.name).http.closed
    if "one" not in {provider.name for provider in reloads[-1]}:
        with pytest.raises(UpstreamUnreachable):
            pool.client("one")
    await pool.close()
    assert first.http.closed


async def test_a_deployment_whose_provider_has_gone_for_good_takes_no_slot() -> None:
    places = tuple(Deployment(name, "image-1") for name in ("one", "two"))
    model = make_model(deployments=places)
    pool = Pool([ONE, TWO], [model], Metrics())
    balancer = pool._balancer_of(model)
    for client in (pool._clients.pop("one"), pool._clients.pop("two")):
        await client.close()
    request = parse_image_request(b'{"prompt":"x"}')
    upstream = pool.ask(request, model, Served(), Observation("req_1", "/"), lambda: False)
    with pytest.raises(UpstreamUnreachable):
        await upstream.__aenter__()
    assert [target.in_flight for target in balancer.targets] == [0, 0]
    await pool.close()


async def test_a_request_waits_for_a_connection_and_not_for_ever() -> None:
    provider = replace(ONE, max_connections=1, pool_timeout_s=0.05)
    pool = Pool([provider], [], Metrics())
    client = pool.client("one")
    assert await client.take_connection() == 0.0
    waiting = asyncio.create_task(client.take_connection())
    await asyncio.sleep(0)
    client.give_connection_back()
    assert await waiting >= 0.0
    with pytest.raises(NoConnectionLeft):
        await client.take_connection()
    assert client.in_use == 1
    client.give_connection_back()
    assert await client.take_connection() == 0.0
    client.give_connection_back()
    assert client.in_use == 0
    await pool.close()


async def test_the_end_of_the_process_closes_what_was_retired_too() -> None:
    pool = Pool([ONE, TWO], [], Metrics())
    clients = list(pool._clients.values())
    pool.replace([MOVED], [])
    await pool.close()
    assert [client.http.closed for client in (*clients, *pool._clients.values())] == [True] * 4


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
