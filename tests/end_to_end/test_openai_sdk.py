from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.end_to_end.conftest import CONTRACT
from tests.support.gateways import RunningGateway, SampleProvider, ask, configuration, running_gateway
from tests.support.stores import store_server

SECRET_FIELDS = {"usage", "cost"}


@pytest.fixture(scope="module", params=["embedded", "redis"])
def stack(
    request: pytest.FixtureRequest, provider: SampleProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    """A gateway on each kind of store."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    if request.param == "embedded":
        with running_gateway(folder, configuration(f"embedded:{folder}/data", provider.url)) as gateway:
            yield gateway
    else:
        with (
            store_server("redis", folder) as (url, _server),
            running_gateway(folder, configuration(url, provider.url)) as gateway,
        ):
            yield gateway


def client(gateway: RunningGateway, key: str, **options: Any) -> OpenAI:
    return OpenAI(base_url=f"{gateway.url}/v1", api_key=key, **options)


def test_generate_by_url(stack: RunningGateway) -> None:
    key = stack.make_key(100_000)
    with client(stack, key) as sdk:
        images = sdk.images.generate(model="acme/image-1", prompt="a translucent blue cube", n=2, size="1024x1024")
    assert images.data is not None
    assert len(images.data) == 2
    assert images.created > 1_700_000_000
    for image in images.data:
        assert image.url is not None
        assert image.revised_prompt == "a translucent blue cube"
        assert ask("GET", image.url).body.startswith(b"\x89PNG")
    assert images.usage is None
    assert not SECRET_FIELDS & set(images.model_dump(exclude_none=True))
    assert stack.quota(key)["posted"] == 10_000
    stack.check_books(key)


def test_generate_by_base64(stack: RunningGateway) -> None:
    key = stack.make_key(100_000)
    with client(stack, key) as sdk:
        images = sdk.images.generate(
            model="acme/image-1", prompt="a translucent blue cube", response_format="b64_json", size="512x512"
        )
    assert images.data is not None
    assert images.data[0].b64_json is not None
    assert images.data[0].b64_json.startswith("iVBORw0KGgo")
    stack.check_books(key)


async def test_generate_many_at_once(stack: RunningGateway) -> None:
    key = stack.make_key(20 * 5_000)
    async with AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=key, max_retries=0) as sdk:
        answers = await asyncio.gather(
            *(sdk.images.generate(model="acme/image-1", prompt=f"cube {number}") for number in range(20))
        )
        assert all(answer.data for answer in answers)
        with pytest.raises(openai.RateLimitError):
            await sdk.images.generate(model="acme/image-1", prompt="one more")
    assert stack.quota(key)["remaining"] == 0
    stack.check_books(key)


def test_provider_neutral_settings(stack: RunningGateway, quiet_provider: SampleProvider) -> None:
    key = stack.make_key(100_000)
    config = {"aspect_ratio": "16:9", "image_size": "4K"}
    with client(stack, key) as sdk:
        sdk.images.generate(model="acme/image-1", prompt="a cube", extra_body={"image_config": config})
    (forwarded,) = quiet_provider.requests()
    assert forwarded["body"] == {"model": "image-1", "prompt": "a cube", "image_config": config}
    assert stack.quota(key)["posted"] == 12_500


def test_what_the_provider_sees(stack: RunningGateway, quiet_provider: SampleProvider) -> None:
    key = stack.make_key(100_000)
    with client(stack, key) as sdk:
        sdk.images.generate(model="acme/image-1", prompt="a cube", user="somebody", quality="high", n=1)
    (forwarded,) = quiet_provider.requests()
    assert forwarded["body"] == {"model": "image-1", "prompt": "a cube", "user": "somebody", "quality": "high", "n": 1}
    headers = dict(forwarded["headers"])
    assert key not in json.dumps(forwarded)
    assert not [name for name in headers if name.startswith("x-stainless")]
    assert headers["user-agent"] == "lightmeter"
    assert headers["accept-encoding"] == "identity"


def test_models(stack: RunningGateway) -> None:
    key = stack.make_key()
    with client(stack, key) as sdk:
        (model,) = sdk.models.list().data
        assert (model.id, model.object, model.owned_by) == ("acme/image-1", "model", "acme")
        assert model.model_extra is not None
        assert model.model_extra["token_multiplier"] == "1"
        assert model.model_extra["prices"] == [{"size": "4K", "quota_units": 12_500}, {"quota_units": 5_000}]
        assert (model.model_extra["settled_by"], model.model_extra["qualities"]) == ("images", [])
        assert "quality" in model.model_extra["parameters"]
        assert sdk.models.retrieve("acme/image-1").id == "acme/image-1"
        with pytest.raises(openai.NotFoundError) as missing:
            sdk.models.retrieve("acme/image-2")
        assert missing.value.code == "model_not_found"
    with client(stack, stack.make_key(models=["other/*"])) as sdk:
        assert sdk.models.list().data == []


def test_insufficient_quota_is_not_retried(stack: RunningGateway) -> None:
    key = stack.make_key(4_999)
    before = rejections(stack)
    with client(stack, key, max_retries=3) as sdk, pytest.raises(openai.RateLimitError) as refused:
        sdk.images.generate(model="acme/image-1", prompt="a cube")
    assert refused.value.code == "insufficient_quota"
    assert refused.value.status_code == 429
    assert refused.value.request_id is not None
    assert refused.value.request_id.startswith("req_")
    assert rejections(stack) == before + 1


def rejections(gateway: RunningGateway) -> float:
    name = 'lightmeter_rejections_total{reason="insufficient_quota"}'
    lines = [line for line in gateway.metrics().splitlines() if line.startswith(name)]
    return float(lines[0].split()[-1]) if lines else 0.0


def test_a_providers_failure_is_retried_and_charged_once(stack: RunningGateway, quiet_provider: SampleProvider) -> None:
    key = stack.make_key(100_000)
    with client(stack, key, max_retries=2) as sdk, pytest.raises(openai.InternalServerError):
        sdk.images.generate(model="acme/image-1", prompt="[sample status=500] a cube")
    assert len(quiet_provider.requests()) == 3
    assert [entry["outcome"] for entry in stack.ledger(key)] == ["failed"] * 3
    assert stack.quota(key)["posted"] == 0
    stack.check_books(key)


@pytest.mark.parametrize(
    ("fields", "kind", "code", "param"),
    [
        ({"model": "nobody/none"}, openai.NotFoundError, "model_not_found", "model"),
        ({"n": 0}, openai.BadRequestError, "invalid_request", "n"),
        ({"n": 11}, openai.BadRequestError, "invalid_request", "n"),
        ({"extra_body": {"seed_phrase": "x"}}, openai.BadRequestError, "unknown_parameter", "seed_phrase"),
        ({"stream": True}, openai.BadRequestError, "invalid_request", "stream"),
    ],
)
def test_errors(
    stack: RunningGateway, fields: dict[str, Any], kind: type[openai.APIStatusError], code: str, param: str
) -> None:
    key = stack.make_key(100_000)
    with client(stack, key) as sdk, pytest.raises(kind) as refused:
        sdk.images.generate(**{"model": "acme/image-1", "prompt": "a cube", **fields})
    assert (refused.value.code, refused.value.param) == (code, param)


def test_an_unknown_key(stack: RunningGateway) -> None:
    with client(stack, "sk-not-one-of-ours") as sdk, pytest.raises(openai.AuthenticationError) as refused:
        sdk.models.list()
    assert refused.value.code == "invalid_api_key"


def test_answers_have_the_shape_that_openai_publishes(stack: RunningGateway) -> None:
    schemas = json.loads((CONTRACT / "openai-images.openapi.json").read_text())["components"]["schemas"]
    key = stack.make_key()
    answer = stack.generate(key, response_format="b64_json", size="256x256").json
    assert set(answer) <= set(schemas["ImagesResponse"]["properties"])
    assert set(schemas["ImagesResponse"].get("required", [])) <= set(answer)
    for image in answer["data"]:
        assert set(image) <= set(schemas["Image"]["properties"])
    models = ask("GET", f"{stack.url}/v1/models", key=key).json
    assert set(schemas["ListModelsResponse"]["required"]) <= set(models)
    assert all(set(schemas["Model"]["required"]) <= set(model) for model in models["data"])
    error = stack.generate(key, n=0).json
    assert set(schemas["Error"]["required"]) == set(error["error"])
