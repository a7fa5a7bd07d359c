"""The store's primary is killed under load, and Sentinel makes its replica the primary: nothing is lost or doubled."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from tests.support.gateways import RunningGateway, configuration, running_gateway, sample_provider
from tests.support.processes import wait_for
from tests.support.sentinels import watched_store

THREADS = 6


def ask_until(done: Event, gateway: RunningGateway, key: str) -> list[int]:
    statuses = []
    while not done.is_set():
        statuses.append(gateway.generate(key, prompt="[sample delay_ms=20] x").status)
    return statuses


def test_books_are_right_after_a_fail_over(tmp_path: Path) -> None:
    with watched_store(tmp_path / "store") as store, sample_provider(tmp_path) as provider:
        toml = configuration(store.url, provider.url, store={"timeout": 1}, accounting={"lease_seconds": 2})
        with running_gateway(tmp_path / "gateway", toml) as gateway, ThreadPoolExecutor(THREADS) as threads:
            key, done = gateway.make_key(), Event()
            asking = [threads.submit(ask_until, done, gateway, key) for _ in range(THREADS)]
            try:
                wait_for(lambda: provider.images_made() > 50, "requests to be under way")
                store.primary.stop(9)
                wait_for(lambda: store.primary_of_now() != store.primary_port, "the fail-over")
                made = provider.images_made()
                wait_for(lambda: provider.images_made() > made + 50, "requests to go on")
            finally:
                done.set()
            statuses = [status for each in asking for status in each.result()]
            assert set(statuses) <= {200, 503}
            wait_for(lambda: gateway.quota(key)["reserved"] == 0, "the leases to run out")
            wait_for(lambda: "journal_pending_settlements 0.0" in gateway.metrics(), "the journal to be empty")
            gateway.check_books(key)
            assert gateway.quota(key)["posted"] == 5_000 * statuses.count(200)
