"""Fixtures that several folders share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import settings

from tests.support.examples import examples
from tests.support.stores import BACKENDS, store_server

# Where bytecode is not to be written, each test process, and each server that one starts, would compile all anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A bound for each example of a property: far above what any takes, on a machine that is busy with other tests, and far
# below what one takes that grows with the square of its input.
settings.register_profile("lightmeter", examples(100), deadline=5_000)
settings.load_profile("lightmeter")


@pytest.fixture(scope="session", params=BACKENDS)
def shared_store_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real store, one for each kind and each test process."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    with store_server(request.param, folder) as (url, _server):
        yield url


@pytest.fixture
def store_url(shared_store_url: str) -> str:
    """A real store with nothing in it."""
    with redis.Redis.from_url(shared_store_url) as client:
        client.flushall()
    return shared_store_url


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The kind of a store that the test starts itself."""
    return str(request.param)
