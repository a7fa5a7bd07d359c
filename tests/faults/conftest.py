"""A sample provider for all tests of a process; each test has a store and gateways of its own, and harms them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.scene import Scene, scene
from tests.support.gateways import SampleProvider, sample_provider


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleProvider]:
    """A sample provider that does as it is asked."""
    with sample_provider(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture
def stage(provider: SampleProvider, tmp_path: Path) -> Iterator[Scene]:
    """A scene on a store that syncs each write."""
    with scene(tmp_path, provider) as made:
        provider.clear()
        yield made
