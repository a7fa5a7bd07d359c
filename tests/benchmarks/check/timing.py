"""Processor time for each request, of this tree and of another one, in turns."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks import servers, throughput
from tests.benchmarks.check.verdict import Change, change_of_rounds
from tests.benchmarks.servers import BESIDE, LIGHTMETER, Launch


def measure(
    wrk: str, folder: Path, other: Path, cases: Sequence[str], rounds: int, seconds: float, tell: Callable[[str], None]
) -> list[Change]:
    """In microseconds; this tree's own process alone, without its store."""
    with ExitStack() as stack:
        provider = servers.start_provider(stack, folder).address
        programs = Path(sys.executable).parent
        subjects = [
            servers._start_lightmeter(stack, folder, provider, name, programs, launch=launch)[0]
            for name, launch in (
                (LIGHTMETER, Launch()),
                (BESIDE, Launch(environment={"PYTHONPATH": str(other)})),
            )
        ]
        changes = []
        for case in cases:
            load = throughput.LOADS[case]
            found: dict[str, list[float]] = {subject.name: [] for subject in subjects}
            for subject in subjects:
                throughput.warm_up(subject, load)
            for number in range(1, rounds + 1):
                tell(f"{case}, round {number} of {rounds}")
                # Each is the first as often as the other.
                for subject in subjects if number % 2 else reversed(subjects):
                    slice_ = throughput.press(wrk, subject, load, seconds, folder)
                    if slice_.failed:
                        raise RuntimeError(f"{subject.name}: {slice_.failed:,} requests of {case} failed")
                    found[subject.name].append(slice_.cpu_s / slice_.requests * 1e6)
            changes.append(change_of_rounds(case, found[LIGHTMETER], found[BESIDE]))
        return changes
