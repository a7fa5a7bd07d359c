"""One gateway with an administrator of each role, for all tests of the console."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.gateways import RunningGateway, SampleProvider, configuration, running_gateway, sample_provider

VIEWER_TOKEN = "the-token-of-the-viewer"
LEAD_TOKEN = "the-token-of-the-lead-of-acme"
TOKENS = """
[[admin.tokens]]
name = "auditor"
role = "viewer"
token_env = "VIEWER_TOKEN"

[[admin.tokens]]
name = "lead"
role = "team_admin"
teams = ["acme", "ghost"]
token_env = "LEAD_TOKEN"
"""
ENVIRONMENT = {"VIEWER_TOKEN": VIEWER_TOKEN, "LEAD_TOKEN": LEAD_TOKEN}


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleProvider]:
    """A sample provider that does as it is asked."""
    with sample_provider(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture(scope="session")
def gateway(provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway on the embedded store."""
    folder = tmp_path_factory.mktemp("console")
    toml = configuration(
        f"embedded:{folder}/data",
        provider.url,
        accounting={"units_per_usd": 100_000},
        server={"key_page": True, "listen": "127.0.0.1:0"},
    )
    with running_gateway(folder, toml + TOKENS, ENVIRONMENT) as running:
        yield running
