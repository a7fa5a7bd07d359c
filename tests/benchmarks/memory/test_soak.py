"""The soak on real processes, for a few seconds: that it asks, samples and ends. What grows, minutes tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.memory.__main__ import soak
from tests.benchmarks.memory.traffic import MEGABYTE, kinds

pytestmark = pytest.mark.slow


async def test_a_short_one(tmp_path: Path) -> None:
    soaked = await soak(tmp_path, kinds(MEGABYTE), for_s=2, every_s=0.2)
    assert soaked.answered["small answers"] > 0
    assert soaked.busy > 0
    last = soaked.samples[-1]
    assert 10 * MEGABYTE < last.memory_bytes < 1_000 * MEGABYTE
    assert last.store_bytes > MEGABYTE
    assert last.descriptors > 10
    assert last.tasks > 0
    assert last.files > 0
