"""SIGHUP: the end of a gateway whose terminal was closed, and a reload for every other."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.gateways import (
    ADMIN_TOKEN,
    PROVIDER_KEY,
    RunningGateway,
    SampleProvider,
    configuration,
    sample_provider,
)
from tests.support.processes import ROOT, STOP_TIMEOUT_S, Server, python_module, wait_for

TAKEN = "the configuration was read again"


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleProvider]:
    with sample_provider(tmp_path_factory.mktemp("provider")) as running:
        yield running


class AtTerminal(Server):
    """A process whose terminal is ours to close; what it logs is in a file."""

    def __init__(self, command: list[str], log: Path, environment: dict[str, str]) -> None:
        self.log = log
        # Without it, the kernel gives a new session's first terminal to whoever opens it: here, the process.
        self.terminal, its = os.openpty()
        takes = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        run = f"{takes}os.execv(sys.argv[1], sys.argv[1:])"
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", run, *command], cwd=ROOT, stdin=its, stdout=its, stderr=output, env=environment
            )
        os.close(its)

    def hang_up(self) -> None:
        """Close the terminal, as a window or a connection that is gone does."""
        with contextlib.suppress(OSError):
            os.close(self.terminal)
        self.terminal = -1


@contextmanager
def at_terminal(
    folder: Path, provider: SampleProvider, *prefix: str, workers: int = 1
) -> Iterator[tuple[RunningGateway, AtTerminal]]:
    path = folder / "lightmeter.toml"
    path.write_text(configuration(f"embedded:{folder}/data", provider.url, server={"workers": workers}))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LIGHTMETER_")}
    variables = {**inherited, "SAMPLE_PROVIDER_KEY": PROVIDER_KEY, "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN}
    command = [*prefix, *python_module("proxy.cli", "serve", "--config", str(path))]
    server = AtTerminal(command, folder / "gateway.log", variables)
    try:
        match = server.wait_for_output(r"listening on (\S+), admin on ([^\s\"]+)")
        yield RunningGateway(match[1], match[2], server), server
    finally:
        server.hang_up()
        server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_gateway_ends_with_its_terminal_when_its_requests_have_ended(
    provider: SampleProvider, tmp_path: Path, workers: int
) -> None:
    with at_terminal(tmp_path, provider, workers=workers) as (gateway, server), ThreadPoolExecutor(1) as threads:
        key = gateway.make_key()
        # As long as the terminal is there, the signal is somebody's wish for other models.
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: server.output.count(TAKEN) == workers, "the file to be read again")
        slow = threads.submit(gateway.generate, key, prompt="[sample delay_ms=1000] x")
        wait_for(lambda: gateway.quota(key)["reserved"] == 5_000, "the request to be under way")
        server.hang_up()
        assert slow.result().status == 200
        assert server.process.wait(STOP_TIMEOUT_S) == 0
    server.wait_to_say("the terminal was closed")
    assert server.output.count(TAKEN) == workers


@pytest.mark.slow
def test_under_nohup_a_gateway_stays_when_its_terminal_is_closed(provider: SampleProvider, tmp_path: Path) -> None:
    # It would put a file where it runs if output went to the terminal, too.
    with at_terminal(tmp_path, provider, "/usr/bin/env", "-C", str(tmp_path), "/usr/bin/nohup") as (gateway, server):
        server.hang_up()
        server.wait_for_output(TAKEN)
        assert gateway.generate(gateway.make_key()).status == 200
