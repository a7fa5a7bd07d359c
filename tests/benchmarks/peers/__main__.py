"""``make bench-peers``: Lightmeter beside LiteLLM, Portkey, nginx, and nginx that meters, in one run."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
import psutil

from tests.benchmarks import throughput
from tests.benchmarks.peers.figures import ORDER, Found, Run, Slice
from tests.benchmarks.peers.load import NothingAnswered, press, warm_up
from tests.benchmarks.peers.page import PICTURE, insert, write_section
from tests.benchmarks.peers.picture import draw
from tests.benchmarks.peers.quota import try_budget
from tests.benchmarks.peers.starting import Peer, running_peers
from tests.support.processes import ROOT

FOLDER = ROOT / "tests/benchmarks"
SLOW_TIMES = 2
"""How many times as long a slow peer is measured."""
TRIES = (1, 3, 6)
"""How many times as long a slice is tried again in which nothing was answered: others may have had the cores."""
RUN_IN_REQUESTS, RUN_IN_SLICES_MOST = 1_000, 4
ALONE_SHARE = 0.5
"""How much of a slice's time one connection gets: its percentiles need less."""


@click.command()
@click.option("--seconds", type=click.FloatRange(0.2, 60), default=2, show_default=True, help="One slice of load.")
@click.option("--rounds", type=click.IntRange(1, 20), default=3, show_default=True, help="Slices for each peer.")
@click.option("--only", "names", default="", help="These peers alone, by the beginnings of their names; then --print.")
@click.option("--print", "only_print", is_flag=True, help="Leave the manual and the picture as they are.")
@click.option("--json", "path", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures here.")
def main(seconds: float, rounds: int, names: str, only_print: bool, path: Path | None) -> None:
    """How fast is Lightmeter beside what others run, and whose budgets hold?"""
    wrk = throughput.find_wrk()
    if wrk is None:
        raise click.ClickException("wrk is missing: apt-get install wrk")
    # What was started is stopped, and the temporary folder goes. A shell's background jobs would not hear of Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    run = Run(_machine(), time.strftime("%d %B %Y, %H:%M UTC", time.gmtime()), seconds, rounds, os.getloadavg()[0])
    chosen = _chosen(names)
    try:
        with tempfile.TemporaryDirectory(prefix="lightmeter-peers-") as folder:
            _measure(run, Path(folder), wrk, chosen)
    except (OSError, RuntimeError, subprocess.TimeoutExpired, psutil.Error) as error:
        raise click.ClickException(str(error)) from error
    section = write_section(run)
    click.echo(section)
    if path is not None:
        path.write_text(json.dumps(asdict(run), indent=2) + "\n")
    if not only_print and not names:
        readme = FOLDER / "README.md"
        readme.write_text(insert(readme.read_text(), section))
        (FOLDER / PICTURE).write_text(draw(run))


def _chosen(names: str) -> list[str]:
    beginnings = [each.strip().lower() for each in names.split(",")]
    for each in beginnings:
        if not any(name.lower().startswith(each) for name in ORDER):
            raise click.BadParameter(f"no peer's name begins with '{each}': there are {', '.join(ORDER)}")
    return [name for name in ORDER if name.lower().startswith(tuple(beginnings))]


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _measure(run: Run, folder: Path, wrk: str, names: list[str]) -> None:
    with running_peers(folder, names, _say) as peers:
        run.left_out |= peers.left_out
        ready = [peer for peer in peers.running if _answers(run, peer, wrk, folder)]
        run.found |= {peer.name: Found(peer.version) for peer in ready}
        for number in range(1, run.rounds + 1):
            for peer in tuple(ready):
                _say(f"round {number} of {run.rounds}: {peer.name}")
                try:
                    _take_turn(run, peer, wrk, folder)
                except RuntimeError as error:
                    _leave_out(run, peer, error)
                    ready.remove(peer)
            # None is always the first, nor always after the same.
            ready.append(ready.pop(0))
        for peer in ready:
            found = run.found[peer.name]
            found.memory_mb, found.store_memory_mb = peer.megabytes()
            _say(f"budgets: {peer.name}")
            for account in peer.accounts:
                found.budgets[account.name] = try_budget(peer, account)


def _answers(run: Run, peer: Peer, wrk: str, folder: Path) -> bool:
    try:
        warm_up(peer, throughput.SMALL)
        warm_up(peer, throughput.LARGE)
        _run_in(run, peer, wrk, folder)
    except (OSError, RuntimeError) as error:
        _leave_out(run, peer, error)
        return False
    return True


def _run_in(run: Run, peer: Peer, wrk: str, folder: Path) -> None:
    """What compiles while it runs has done so by then, as far as a few slices of time go."""
    small, answered = throughput.SMALL, 0
    for _ in range(RUN_IN_SLICES_MOST):
        if answered < RUN_IN_REQUESTS:
            with suppress(NothingAnswered):
                answered += press(wrk, peer, small, small.connections, run.seconds, folder).requests


def _leave_out(run: Run, peer: Peer, error: Exception) -> None:
    _say(f"{peer.name} is left out: {error}")
    run.left_out[peer.name] = str(error).splitlines()[0]
    run.found.pop(peer.name, None)


def _take_turn(run: Run, peer: Peer, wrk: str, folder: Path) -> None:
    found = run.found[peer.name]
    seconds = run.seconds * (SLOW_TIMES if peer.is_slow else 1)

    def measure(load: throughput.Load, connections: int, seconds: float) -> Slice:
        for longer in TRIES:
            with suppress(NothingAnswered):
                return press(wrk, peer, load, connections, seconds * longer, folder)
        raise NothingAnswered(f"it answers nothing within {seconds * TRIES[-1]:g} s")

    small, large = throughput.SMALL, throughput.LARGE
    slices = (
        measure(small, small.connections, seconds),
        measure(large, large.connections, seconds),
        measure(small, 1, seconds * ALONE_SHARE),
    )
    # All three or none, so that each round has a figure of everybody.
    for kept, slice_ in zip((found.small, found.large, found.alone), slices, strict=True):
        kept.append(slice_)


def _machine() -> str:
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            model = value.strip()
            break
    system = f"{platform.system()} {platform.release()}"
    return f"{os.cpu_count()} cores ({model}), {system}, Python {platform.python_version()}"


def _say(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    sys.exit(main())
