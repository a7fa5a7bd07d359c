"""How many processors this process may use: by its affinity, and by the quota of its cgroups."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from proxy.settings.values import AUTO, WORKERS_MOST

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def count_workers(setting: int | str) -> int:
    """What ``server.workers`` means on this machine."""
    return min(usable_cpus(), WORKERS_MOST) if setting == AUTO else int(setting)


def usable_cpus(cgroups: Path = CGROUPS, own: Path = OWN_CGROUPS) -> int:
    """At least 1. A part of a processor counts as one."""
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([affine, *map(math.ceil, _quotas(cgroups, own))]))


def _quotas(cgroups: Path, own: Path) -> Iterator[float]:
    """The quota of each cgroup that this process is in, of both versions (docs.kernel.org, cgroup-v2 and sched-bwc)."""
    with suppress(OSError):
        for line in own.read_text().splitlines():
            _number, controllers, path = line.split(":", 2)
            if not controllers:
                for folder in _upward(cgroups, path):
                    with suppress(OSError, ValueError):
                        quota, period = (folder / "cpu.max").read_text().split()
                        yield int(quota) / int(period)
            elif "cpu" in controllers.split(","):
                for folder in _upward(cgroups / controllers, path):
                    with suppress(OSError, ValueError):
                        quota_us = int((folder / "cpu.cfs_quota_us").read_text())
                        if quota_us > 0:
                            yield quota_us / int((folder / "cpu.cfs_period_us").read_text())


def _upward(root: Path, path: str) -> Iterator[Path]:
    """The folder at ``path`` and all above it. In a container, ``path`` may be the host's, and the root is its own."""
    parts = [part for part in path.split("/") if part and part != ".."]
    for length in range(len(parts), -1, -1):
        yield root.joinpath(*parts[:length])
