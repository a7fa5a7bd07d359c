from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.settings.values import AUTO
from proxy.supervisor.cpus import count_workers, usable_cpus

AFFINE = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("line", "file", "text", "cpus"),
    [
        ("0::/a/b", "a/b/cpu.max", "100000 100000", 1),
        ("0::/a/b", "a/b/cpu.max", "20000 100000", 1),
        ("0::/a/b", "a/cpu.max", "100000 100000", 1),
        # In a container whose root is its own, the path of the host leads nowhere.
        ("0::/kubepods/pod1", "cpu.max", "50000 100000", 1),
        ("0::/../../a", "cpu.max", "100000 100000", 1),
        ("0::/a", "a/cpu.max", "max 100000", AFFINE),
        ("0::/a", "a/cpu.max", "100000000 100000", AFFINE),
        ("4:cpu,cpuacct:/a", "cpu,cpuacct/a/cpu.cfs_quota_us", "100000", 1),
        ("4:cpu,cpuacct:/a", "cpu,cpuacct/a/cpu.cfs_quota_us", "-1", AFFINE),
        ("4:memory:/a", "memory/a/cpu.cfs_quota_us", "1", AFFINE),
    ],
)
def test_a_quota_of_any_cgroup_above_bounds_the_affinity(
    line: str, file: str, text: str, cpus: int, tmp_path: Path
) -> None:
    place = tmp_path / "fs" / file
    place.parent.mkdir(parents=True)
    place.write_text(text)
    (place.parent / "cpu.cfs_period_us").write_text("100000")
    own = tmp_path / "own"
    own.write_text(f"1:name=systemd:/\n{line}\n")
    assert usable_cpus(tmp_path / "fs", own) == cpus


def test_without_cgroups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path, tmp_path / "nothing") == AFFINE


def test_auto_is_what_is_usable_and_a_number_is_itself() -> None:
    assert count_workers(AUTO) == usable_cpus()
    assert count_workers(7) == 7
