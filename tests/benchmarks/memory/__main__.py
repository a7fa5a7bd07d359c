"""The command: load, sample, say whether anything grows, and draw."""

from __future__ import annotations

import asyncio
import csv
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import click
import psutil

from tests.benchmarks.memory.drawing import draw
from tests.benchmarks.memory.sampling import Sample, Sampler
from tests.benchmarks.memory.traffic import MODEL, Kind, Traffic, kinds
from tests.benchmarks.memory.verdict import judge, store_bytes_a_request
from tests.benchmarks.servers import cpu_seconds
from tests.support.gateways import (
    ADMIN_TOKEN,
    ALL_PARAMETERS,
    PROVIDER_KEY,
    RunningGateway,
    configuration,
    image_model,
    sample_provider,
)
from tests.support.processes import ROOT, python_module, running

PICTURE = ROOT / "tests" / "benchmarks" / "memory" / "soak.svg"
KEYS = 3
WATCHED = "tests.benchmarks.memory.watched"


@dataclass(frozen=True, slots=True)
class Soaked:
    """What came of a soak. ``busy`` is the part of a core that the gateway had."""

    samples: list[Sample]
    answered: dict[str, int]
    busy: float


@click.command
@click.option("--minutes", default=30.0, show_default=True, help="How long; two are the least that says anything.")
@click.option("--every", "every_s", default=1.0, show_default=True, help="Seconds between samples.")
@click.option("--to", "picture", type=click.Path(path_type=Path, dir_okay=False), default=PICTURE, show_default=True)
@click.option(
    "--samples", "table", type=click.Path(path_type=Path, dir_okay=False), help="Write the samples here, too."
)
@click.option("--read", is_flag=True, help="Soak nothing: judge and draw what an earlier run wrote to --samples.")
def main(*, minutes: float, every_s: float, picture: Path, table: Path | None, read: bool) -> None:
    """Full load on one gateway, and whether it grows: then the exit status is 1."""
    if read:
        if table is None:
            raise click.UsageError("--read reads what --samples names")
        samples = read_samples(table)
    else:
        with tempfile.TemporaryDirectory(prefix="lightmeter-soak-") as folder:
            soaked = asyncio.run(soak(Path(folder), kinds(), minutes * 60, every_s))
        samples = soaked.samples
        click.echo(", ".join(f"{count:,} {name}" for name, count in soaked.answered.items()))
        click.echo(f"the gateway had {soaked.busy:.2f} of a core")
        if table is not None:
            write_samples(table, samples)
    verdicts = judge(samples)
    for verdict in verdicts:
        click.echo(str(verdict))
    click.echo(f"the store, with its ledger: {store_bytes_a_request(samples):,.0f} bytes a request")
    title = f"{samples[-1].answered:,} requests in {samples[-1].seconds / 60:.0f} minutes"
    picture.write_text(draw([verdict.panel for verdict in verdicts[:3]], title), encoding="utf-8")
    if not all(verdict.is_flat for verdict in verdicts):
        sys.exit(1)


async def soak(folder: Path, load: Sequence[Kind], for_s: float, every_s: float) -> Soaked:
    """Full load for so long, which is looked at every ``every_s`` seconds."""
    with running_watched(folder) as (gateway, tasks):
        keys = [gateway.make_key(team=f"team-{number}") for number in range(KEYS)]
        traffic = Traffic(gateway.url, keys)
        process = psutil.Process(gateway.server.process.pid)
        sampler = Sampler(process, tasks, folder / "gateway" / "data", lambda: sum(traffic.answered.values()))
        begun_s = cpu_seconds(process)
        async with traffic.running(load):
            await sampler.look(for_s, every_s)
            busy = (cpu_seconds(process) - begun_s) / for_s
    return Soaked(sampler.samples, dict(traffic.answered), busy)


@contextmanager
def running_watched(folder: Path) -> Iterator[tuple[RunningGateway, Path]]:
    """A gateway with a store of its own and a provider, and the file that has the number of its tasks."""
    own = folder / "gateway"
    own.mkdir()
    path, tasks = own / "lightmeter.toml", folder / "tasks"
    with ExitStack() as stack:
        provider = stack.enter_context(sample_provider(folder))
        model = image_model(MODEL, parameters=[*ALL_PARAMETERS, "stream", "partial_images"])
        store = f"embedded:{own / 'data'}"
        path.write_text(configuration(store, provider.url, models=[model], server={"drain_seconds": 0}))
        environment = {
            "SAMPLE_PROVIDER_KEY": PROVIDER_KEY,
            "LIGHTMETER_ADMIN_TOKEN": ADMIN_TOKEN,
            "LIGHTMETER_SERVER_DATA_FOLDER": str(own / "data"),
        }
        command = python_module(WATCHED, str(tasks), "serve", "--config", str(path))
        server = stack.enter_context(running(command, own / "gateway.log", environment))
        found = server.wait_for_output(r"listening on (\S+), admin on ([^\s\"]+)")
        yield RunningGateway(found[1], found[2], server), tasks


def write_samples(path: Path, samples: list[Sample]) -> None:
    """As CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [each.name for each in fields(Sample)])
        writer.writeheader()
        writer.writerows(map(asdict, samples))


def read_samples(path: Path) -> list[Sample]:
    """What ``write_samples`` wrote."""
    with path.open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return [Sample(row.pop("seconds"), **{name: int(value) for name, value in row.items()}) for row in rows]


if __name__ == "__main__":
    main()
