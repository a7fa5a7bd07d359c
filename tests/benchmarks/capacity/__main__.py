"""The command: measure or read, size, and print or write the manual's part."""

from __future__ import annotations

import asyncio
import os
import platform
import tempfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from shutil import which
from typing import Any

import click
import psutil

from tests.benchmarks.capacity import gateways, stores
from tests.benchmarks.capacity.manual import Section, as_stated, cut_out, read, write, written_out
from tests.benchmarks.capacity.sizing import GIGA, Assumptions, Figures, show, size
from tests.support.processes import ROOT
from tests.support.stores import BACKENDS

MANUAL = ROOT / "deploy" / "README.md"


def with_assumptions(command: Callable[..., None]) -> Callable[..., None]:
    """One option for each of them."""
    for each in reversed(fields(Assumptions)):
        name = f"--{each.name.replace('_', '-')}"
        command = click.option(name, each.name, type=float, help=f"{each.metadata['text']}  [{show(each.default)}]")(
            command
        )
    return command


@click.command
@click.option("--stated", is_flag=True, help="Measure nothing: take the figures of deploy/README.md.")
@click.option("--images", type=int, help="Size so many images a second, with the arithmetic.")
@click.option("--table", is_flag=True, help="Print the part of deploy/README.md.")
@click.option("--write", "in_place", is_flag=True, help="Put that part into deploy/README.md.")
@with_assumptions
def main(*, stated: bool, images: int | None, table: bool, in_place: bool, **given: float | None) -> None:
    """What a fleet needs, from measured costs. It takes about a minute; any option below is one of the assumptions."""
    changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if stated:
        section = read(MANUAL.read_text(encoding="utf-8"))
        machine, figures, also = section.machine, section.figures, section.also
    else:
        machine, figures, also = asyncio.run(measure())
    section = Section(machine, as_stated(figures), Assumptions(**changed), also)
    if in_place:
        text = MANUAL.read_text(encoding="utf-8")
        MANUAL.write_text(text.replace(cut_out(text), write(section)), encoding="utf-8")
    elif images is not None:
        for line in size(images, section.figures, section.assumed):
            click.echo("\n".join(written_out(line)))
    elif table or not in_place:
        click.echo(write(section))


async def measure() -> tuple[str, Figures, dict[str, str]]:
    """The machine, what follows is worked out from, and what is told beside it."""
    scale = stores.Scale()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        costs, versions = {}, {}
        for backend in (each for each in BACKENDS if each == "valkey" or which("redis-server")):
            costs[backend], versions[backend] = await stores.measure_costs(backend, _inside(folder, backend), scale)
        kept = await stores.measure_bytes(_inside(folder, "bytes"), scale)
        gateway = await gateways.measure(_inside(folder, "gateway"), gateways.Scale())
    figures = Figures(
        admit_us=costs["valkey"].admit_us,
        settle_us=costs["valkey"].settle_us,
        small_us=gateway.small_us,
        large_us=gateway.large_us,
        entry_bytes=kept.entries[stores.ORDINARY],
        settled_id_bytes=kept.settled_id,
        idempotency_bytes=kept.idempotency,
        key_bytes=kept.key,
        team_bytes=kept.team,
        connection_bytes=gateway.connection,
        in_flight_bytes=gateway.in_flight,
        worker_bytes=gateway.worker,
    )
    also = {
        f"{versions[backend]}: admissions and as many settlements, a second on one core": show(
            round(1e6 / (cost.admit_us + cost.settle_us), -2)
        )
        for backend, cost in costs.items()
    }
    also |= {f"a million ledger entries: {entry}, MB": show(round(size)) for entry, size in kept.entries.items()}
    return _machine(versions["valkey"]), figures, also


def _inside(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def _machine(store: str) -> str:
    """What it was measured on, as a reader compares it with his own."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = psutil.virtual_memory().total / GIGA
    python = platform.python_version()
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GB, Python {python}, {store}"


if __name__ == "__main__":
    main()
