from __future__ import annotations

from dataclasses import replace

import pytest

from tests.benchmarks.capacity.sizing import Assumptions, Figures, show, size

FIGURES = Figures(
    admit_us=40,
    settle_us=60,
    small_us=500,
    large_us=5_000,
    entry_bytes=500,
    settled_id_bytes=100,
    idempotency_bytes=300,
    key_bytes=1_000,
    team_bytes=10_000,
    connection_bytes=10_000,
    in_flight_bytes=20_000,
    worker_bytes=100_000_000,
)
ASSUMED = Assumptions(
    images_per_request=2,
    render_seconds=10,
    idle_connections=0,
    idempotent_share=0.5,
    ledger_days=2,
    settled_id_days=1,
    keys=1_000_000,
    teams=1_000,
    replicas=1,
    busy_share=0.5,
    full_share=0.5,
    shard_gb=32,
    machine_vcpus=8,
    machine_gb=64,
    machine_gbit=10,
    usd_per_vcpu_month=20,
    usd_per_gb_month=4,
)


def sized(images: int, assumed: Assumptions = ASSUMED, figures: Figures = FIGURES) -> dict[str, float]:
    return {line.name: line.value for line in size(images, figures, assumed)}


def test_gateways_by_hand() -> None:
    found = sized(20_000)
    assert found["requests/s"] == 10_000
    assert found["gateway cores, addresses"] == 10
    assert found["gateway cores, 4 MB answers"] == 100
    assert found["requests in flight"] == 100_000
    # 100,000 at 30 kB, and ten workers of 100 MB.
    assert found["gateway memory, GB"] == pytest.approx(4)
    assert found["gateway machines, addresses"] == 2
    # 10,000 x 4 MB are 320 Gbit/s, and half of a card's ten are used.
    assert found["gateway machines, 4 MB answers"] == 64
    assert found["dollars a month for gateways, addresses"] == 10 * 20 + 4 * 4


def test_stores_by_hand() -> None:
    found = sized(20_000)
    assert found["store cores"] == pytest.approx(2)
    # 864 million requests a day at 1,000 + 100 + 150 bytes, a million keys, a thousand teams; half full.
    assert found["store memory, GB"] == pytest.approx((864e6 * 1_250 + 1e9 + 1e7) / 1e9 / 0.5)
    assert found["store shards"] == 68
    assert found["store machines"] == 68
    assert found["dollars a month for the store's memory"] == round(2_162.02 * 2 * 4)


def test_a_store_that_keeps_little_needs_as_many_shards_as_cores() -> None:
    little = replace(ASSUMED, ledger_days=0, settled_id_days=0, idempotent_share=0, keys=10)
    found = sized(20_000, replace(little, busy_share=0.4))
    assert found["store shards"] == 3
    assert found["store machines"] == 3


def test_a_small_load_still_has_two_of_each() -> None:
    found = sized(1)
    assert (found["gateway machines, addresses"], found["store machines"]) == (2, 2)
    assert sized(1, replace(ASSUMED, replicas=0))["store machines"] == 1


@pytest.mark.parametrize("images", [1_000, 10_000, 100_000])
def test_more_images_need_no_less(images: int) -> None:
    more, fewer = sized(images * 2), sized(images)
    assert all(more[name] >= fewer[name] for name in fewer)


@pytest.mark.parametrize(
    ("value", "text"), [(0.1, "0.10"), (1, "1"), (9.999, "10.00"), (13.64, "13.6"), (790.6, "791"), (1e6, "1,000,000")]
)
def test_numbers_are_shown_with_what_says_something(value: float, text: str) -> None:
    assert show(value) == text
