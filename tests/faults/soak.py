"""Faults by chance for as long as asked, on one store and the same data folders, and ``ledger verify`` at the end.

``make soak SECONDS=600 SEED=1``: a line for each seed; the first seed whose books are wrong ends it with status 1.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from tests.faults.rounds import Round
from tests.faults.scene import scene
from tests.faults.schedule import GATEWAYS, make_schedule
from tests.support.gateways import ADMIN_TOKEN, RunningGateway, sample_provider
from tests.support.processes import python_module


@click.command
@click.option("--seconds", default=60, show_default=True, help="Begin no round after so long.")
@click.option("--seed", default=1, show_default=True, help="The first seed; the next ones follow.")
def soak(seconds: int, seed: int) -> None:
    """Play seed after seed."""
    with TemporaryDirectory(prefix="lightmeter-soak-") as name:
        folder = Path(name)
        with (
            sample_provider(folder) as provider,
            scene(folder, provider, accounting={"lease_seconds": 1}) as stage,
        ):
            gateways = [stage.start_gateway(f"gateway-{number}") for number in range(GATEWAYS)]
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                schedule = make_schedule(seed)
                try:
                    played = Round(stage, gateways, schedule)
                    click.echo(f"seed {seed}: {played.check(played.play())}")
                except Exception:
                    click.echo(f"FAILED\n{schedule.describe()}")
                    raise
                seed += 1
            sys.exit(_verify(gateways[0]))


def _verify(gateway: RunningGateway) -> int:
    environment = {"LIGHTMETER_ADMIN_URL": gateway.admin_url, "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN}
    command = python_module("proxy.cli", "ledger", "verify")
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    soak()
