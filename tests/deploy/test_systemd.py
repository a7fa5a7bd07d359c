"""The unit: what systemd says of it, and a real systemd that runs it."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.cli.books.ship import ship
from tests.deploy.machine import UNITS, Machine, running_machine
from tests.support.gateways import (
    ADMIN_TOKEN,
    PROVIDER_KEY,
    RunningGateway,
    SampleProvider,
    configuration,
    image_model,
    running_gateway,
    sample_provider,
)
from tests.support.processes import ROOT, wait_for
from tests.support.requirements import program

UNIT = ROOT / "deploy" / "systemd" / "lightmeter.service"
SHIP_UNIT = UNIT.with_name("lightmeter-ship.service")
WORST_EXPOSURE = 2.0
CONFIGURATION = "/etc/lightmeter/lightmeter.toml"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleProvider]:
    with sample_provider(tmp_path_factory.mktemp("provider")) as running:
        yield running


def analyze(folder: Path, text: str, *arguments: str, name: str = UNIT.name) -> subprocess.CompletedProcess[str]:
    """What systemd-analyze finds in a unit whose program is the one of this checkout."""
    unit = folder / name
    unit.write_text(text.replace("/opt/lightmeter/bin/lightmeter", shutil.which("true") or "/bin/true"))
    command = [program("systemd-analyze", "systemd"), *arguments, str(unit)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    verified = analyze(tmp_path, UNIT.read_text(), "verify", "--man=no", "--recursive-errors=no")
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    misspelt = analyze(tmp_path, UNIT.read_text().replace("ProtectClock", "ProtectClok"), "verify", "--man=no")
    assert "ProtectClok" in misspelt.stderr


def test_the_unit_of_the_shipper_is_as_strict(tmp_path: Path) -> None:
    text = SHIP_UNIT.read_text()
    verified = analyze(tmp_path, text, "verify", "--man=no", "--recursive-errors=no", name=SHIP_UNIT.name)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    assert exposure(tmp_path, text) <= WORST_EXPOSURE
    manual = (ROOT / "deploy" / "README.md").read_text()
    for named in ("deploy/systemd/lightmeter-ship.service", "/etc/lightmeter/ship", "LIGHTMETER_SHIP_TO"):
        assert named in manual
    assert "LIGHTMETER_SHIP_TO" in {each.envvar for each in ship.params}


def exposure(folder: Path, text: str) -> float:
    security = analyze(folder, text, "security", "--offline=true", "--no-pager")
    match = re.search(r"Overall exposure level for \S+: ([\d.]+)", security.stdout)
    assert match is not None, security.stdout + security.stderr
    return float(match[1])


def test_the_unit_lets_the_process_do_little(tmp_path: Path) -> None:
    assert exposure(tmp_path, UNIT.read_text()) <= WORST_EXPOSURE
    lax = UNIT.read_text().replace("DynamicUser=yes", "").replace("SystemCallFilter=@system-service", "")
    assert exposure(tmp_path, lax) > WORST_EXPOSURE


def test_the_manual_installs_what_the_unit_names() -> None:
    manual, unit = (ROOT / "deploy" / "README.md").read_text(), UNIT.read_text()
    for path in ("/opt/lightmeter", CONFIGURATION, "/etc/lightmeter/environment"):
        assert path in manual
        assert path in unit


def test_the_unit_waits_longer_than_the_gateway_drains() -> None:
    settings = (ROOT / "config" / "lightmeter.toml").read_text()
    drain_s = re.search(r"^# drain_seconds = (\d+)", settings, re.MULTILINE)
    stop_s = re.search(r"^TimeoutStopSec=(\d+)", UNIT.read_text(), re.MULTILINE)
    assert drain_s is not None
    assert stop_s is not None
    assert int(stop_s[1]) >= int(drain_s[1]) + 60


def test_the_service_manager_is_told_each_change(provider: SampleProvider, tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    toml = configuration(f"embedded:{tmp_path}/data", provider.url, server={"drain_seconds": 7})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(20)

        def heard() -> str:
            return manager.recv(65_536).decode()

        with running_gateway(tmp_path, toml, {"NOTIFY_SOCKET": address}) as gateway:
            assert heard() == f"READY=1\nSTATUS=listening on {gateway.url}, admin on {gateway.admin_url}"
            gateway.server.process.send_signal(signal.SIGHUP)
            assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", heard())
            assert heard() == "READY=1\nSTATUS=the configuration was read again"
            (tmp_path / "lightmeter.toml").write_text("nonsense")
            gateway.server.process.send_signal(signal.SIGHUP)
            assert heard().startswith("RELOADING=1\n")
            assert heard() == "READY=1\nSTATUS=the configuration was not taken, and the one before stays in force"
            assert gateway.server.stop() == 0
            stopping = "STOPPING=1\nEXTEND_TIMEOUT_USEC=67000000\nSTATUS=stopping: 0 requests in flight"
            assert heard() == stopping


@pytest.fixture
def machine(provider: SampleProvider, tmp_path: Path) -> Iterator[Machine]:
    """A machine on which the unit has been installed as the manual says."""
    files = tmp_path / "files"
    unit, settings = files / UNITS[1:] / UNIT.name, files / CONFIGURATION[1:]
    for path in (unit, settings):
        path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(UNIT, unit)
    settings.write_text(configured(provider))
    secrets = settings.with_name("environment")
    secrets.write_text(f"LIGHTMETER_ADMIN_TOKEN={ADMIN_TOKEN}\nSAMPLE_PROVIDER_KEY={PROVIDER_KEY}\n")
    secrets.chmod(0o600)
    log = unit.with_name("lightmeter.service.d") / "log.conf"
    log.parent.mkdir()
    # Nothing of the journal's runs there.
    log.write_text("[Service]\nStandardOutput=append:/var/log.txt\nStandardError=append:/var/log.txt\n")
    with running_machine(tmp_path) as running:
        yield running


def configured(provider: SampleProvider, *names: str) -> str:
    models = [image_model(name) for name in ("acme/image-1", *names)]
    return configuration("embedded:./data", provider.url, models=models)


def gateway_of(machine: Machine) -> RunningGateway:
    """The gateway as its status says where it listens."""
    match = re.search(r"listening on (http://\S+), admin on (http://\S+)", machine.show("StatusText"))
    assert match is not None, machine.show("StatusText")
    return RunningGateway(match[1], match[2], machine.server)


def test_a_real_systemd_starts_reloads_and_stops_it(machine: Machine, provider: SampleProvider) -> None:
    machine.run("systemctl", "start", "lightmeter")
    assert machine.show("ActiveState") == "active"
    gateway = gateway_of(machine)
    key = gateway.make_key()
    assert gateway.generate(key).status == 200
    check_what_the_process_may_do(machine)
    check_reload(machine, gateway, provider)

    # Stopped with a request in flight: the gateway drains first, and its store ends after that.
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(gateway.generate, key, prompt="[sample delay_ms=1500] a cube")
        wait_for(lambda: 'in_flight_requests{model="acme/image-1"} 1.0' in gateway.metrics(), "the request")
        machine.run("systemctl", "stop", "lightmeter")
        assert answer.result().status == 200
    assert (machine.show("ActiveState"), machine.show("Result")) == ("inactive", "success")

    # What it keeps lies in its state folder, for whatever user runs it next.
    machine.run("systemctl", "start", "lightmeter")
    again = gateway_of(machine)
    assert [entry["outcome"] for entry in again.ledger(key)] == ["delivered", "delivered"]
    again.check_books(key)


def check_what_the_process_may_do(machine: Machine) -> None:
    process = machine.show("MainPID")
    status = machine.run("cat", f"/proc/{process}/status").stdout
    assert "\nUid:\t0" not in status
    for line in ("NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000", "CapEff:\t0000000000000000"):
        assert f"\n{line}\n" in status
    inside = ("nsenter", "--target", process, "--mount")
    for folder in ("/etc", "/opt/lightmeter", "/usr"):
        refused = machine.run(*inside, "touch", f"{folder}/by-the-gateway", check=False)
        assert "Read-only file system" in refused.stderr
    machine.run(*inside, "test", "-f", "/var/lib/lightmeter/data/appendonlydir/appendonly.aof.manifest")


def check_reload(machine: Machine, gateway: RunningGateway, provider: SampleProvider) -> None:
    key = gateway.make_key()
    assert gateway.generate(key, model="acme/image-2").status == 404
    machine.write(CONFIGURATION, configured(provider, "acme/image-2"))
    machine.run("systemctl", "reload", "lightmeter")
    wait_for(lambda: machine.show("StatusText") == "the configuration was read again", "the reload")
    assert gateway.generate(key, model="acme/image-2").status == 200
    machine.write(CONFIGURATION, "nonsense")
    assert machine.run("systemctl", "reload", "lightmeter", check=False).returncode == 1
    assert machine.show("ActiveState") == "active"
    assert gateway.generate(key, model="acme/image-2").status == 200
    machine.write(CONFIGURATION, configured(provider, "acme/image-2"))
    machine.run("systemctl", "reload", "lightmeter")


def test_a_real_systemd_starts_it_again_where_it_hangs_or_dies(machine: Machine) -> None:
    in_a_hurry = "[Service]\nWatchdogSec=3\nRestartSec=100ms\n"
    machine.write(f"{UNITS}/lightmeter.service.d/hurry.conf", in_a_hurry)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "lightmeter")
    gateway = gateway_of(machine)
    key = gateway.make_key()
    assert gateway.generate(key).status == 200
    for restarts, number in enumerate(("STOP", "KILL"), start=1):
        machine.run("kill", f"-{number}", machine.show("MainPID"))
        wait_for(lambda: int(machine.show("NRestarts")) >= restarts, "the restart")  # noqa: B023 - called here only
        wait_for(lambda: machine.show("ActiveState") == "active", "the gateway")
        gateway = replace(gateway_of(machine), server=machine.server)
        assert gateway.generate(key).status == 200
    assert len(gateway.ledger(key)) == 3
