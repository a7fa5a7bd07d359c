from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from tests.support.gateways import configuration, running_gateway, sample_provider
from tests.support.stores import store_server

REQUESTS = 500
AFFORDABLE = 37


async def spend(urls: list[str], key: str) -> list[int]:
    """The statuses of many requests at once, over all gateways."""

    async def one(session: aiohttp.ClientSession, url: str) -> int:
        body = {"model": "acme/image-1", "prompt": "[sample delay_ms=300] a translucent blue cube"}
        async with session.post(f"{url}/v1/images/generations", json=body) as response:
            await response.read()
            return response.status

    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:
        return await asyncio.gather(*(one(session, urls[number % len(urls)]) for number in range(REQUESTS)))


async def test_500_at_once_over_two_gateways_spend_what_there_is_and_no_more(backend: str, tmp_path: Path) -> None:
    with (
        store_server(backend, tmp_path) as (store_url, _server),
        sample_provider(tmp_path) as provider,
        running_gateway(tmp_path / "a", configuration(store_url, provider.url)) as first,
        running_gateway(tmp_path / "b", configuration(store_url, provider.url)) as second,
    ):
        key = first.make_key(AFFORDABLE * 5_000 + 4_999)
        statuses = await spend([first.url, second.url], key)
        assert statuses.count(200) == AFFORDABLE
        assert statuses.count(429) == REQUESTS - AFFORDABLE
        assert provider.images_made() == AFFORDABLE
        assert second.quota(key)["posted"] == AFFORDABLE * 5_000
        assert len(second.ledger(key)) == AFFORDABLE
        first.check_books(key)
        second.check_books(key)
