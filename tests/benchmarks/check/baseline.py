"""What the last release took, by the interpreter that it was counted on: ``baseline.json``."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path

PATH = Path(__file__).with_name("baseline.json")

Figures = Mapping[str, Mapping[str, float]]
"""Instructions a request, by subject and case."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """One release. Interpreters are compared only with their own kind: another version runs other code."""

    version: str
    recorded: Mapping[str, Mapping[str, object]]

    def figures(self, interpreter: str) -> Figures | None:
        """What was counted on this kind of interpreter."""
        entry = self.recorded.get(interpreter)
        return None if entry is None else entry["figures"]  # type: ignore[return-value]

    def with_figures(self, version: str, interpreter: str, entry: Mapping[str, object]) -> Baseline:
        """One more; what belongs to another version is left behind."""
        kept = self.recorded if version == self.version else {}
        return Baseline(version, {**kept, interpreter: entry})


def this_interpreter() -> str:
    """The kind of the interpreter that runs this."""
    return f"{sys.implementation.name}-{sys.version_info.major}.{sys.version_info.minor}-{platform.machine()}"


def entry_of(figures: Figures) -> dict[str, object]:
    """What is recorded: the figures, and what they were counted with."""
    return {
        "python": sys.version.split("\n", maxsplit=1)[0].strip(),
        "libraries": {name: version_of(name) for name in ("aiohttp", "orjson", "redis", "uvloop")},
        "figures": {
            subject: {case: round(count) for case, count in cases.items()} for subject, cases in figures.items()
        },
    }


def read(text: str) -> Baseline:
    """A file's content."""
    told = json.loads(text)
    return Baseline(told["version"], told["recorded"])


def write(baseline: Baseline) -> str:
    """A file's content."""
    return json.dumps({"version": baseline.version, "recorded": baseline.recorded}, indent=2) + "\n"
