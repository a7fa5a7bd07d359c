"""One stack for all tests of a process that need nothing special of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateways import (
    ALL_PARAMETERS,
    RunningGateway,
    SampleProvider,
    configuration,
    image_model,
    running_gateway,
    sample_provider,
)

CONTRACT = Path(__file__).parent.parent / "contract"
VECTORS = json.loads((CONTRACT / "quota-vectors.json").read_text())["vectors"]
BAD_REQUESTS = json.loads((CONTRACT / "bad-requests.json").read_text())


def model_for(multiplier: str) -> str:
    """The id of the model with this multiplier."""
    return "acme/image-1" if multiplier == "1" else f"acme/image-1-at-{multiplier}"


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleProvider]:
    """A sample provider that does as it is asked."""
    with sample_provider(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture(scope="session")
def gateway(provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway on the embedded store."""
    folder = tmp_path_factory.mktemp("gateway")
    multipliers = sorted({vector["token_multiplier"] for vector in VECTORS})
    models = [image_model(model_for(multiplier), multiplier) for multiplier in multipliers]
    toml = configuration(f"embedded:{folder}/data", provider.url, models=models)
    with running_gateway(folder, toml) as running:
        yield running


@pytest.fixture(scope="session")
def sdk_gateway(provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway whose model does all that clients can ask for; one second's share of a rate limit may come at once."""
    folder = tmp_path_factory.mktemp("sdk-gateway")
    model = image_model(parameters=[*ALL_PARAMETERS, "stream", "partial_images"])
    toml = configuration(f"embedded:{folder}/data", provider.url, models=[model], accounting={"burst_seconds": 1})
    with running_gateway(folder, toml) as running:
        yield running


@pytest.fixture
def quiet_provider(provider: SampleProvider) -> SampleProvider:
    """The sample provider, with no request remembered."""
    provider.clear()
    return provider
