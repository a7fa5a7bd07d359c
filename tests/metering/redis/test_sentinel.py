"""A store whose primary Sentinel knows: its address, and a fail-over under a meter's feet."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.domain.billing.settlement import Delivery, settle
from proxy.domain.errors import StoreUnavailable
from proxy.metering.redis.sentinel import parse_sentinel_url
from tests.metering.conftest import open_bench
from tests.support.polling import eventually
from tests.support.processes import free_port
from tests.support.sentinels import watched_store


def test_an_address_is_read() -> None:
    address = parse_sentinel_url("redis+sentinel://ann:p%40ss@a:1,b,[::1]:3/quota?db=2&sentinel_password=s")
    assert address.sentinels == (("a", 1), ("b", 26_379), ("::1", 3))
    assert address.service == "quota"
    assert address.store_options == {"username": "ann", "password": "p@ss", "db": 2}
    assert address.sentinel_options == {"password": "s"}


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis+sentinel://a:1", "with the name"),
        ("redis+sentinel:///quota", "with the name"),
        ("redis+sentinel://a:1/quota/0", "with the name"),
        ("redis+sentinel://a:x/quota", "host:port"),
        ("redis+sentinel://a:1,,b:2/quota", "host:port"),
        ("redis+sentinel://a:99999/quota", "host:port"),
        ("redis+sentinel://a:1/quota?db=x", "db"),
        ("redis+sentinel://a:1/quota?timeout=1", "options"),
    ],
)
def test_what_is_wrong_with_an_address_is_told(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_sentinel_url(url)


async def test_the_meter_follows_a_fail_over(tmp_path: Path) -> None:
    with watched_store(tmp_path) as store:
        async with open_bench(store.url, timeout_s=4, min_replicas=1) as bench:
            key = await bench.make_key(100_000)
            await bench.store.settle(settle(await bench.admit(key, "req_1", 5_000), Delivery(images=1)))
            held = await bench.admit(key, "req_2", 5_000)
            store.primary.stop(9)
            with pytest.raises(StoreUnavailable):
                await bench.admit(key, "req_3", 5_000)

            async def settled() -> bool:
                try:
                    await bench.store.settle(settle(held, Delivery(images=1)))
                except StoreUnavailable:
                    return False
                return True

            await eventually(settled, within_s=60)
            # The sentinel that is asked here may hear of it later than the one that led the fail-over.
            await eventually(lambda: store.primary_of_now() != store.primary_port)
            # Both: the scripts' connection and the pool that reads.
            assert (await bench.record(key)).quota.posted == 10_000
            await bench.check_books(key)


async def test_no_sentinel_is_a_store_that_cannot_be_reached() -> None:
    async with open_bench(f"redis+sentinel://127.0.0.1:{free_port()}/quota", timeout_s=0.5) as bench:
        with pytest.raises(StoreUnavailable):
            await bench.store.reclaim("acme")
        with pytest.raises(StoreUnavailable):
            await bench.keys.page(None, cursor=None, limit=1)
