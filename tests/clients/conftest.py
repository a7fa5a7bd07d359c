"""The stack that foreign clients ask: every field is known, and OpenAI's models answer as they do."""

from __future__ import annotations

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

PARAMETERS = [*ALL_PARAMETERS, "stream", "partial_images", "input_fidelity"]
CURRENT = ("gpt-image-2.6-flare", "gpt-image-2")
IMAGE_PRICE = 5_000


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleProvider]:
    """A sample provider that does as it is asked."""
    with sample_provider(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture(scope="session")
def gateway(provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A gateway with two of OpenAI's models, one whose images are addresses, and one of OpenRouter's."""
    folder = tmp_path_factory.mktemp("gateway")
    models = [
        *(
            image_model(name, upstream_model=name, parameters=PARAMETERS)
            for name in ("gpt-image-2.6-flare", "gpt-image-2")
        ),
        image_model(parameters=PARAMETERS),
        image_model("google/gemini-3.1-flash-image", provider="openrouter", parameters=["image_config", "stream"]),
    ]
    toml = configuration(f"embedded:{folder}/data", provider.url, models=models)
    toml += (
        f'\n[[providers]]\nname = "openrouter"\ndialect = "openrouter"\nbase_url = "{provider.url}/v1"\n'
        'api_key_env = "SAMPLE_PROVIDER_KEY"\n'
    )
    with running_gateway(folder, toml) as running:
        yield running


@pytest.fixture(scope="session")
def cache(request: pytest.FixtureRequest) -> Path:
    """A folder that outlives the run, beside pytest's own cache."""
    return Path(request.config.cache.mkdir("clients"))


def charges(gateway: RunningGateway, key: str) -> list[tuple[str, int, int]]:
    """Outcome, images and charge of each request of a key, oldest first, once its books are right."""
    gateway.check_books(key)
    return [(entry["outcome"], entry["images"], entry["charged"]) for entry in gateway.ledger(key)]
