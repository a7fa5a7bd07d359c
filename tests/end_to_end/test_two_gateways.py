from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import aiohttp

from tests.support.gateways import configuration, key_id, running_gateway, sample_provider
from tests.support.stores import store_server

REQUESTS = 500
AFFORDABLE = 37


async def spend(urls: list[str], key: str, *, requests: int = REQUESTS, users: int = 1) -> list[int]:
    """The statuses of many requests at once, over all gateways."""

    async def one(session: aiohttp.ClientSession, url: str, user: int) -> int:
        prompt = "[sample delay_ms=300] a translucent blue cube"
        body = {"model": "acme/image-1", "prompt": prompt, "user": f"user {user}"}
        async with session.post(f"{url}/v1/images/generations", json=body) as response:
            await response.read()
            return response.status

    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:
        return await asyncio.gather(
            *(one(session, urls[number % len(urls)], number % users) for number in range(requests))
        )


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


async def test_no_user_over_two_gateways_spends_more_than_its_own_and_all_together_what_the_key_has(
    tmp_path: Path,
) -> None:
    with (
        store_server("valkey", tmp_path) as (store_url, _server),
        sample_provider(tmp_path) as provider,
        running_gateway(tmp_path / "a", configuration(store_url, provider.url)) as first,
        running_gateway(tmp_path / "b", configuration(store_url, provider.url)) as second,
    ):
        # Seven users with three images each could spend 21; user 0 may have one.
        per_user = {"quota_units_per_day": 15_000, "users": {"user 0": {"quota_units_per_month": 5_000}}}
        key = first.make_key(17 * 5_000, limits_per_user=per_user)
        statuses = await spend([first.url, second.url], key, requests=91, users=7)
        assert (statuses.count(200), statuses.count(429)) == (17, 74)
        entries = second.ledger(key)
        charged = Counter(entry["user"] for entry in entries)
        assert max(charged.values()) <= 3
        assert charged["user 0"] <= 1
        for user in range(7):
            found = second.admin("GET", f"/admin/v1/keys/{key_id(key)}/usage?user=user%20{user}").json["user"]
            day = found["limits"]["quota_units_per_day"]
            assert (day["posted"], day["reserved"]) == (charged[f"user {user}"] * 5_000, 0)
        first.check_books(key)
