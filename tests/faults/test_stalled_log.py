"""Nobody reads the log: the gateway works on, and says afterwards what is missing."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.scene import PRICE, Scene
from tests.support.gateways import ADMIN_TOKEN, PROVIDER_KEY, RunningGateway, configuration
from tests.support.processes import python_module, running, wait_for

REQUESTS = 500
DROPPED = "lightmeter_log_lines_dropped_total"


def test_a_log_that_nobody_reads_keeps_no_request_and_no_settlement(stage: Scene, tmp_path: Path) -> None:
    log, config = tmp_path / "log", tmp_path / "lightmeter.toml"
    os.mkfifo(log)
    config.write_text(configuration(f"redis://127.0.0.1:{stage.store.port}/0", stage.provider.url))
    # Both ways, so that opening it waits for nobody.
    reader = os.open(log, os.O_RDWR | os.O_NONBLOCK)
    # The pipe is full before the first line.
    try:
        while True:
            os.write(reader, b"\n" * 4096)
    except BlockingIOError:
        pass
    command = ["bash", "-c", 'exec "$@" 2>"$0"', str(log)]
    command += python_module("proxy.cli", "serve", "--json", "--config", str(config))
    environment = {
        "SAMPLE_PROVIDER_KEY": PROVIDER_KEY,
        "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN,
        "LIGHTMETER_SERVER_DATA_FOLDER": str(tmp_path / "data"),
    }
    with running(command, tmp_path / "output", environment) as server:
        addresses = json.loads(server.wait_for_output(r"\{.*\}\n")[0])
        gateway = RunningGateway(addresses["public"], addresses["admin"], server)
        key = gateway.make_key(None)
        with ThreadPoolExecutor(16) as clients:
            answers = list(clients.map(lambda _: gateway.generate(key).status, range(REQUESTS)))
        assert answers == [200] * REQUESTS
        assert gateway.quota(key)["posted"] == REQUESTS * PRICE
        gateway.check_books(key)
        assert f"{DROPPED} 0.0" in gateway.metrics()

        lines = b""

        def all_are_there() -> bool:
            nonlocal lines
            try:
                while piece := os.read(reader, 65_536):
                    lines += piece
            except BlockingIOError:
                pass
            return lines.count(b'"outcome":"delivered"') >= REQUESTS

        wait_for(all_are_there, "the line of each request")
        server.stop()
    os.close(reader)
