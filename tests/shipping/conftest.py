"""Fixtures for the tests of shipping."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shipping.books import Ledgers
from tests.support.gateways import configuration, running_gateway, sample_provider
from tests.support.postgres import Postgres, postgres_server
from tests.support.stores import store_server


@pytest.fixture(scope="session")
def provider_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A sample provider."""
    with sample_provider(tmp_path_factory.mktemp("provider")) as running:
        yield running.url


@pytest.fixture(scope="session")
def postgres_server_of_all() -> Iterator[Postgres]:
    """A PostgreSQL."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def postgres(postgres_server_of_all: Postgres) -> Postgres:
    """A PostgreSQL with nothing in it."""
    postgres_server_of_all.rows("drop schema if exists lightmeter cascade")
    return postgres_server_of_all


@pytest.fixture
def ledgers(provider_url: str, tmp_path: Path) -> Iterator[Ledgers]:
    """A gateway on a store of its own, where a US dollar is 30,000 units."""
    with store_server("valkey", tmp_path) as (store_url, _server):
        toml = configuration(store_url, provider_url, accounting={"units_per_usd": "30000"})
        with running_gateway(tmp_path, toml) as gateway:
            yield Ledgers(gateway, store_url, tmp_path)
