"""A healthy store is never said to be away: readers that find every connection in use wait for one."""

from __future__ import annotations

import asyncio
from collections import Counter

import aiohttp
import pytest

from tests.support.gateways import ADMIN_TOKEN, RunningGateway, key_id

TEAM = "readers"
PATHS = (
    "/admin/v1/keys", "/admin/v1/keys?team={team}", "/admin/v1/keys/{key}", "/admin/v1/keys/{key}/usage",
    "/admin/v1/teams", "/admin/v1/teams/{team}", "/admin/v1/teams/{team}/usage", "/admin/v1/ledger",
    "/admin/v1/ledger?team={team}&key={key}", "/admin/v1/ledger/books", "/admin/v1/audit",
)  # fmt: skip


@pytest.fixture(scope="module")
def key(gateway: RunningGateway) -> str:
    """One of several keys, which has been used."""
    made = [gateway.make_key(10**6, team=TEAM) for _ in range(20)]
    for _ in range(5):
        assert gateway.generate(made[0]).status == 200
    return made[0]


async def read_at_once(urls: list[str], secret: str) -> Counter[int]:
    """How often each status came."""
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"Authorization": f"Bearer {secret}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def read(url: str) -> int:
            async with session.get(url) as answer:
                await answer.read()
                return answer.status

        return Counter(await asyncio.gather(*map(read, urls)))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("count", [60, 150])
async def test_so_many_reads_of_the_admin_api_at_once(gateway: RunningGateway, key: str, path: str, count: int) -> None:
    url = gateway.admin_url + path.format(team=TEAM, key=key_id(key))
    assert await read_at_once([url] * count, ADMIN_TOKEN) == {200: count}


async def test_reads_of_all_kinds_beside_those_of_clients(gateway: RunningGateway, key: str) -> None:
    urls = [gateway.admin_url + path.format(team=TEAM, key=key_id(key)) for path in PATHS] * 14
    public = [f"{gateway.url}/v1/{path}" for path in ("key", "models")] * 75
    of_admins, of_clients = await asyncio.gather(read_at_once(urls, ADMIN_TOKEN), read_at_once(public, key))
    assert (of_admins, of_clients) == ({200: len(urls)}, {200: len(public)})
    assert (await asyncio.to_thread(gateway.generate, key)).status == 200
