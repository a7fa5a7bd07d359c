"""Quota for one, leases that run out as they are settled, clocks that are wrong, and a disk that is full."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.faults.scene import LEASE_S, PRICE, SETTLE, Scene, held, outcomes, ready, scene
from tests.support.gateways import SampleProvider
from tests.support.processes import wait_for

DELIVERED = ("request", "delivered", 1, PRICE)


async def statuses_of(url: str, key: str, count: int) -> list[int]:
    """``count`` requests at once."""

    async def one(session: aiohttp.ClientSession) -> int:
        body = {"model": "acme/image-1", "prompt": "[sample delay_ms=200] a cube"}
        async with session.post(f"{url}/v1/images/generations", json=body) as response:
            await response.read()
            return response.status

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers={"Authorization": f"Bearer {key}"}) as session:
        return await asyncio.gather(*(one(session) for _ in range(count)))


def test_five_hundred_at_once_with_quota_for_one(stage: Scene) -> None:
    gateway = stage.start_gateway()
    key = gateway.make_key(2 * PRICE - 1)
    made = stage.provider.images_made()
    statuses = asyncio.run(statuses_of(gateway.url, key, 500))
    assert (statuses.count(200), statuses.count(429)) == (1, 499)
    assert stage.provider.images_made() == made + 1
    assert outcomes(gateway, key) == [DELIVERED]
    stage.check(gateway, key)


def test_a_lease_that_runs_out_before_its_settlement_comes(stage: Scene) -> None:
    gateway, other = stage.start_gateway(), stage.start_gateway("other")
    key = gateway.make_key(PRICE)
    stage.provider.clear()
    request = stage.send(gateway, key, "[sample delay_ms=500] a cube")
    wait_for(lambda: len(stage.provider.requests()) == 1, "the request at the provider")
    # It stands still for longer than its lease, and somebody looks.
    gateway.server.process.send_signal(signal.SIGSTOP)
    wait_for(lambda: held(other, key) == 0, "the end of the lease")
    gateway.server.process.send_signal(signal.SIGCONT)
    assert request.result(timeout=20).status == 200
    found = stage.check(other, key)
    assert (found.expired, found.late) == (1, 1)
    assert outcomes(other, key) == [("request", "expired", 0, 0), ("late", "delivered", 1, PRICE)]
    # Others may have reserved what it held, so the charge is overage.
    assert other.ledger(key)[1]["overage"] == PRICE


@pytest.mark.parametrize("number", range(3))
def test_expiry_and_settlement_at_the_same_moment(stage: Scene, number: int) -> None:
    gateway, other = stage.start_gateway(), stage.start_gateway("other")
    key = gateway.make_key(10 * PRICE)
    stage.provider.clear()
    requests = [stage.send(gateway, key, "[sample delay_ms=300] a cube") for _ in range(10)]
    # An admission whose lease runs out before its gateway has heard of it is refused, and is another story.
    wait_for(lambda: len(stage.provider.requests()) == 10, "all requests at the provider")
    gateway.server.process.send_signal(signal.SIGSTOP)
    time.sleep(LEASE_S - 0.05 + number * 0.05)
    gateway.server.process.send_signal(signal.SIGCONT)
    while not all(each.done() for each in requests):
        held(other, key)
    assert [each.result().status for each in requests] == [200] * 10
    stage.check(other, key)
    assert other.quota(key)["posted"] == 10 * PRICE


CLOCK = """
import os, time
shift_s = float(os.environ.get("LIGHTMETER_TEST_CLOCK_SHIFT_S", "0"))
real_time, real_time_ns = time.time, time.time_ns
time.time = lambda: real_time() + shift_s
time.time_ns = lambda: real_time_ns() + int(shift_s * 1e9)
"""


@pytest.mark.parametrize("shift_s", [-3_600, 3_600])
def test_a_gateway_whose_clock_is_wrong(stage: Scene, tmp_path: Path, shift_s: int) -> None:
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock" / "sitecustomize.py").write_text(CLOCK)
    environment = {"PYTHONPATH": str(tmp_path / "clock"), "LIGHTMETER_TEST_CLOCK_SHIFT_S": str(shift_s)}
    wrong, right = stage.start_gateway("wrong", environment), stage.start_gateway("right")
    key = right.make_key(100 * PRICE)
    log = wrong.server.output.splitlines()[-1]
    assert abs(datetime.now(UTC).timestamp() + shift_s - _logged_at(log)) < 600
    request = stage.send(wrong, key, f"[sample delay_ms={LEASE_S * 1_500}] a cube")
    wait_for(lambda: held(right, key) == PRICE, "the reservation")
    while not request.done():
        held(right, key)
    assert request.result().status == 200
    # A settlement that waits in its journal is posted once, whatever it thinks the time is.
    stage.to_store.before(SETTLE, stage.to_store.go_away)
    assert stage.send(wrong, key).result(timeout=20).status == 200
    stage.to_store.come_back()
    stage.check(right, key)
    assert outcomes(right, key) == [DELIVERED] * 2
    now = datetime.now(UTC)
    for entry in right.ledger(key):
        assert abs(datetime.fromisoformat(entry["at"]) - now) < timedelta(minutes=5)
    usage = right.admin("GET", f"/admin/v1/keys/{right.ledger(key)[0]['key']}/usage").json
    assert set(usage["by_day"]) <= {f"{now:%Y-%m-%d}", f"{now - timedelta(minutes=5):%Y-%m-%d}"}


def _logged_at(line: str) -> float:
    return datetime.fromisoformat(json.loads(line)["time"]).timestamp()


@pytest.fixture
def full(provider: SampleProvider, tmp_path: Path) -> Iterator[Scene]:
    """A scene for a gateway that may write no file."""
    with scene(tmp_path, provider, logs={"requests": False}) as made:
        yield made


def test_a_disk_that_is_full_is_an_alarm_and_nothing_more_is_forwarded(full: Scene) -> None:
    gateway = full.start_gateway()
    key = gateway.make_key(100 * PRICE)
    request = full.send(gateway, key, "[sample delay_ms=7000] a cube")
    wait_for(lambda: held(gateway, key) == PRICE, "the reservation")
    process = psutil.Process(gateway.server.process.pid)
    process.rlimit(psutil.RLIMIT_FSIZE, (4_096, resource.RLIM_INFINITY))
    wait_for(lambda: ready(gateway)[0] == 503, "the alarm")
    assert ready(gateway) == (503, "journal_unavailable")
    assert "lightmeter_journal_up 0.0" in gateway.metrics()
    full.provider.clear()
    refused = gateway.generate(key)
    assert (refused.status, refused.json["error"]["code"]) == (503, "store_unavailable")
    assert "journal" in refused.json["error"]["message"]
    assert full.provider.requests() == []
    # What is in flight settles in the store, which is there.
    assert request.result(timeout=20).status == 200
    process.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_for(lambda: ready(gateway)[0] == 200, "the end of the alarm")
    assert gateway.generate(key).status == 200
    full.check(gateway, key)
    assert outcomes(gateway, key) == [DELIVERED] * 2


def test_a_full_disk_and_no_store_at_once_lose_nothing_while_the_gateway_lives(full: Scene) -> None:
    gateway = full.start_gateway()
    key = gateway.make_key(100 * PRICE)
    process = psutil.Process(gateway.server.process.pid)
    request = full.send(gateway, key, "[sample delay_ms=500] a cube")
    wait_for(lambda: held(gateway, key) == PRICE, "the reservation")
    process.rlimit(psutil.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    full.to_store.go_away()
    assert request.result(timeout=20).status == 200
    process.rlimit(psutil.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    full.to_store.come_back()
    wait_for(lambda: ready(gateway)[0] == 200, "the end of the alarm")
    full.check(gateway, key)
    assert outcomes(gateway, key) == [DELIVERED]
