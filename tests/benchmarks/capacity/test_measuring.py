"""Every cost is measured on the real thing, here at a small scale: what is found is of the right order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.capacity import gateways, stores

pytestmark = pytest.mark.slow


async def test_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "SETTLING_S", 0)
    monkeypatch.setattr(stores, "STILL_S", 0.05)
    scale = stores.Scale(teams=50, keys=1_000, real_entries=50, entries=5_000, requests=100)
    (tmp_path / "costs").mkdir()
    costs, version = await stores.measure_costs("valkey", tmp_path / "costs", scale)
    assert version.startswith("Valkey ")
    assert 5 < costs.admit_us < 1_000
    assert 5 < costs.settle_us < 1_000
    kept = await stores.measure_bytes(tmp_path, scale)
    short, *longer = kept.entries.values()
    assert 200 < short < longer[0] < longer[1] < longer[2] < 2_000
    assert 50 < kept.settled_id < 1_000
    assert 100 < kept.idempotency < 2_000
    assert 500 < kept.key < 5_000
    assert 500 < kept.team < 50_000


async def test_a_gateway(tmp_path: Path) -> None:
    found = await gateways.measure(tmp_path, gateways.Scale(in_flight=400, small_requests=64, large_requests=8))
    assert 50 < found.small_us < found.large_us < 1_000_000
    assert found.worker > 10_000_000
    assert found.connection > 0
    assert found.in_flight > 0
    # A megabyte that is nobody's is 2.5 kB of each of so few; the manual's figures are those of 9,000.
    assert found.connection + found.in_flight < 40_000
