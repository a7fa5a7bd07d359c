"""``lightmeter restart``: every process is replaced while clients ask all the time, or stays where new ones fail."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

import psutil
import pytest
from click.testing import CliRunner

from proxy.cli.restart import restart
from tests.faults.load import Load
from tests.faults.test_workers import check_totals, is_ready, total, workers
from tests.support.gateways import ADMIN_TOKEN, RunningGateway, SampleProvider, configuration, running_gateway
from tests.support.processes import wait_for

pytestmark = pytest.mark.slow


def run_command(gateway: RunningGateway) -> tuple[int, str]:
    with patch.dict(os.environ, LIGHTMETER_ADMIN_URL=gateway.admin_url, LIGHTMETER_ADMIN_TOKEN=ADMIN_TOKEN):
        done = CliRunner().invoke(restart)
    return done.exit_code, done.output


def children(gateway: RunningGateway) -> set[int]:
    return {child.pid for child in psutil.Process(gateway.server.process.pid).children()}


def test_under_load_no_request_notices_and_everything_goes_on(provider: SampleProvider, tmp_path: Path) -> None:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(30)
    one = configuration(f"embedded:{tmp_path}/data", provider.url, server={"workers": 2})
    with (
        manager,
        running_gateway(tmp_path, one, {"NOTIFY_SOCKET": str(tmp_path / "notify")}) as gateway,
    ):
        key = gateway.make_key()
        old, before = workers(gateway), children(gateway)
        (store,) = before - {each.pid for each in old}
        load = Load(gateway.url, key, 8)
        try:
            wait_for(lambda: len(load.statuses) > 30, "requests")
            cpu_s = total(gateway, "process_cpu_seconds_total")
            # What takes a restart: other numbers of workers, and a section that a reload leaves alone.
            path = tmp_path / "lightmeter.toml"
            three = one.replace("workers = 2", "workers = 3")
            path.write_text(three.replace("[accounting]", '[accounting]\ntier = "delivered"'))
            status, said = run_command(gateway)
            assert (status, said.split(";")[0]) == (0, "3 new workers serve")
            assert is_ready(gateway)
            psutil.wait_procs(old, timeout=20)
            seen = len(load.statuses)
            wait_for(lambda: len(load.statuses) > seen + 30, "requests at the new ones")
            told = gateway.admin("GET", "/admin/v1/workers").json
            assert (told["generation"], told["restarting"], told["why_not_restarted"]) == (2, False, None)
            assert [(each["generation"], each["state"]) for each in told["data"]] == [(2, "ready")] * 3
            # The process and its store are the same, and no worker is.
            assert children(gateway) & before == {store}
            assert total(gateway, "process_cpu_seconds_total") >= cpu_s
            gateway.server.process.send_signal(signal.SIGHUP)
            gateway.server.wait_for_output("the configuration was read again")
        finally:
            load.stop()
        assert (set(load.statuses), load.failures) == ({200}, [])
        check_totals(gateway, key)
        assert len(gateway.ledger(key)) == len(load.statuses)
        gateway.check_books(key)
        assert gateway.server.stop() == 0
        told_manager: list[str] = []
        while not told_manager or told_manager[-1] != "STOPPING=1":
            told_manager.append(manager.recv(4_096).decode().split("\n")[0])
        assert told_manager == ["READY=1", "RELOADING=1", "READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
        assert not psutil.pid_exists(store)


def test_what_would_not_come_up_leaves_everything_as_it_is(provider: SampleProvider, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import os, pathlib, signal\n"
        "is_worker = 'control' in os.environ.get('LIGHTMETER_HANDED_OVER', '')\n"
        f"if is_worker and pathlib.Path({str(broken)!r}, 'now').exists():\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    one = configuration(f"embedded:{tmp_path}/data", provider.url, server={"workers": 2})
    path = tmp_path / "lightmeter.toml"
    with running_gateway(tmp_path, one, {"PYTHONPATH": str(broken)}) as gateway:
        key = gateway.make_key()
        old = {each.pid for each in workers(gateway)}
        for bad, why in (
            ("no TOML at all [", "is not valid TOML"),
            (one.replace("[store]", '[store]\nserver = "/none"'), "store.server: there is no program '/none'"),
            (one.replace("127.0.0.1:0", "127.0.0.1:9", 1), "server.listen has changed, which takes a stop and a start"),
        ):
            path.write_text(bad)
            status, said = run_command(gateway)
            assert (status, said.startswith("Error: Nothing was restarted: ")) == (1, True)
            assert why in said
        path.write_text(one)
        (broken / "now").touch()
        status, said = run_command(gateway)
        # Both may have died before it is noticed of one.
        died = re.fullmatch(r"Error: the old workers stay: (\d) workers died at their start; the log says how\n", said)
        assert died is not None, said
        assert (status, int(died[1])) in ((1, 3), (1, 4))
        assert {each.pid for each in workers(gateway)} == old
        assert is_ready(gateway)
        assert gateway.generate(key).status == 200
        (broken / "now").unlink()
        status, said = run_command(gateway)
        assert (status, said.split(";")[0]) == (0, "2 new workers serve")
        assert gateway.generate(key).status == 200
        # The store is looked after as before.
        (store,) = children(gateway) - {each.pid for each in workers(gateway)}
        os.kill(store, signal.SIGKILL)
        wait_for(lambda: store not in children(gateway), "its end")
        wait_for(lambda: is_ready(gateway), "another store")
        assert gateway.generate(key).status == 200
        check_totals(gateway, key)
        gateway.check_books(key)
        # Also while the old ones have not ended yet.
        assert gateway.server.stop() == 0


def test_a_stop_that_is_asked_for_while_the_programs_change_places_is_not_forgotten(
    provider: SampleProvider, tmp_path: Path
) -> None:
    one = configuration(f"embedded:{tmp_path}/data", provider.url, server={"workers": 2})
    with running_gateway(tmp_path, one) as gateway:
        address = urlsplit(gateway.admin_url)
        # One that has not been sent whole is waited for, and the next program with it.
        with socket.create_connection((address.hostname, address.port)) as half:
            half.sendall(
                f"POST /admin/v1/keys HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n"
                "Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{".encode()
            )
            assert gateway.admin("POST", "/admin/v1/workers/restart").status == 202
            gateway.server.wait_for_output("restarting: another version")
            gateway.server.process.send_signal(signal.SIGTERM)
            assert gateway.server.process.wait(30) == 0
        gateway.server.wait_to_say("stopping: 2 workers")
        assert "has taken over" not in gateway.server.output


def test_a_gateway_without_workers_says_so(provider: SampleProvider, tmp_path: Path) -> None:
    with running_gateway(tmp_path, configuration(f"embedded:{tmp_path}/data", provider.url)) as gateway:
        status, said = run_command(gateway)
        assert (status, "set server.workers to 2 or more" in said) == (1, True)
