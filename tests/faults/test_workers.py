"""Several workers under one supervisor: one is killed, all are reloaded, stopped, or never come up."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.faults.load import Load
from tests.faults.scene import PRICE, Scene, held, outcomes, ready, scene
from tests.support.gateways import (
    ADMIN_TOKEN,
    PROVIDER_KEY,
    RunningGateway,
    SampleProvider,
    configuration,
    running_gateway,
)
from tests.support.processes import python_module, running, wait_for

pytestmark = pytest.mark.slow

DELIVERED = ("request", "delivered", 1, PRICE)


@pytest.fixture
def gateway(provider: SampleProvider, tmp_path: Path) -> Iterator[RunningGateway]:
    """Two workers on an embedded store."""
    store_url = f"embedded:{tmp_path}/data"
    toml = configuration(store_url, provider.url, server={"workers": 2}, accounting={"lease_seconds": 2})
    with running_gateway(tmp_path, toml) as made:
        yield made


@pytest.fixture
def stage(provider: SampleProvider, tmp_path: Path) -> Iterator[Scene]:
    """Gateways of two workers on a store that outlives them."""
    with scene(tmp_path, provider, server={"workers": 2, "drain_seconds": 10}) as made:
        yield made


def workers(gateway: RunningGateway) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(gateway.server.process.pid).children():
        # One may end meanwhile.
        with contextlib.suppress(psutil.Error):
            found += [child] if "serve" in child.cmdline() else []
    return found


def is_ready(gateway: RunningGateway) -> bool:
    return ready(gateway) == (200, "ready")


def total(gateway: RunningGateway, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    found = 0.0
    for line in gateway.metrics().splitlines():
        match = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
        if match and all(f'{label}="{value}"' in (match[1] or "") for label, value in labels.items()):
            found += float(match[2])
    return found


def check_totals(gateway: RunningGateway, key: str, *, broken_off: int = 0) -> None:
    """The metrics of all processes, living and dead, say what the ledger says.

    Of what was ``broken_off``, the store may have taken what its process did not live to count.
    """
    wait_for(lambda: total(gateway, "lightmeter_open_requests") == 0, "the end of all requests")
    entries = [each for each in gateway.ledger(key) if each["outcome"] == "delivered"]
    counted = total(gateway, "lightmeter_requests_total", outcome="delivered")
    assert len(entries) - broken_off <= counted <= len(entries)
    charged, released, reserved = (
        total(gateway, "lightmeter_quota_units_total", state=state) for state in ("charged", "released", "reserved")
    )
    assert len(entries) - broken_off <= charged / PRICE <= len(entries)
    assert reserved == charged + released
    assert total(gateway, "lightmeter_in_flight_requests") == total(gateway, "lightmeter_quota_units_held") == 0


def test_one_that_is_killed_costs_only_what_it_was_at_work_on(gateway: RunningGateway) -> None:
    key = gateway.make_key()
    load = Load(gateway.url, key, 8, delay_ms=40)
    try:
        wait_for(lambda: len(load.statuses) > 40, "requests")
        cpu_s = total(gateway, "process_cpu_seconds_total")
        victim = workers(gateway)[0]
        victim.suspend()
        # What it has sent away by now is settled, or will be by nobody.
        time.sleep(0.2)
        victim.kill()
        seen = len(load.statuses)
        wait_for(lambda: len(load.statuses) > seen + 40, "requests at the one that lives")
        wait_for(lambda: is_ready(gateway), "another worker")
        assert total(gateway, "process_cpu_seconds_total") >= cpu_s
    finally:
        load.stop()
    assert set(load.statuses) == {200}
    # Each client has one request at a time, and half of them were at the other worker.
    assert 1 <= len(load.failures) <= 7
    wait_for(lambda: held(gateway, key) == 0, "the end of the leases")
    entries = gateway.ledger(key)
    assert len({each["request"] for each in entries}) == len(entries)
    # Of one that was broken off, the gateway may not have read a word.
    assert len(load.statuses) <= len(entries) <= len(load.statuses) + len(load.failures)
    check_totals(gateway, key, broken_off=len(load.failures))
    gateway.check_books(key)
    assert len(workers(gateway)) == 2
    assert victim.pid not in [each.pid for each in workers(gateway)]
    gateway.server.wait_to_say("killed by SIGKILL")
    assert total(gateway, "lightmeter_worker_deaths_total") == 1
    assert total(gateway, "lightmeter_workers_ready") == total(gateway, "lightmeter_workers_wanted") == 2


def test_no_request_notices_that_all_read_the_configuration_again(gateway: RunningGateway, tmp_path: Path) -> None:
    check_last_units(gateway)
    key = gateway.make_key()
    path = tmp_path / "lightmeter.toml"
    one = path.read_text()
    two = one.replace('token_multiplier = "1"', 'token_multiplier = "2"')
    assert one != two
    load = Load(gateway.url, key, 6)
    try:
        for number in range(4):
            path.write_text(two if number % 2 == 0 else one)
            seen = gateway.server.output.count("the configuration was read again")
            gateway.server.process.send_signal(signal.SIGHUP)
            told = seen + 2
            wait_for(lambda told=told: gateway.server.output.count("was read again") >= told, "both")  # type: ignore[misc]
        path.write_text("no TOML at all [")
        gateway.server.process.send_signal(signal.SIGHUP)
        gateway.server.wait_for_output("the one before stays in force")
    finally:
        load.stop()
    assert (set(load.statuses), load.failures) == ({200}, [])
    reloads = {result: total(gateway, "lightmeter_config_reloads_total", result=result) for result in ("ok", "refused")}
    assert reloads == {"ok": 4, "refused": 1}
    # One that comes now has what is in force, and not what is in the file.
    workers(gateway)[0].kill()
    wait_for(lambda: not is_ready(gateway), "its end")
    wait_for(lambda: is_ready(gateway), "another worker")
    assert {gateway.generate(key).status for _ in range(6)} == {200}
    gateway.check_books(key)


def check_last_units(gateway: RunningGateway) -> None:
    """The last units of a quota are given away once, whichever worker is asked."""
    key = gateway.make_key(PRICE * 25, team="small")
    load = Load(gateway.url, key, 12, delay_ms=2)
    try:
        wait_for(lambda: load.statuses.count(429) > 20, "the end of the quota")
    finally:
        load.stop()
    assert load.statuses.count(200) == 25
    assert set(load.statuses) == {200, 429}
    assert gateway.quota(key)["posted"] == PRICE * 25
    gateway.check_books(key)


def test_all_finish_what_they_have_and_refuse_what_comes_until_the_last_has_finished(stage: Scene) -> None:
    gateway, other = stage.start_gateway(), stage.start_gateway("other", server={"workers": 1})
    key = gateway.make_key(None)
    requests = [stage.send(gateway, key, "[sample delay_ms=1500] a cube") for _ in range(12)]
    wait_for(lambda: held(other, key) == 12 * PRICE, "twelve reservations")
    gateway.server.process.send_signal(signal.SIGTERM)
    gateway.server.wait_for_output("stopping: 2 workers")
    assert ready(gateway) == (503, "shutting_down")
    refused = [gateway.generate(key) for _ in range(4)]
    assert {(each.status, each.json["error"]["code"]) for each in refused} == {(503, "shutting_down")}
    assert [each.result(timeout=20).status for each in requests] == [200] * 12
    assert gateway.server.process.wait(20) == 0
    assert outcomes(other, key) == [DELIVERED] * 12
    stage.check(other, key)


def test_they_end_with_their_supervisor_and_give_the_port_back_at_once(stage: Scene) -> None:
    gateway, other = stage.start_gateway(), stage.start_gateway("other", server={"workers": 1})
    key = gateway.make_key(None)
    begun = [stage.send(gateway, key, "[sample delay_ms=1500] a cube") for _ in range(4)]
    wait_for(lambda: held(other, key) == 4 * PRICE, "four reservations")
    left = workers(gateway)
    stage.kill(gateway)
    address = urlsplit(gateway.url)
    wait_for(lambda: _is_free(address.port or 0), "the port")
    assert [each.result(timeout=20).status for each in begun] == [200] * 4
    assert psutil.wait_procs(left, timeout=20)[1] == []
    assert outcomes(other, key) == [DELIVERED] * 4
    stage.check(other, key)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def test_what_no_worker_can_start_with_ends_the_gateway_with_its_mistake(stage: Scene) -> None:
    given = {"workers": 2, "data_folder": "/dev/null/data"}
    toml = configuration(f"redis://127.0.0.1:{stage.store.port}/0", stage.provider.url, server=given)
    path = stage.folder / "bad.toml"
    path.write_text(toml)
    environment = {"SAMPLE_PROVIDER_KEY": PROVIDER_KEY, "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN}
    command = python_module("proxy.cli", "serve", "--config", str(path))
    with running(command, stage.folder / "bad.log", environment) as server:
        assert server.process.wait(30) == 1
        assert "set server.data_folder" in server.output.splitlines()[-1]
        assert server.output.splitlines()[-1].startswith("Error: ")


def test_one_that_dies_at_its_start_is_started_again_with_growing_pauses(stage: Scene) -> None:
    toml = configuration(f"redis://127.0.0.1:{stage.store.port}/0", stage.provider.url, server={"workers": 2})
    path, broken = stage.folder / "dying.toml", stage.folder / "broken"
    path.write_text(toml)
    broken.mkdir()
    # Whoever imports this is killed, as by a machine without memory, for as long as the file is there.
    (broken / "sitecustomize.py").write_text(
        "import os, signal\nif 'LIGHTMETER_HANDED_OVER' in os.environ: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {
        "SAMPLE_PROVIDER_KEY": PROVIDER_KEY,
        "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN,
        "LIGHTMETER_SERVER_DATA_FOLDER": str(stage.folder / "dying"),
        "PYTHONPATH": str(broken),
    }
    command = python_module("proxy.cli", "serve", "--config", str(path))
    with running(command, stage.folder / "dying.log", environment) as server:
        for pause in ("0.1", "0.2", "0.4"):
            server.wait_for_output(rf"killed by SIGKILL.*\n.*another worker 0 starts in {pause} s")
        assert "listening" not in server.output
        (broken / "sitecustomize.py").unlink()
        server.wait_for_output("2 workers are listening on")
        assert server.stop() == 0


def test_the_journal_of_one_that_is_killed_is_posted_by_another_that_lives(stage: Scene) -> None:
    gateway = stage.start_gateway()
    key = gateway.make_key(None)
    requests = [stage.send(gateway, key, f"[sample delay_ms={500 + number}] x") for number in range(8)]
    wait_for(lambda: held(gateway, key) == 8 * PRICE, "eight reservations")
    stage.to_store.go_away()
    assert [each.result(timeout=20).status for each in requests] == [200] * 8
    wait_for(lambda: total(gateway, "lightmeter_journal_pending_settlements") == 8, "eight settlements")
    victim = workers(gateway)[0]
    victim.kill()
    wait_for(lambda: victim.pid not in [each.pid for each in workers(gateway)], "its end")
    stage.to_store.come_back()
    wait_for(lambda: is_ready(gateway), "another worker")
    wait_for(lambda: outcomes(gateway, key) == [DELIVERED] * 8, "all eight", timeout_s=4)
    stage.check(gateway, key)
