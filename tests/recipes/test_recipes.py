"""Each recipe, against a stand-in that answers with the shape that its provider publishes (``shapes``, as data)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from proxy.cli.recipes import RECIPES, read_recipe
from tests.end_to_end.test_token_doors import Issuer
from tests.support.gateways import RunningGateway, ask, running_gateway
from tests.support.recording_provider import Answered, RecordingProvider, recording_provider

SHAPES = Path(__file__).parent / "shapes"
GENERATIONS = "/v1/images/generations"
NAMES = sorted(RECIPES)
_variable = re.compile(r'_env = "(\w+)"')
_model = re.compile(r'^id = "(\S+)"$', re.MULTILINE)


@dataclass(frozen=True)
class Stage:
    gateway: RunningGateway
    provider: RecordingProvider

    def answer(self, name: str) -> dict[str, Any]:
        shape: dict[str, Any] = json.loads((SHAPES / f"{name}.json").read_text())
        self.provider.answer = lambda _asked: Answered(body=json.dumps(shape["answer"]).encode())
        return shape


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One gateway with all of them: their names are their own."""
    folder = tmp_path_factory.mktemp("recipes")
    texts = [read_recipe(name) for name in NAMES]
    with ExitStack() as stack:
        provider, tokens = (stack.enter_context(recording_provider()) for _ in range(2))
        tokens.answer = Issuer().answer
        host = tokens.url.removeprefix("http://")
        toml = f"""
[server]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[store]
url = "embedded:{folder}/data"
""" + re.sub(r'(base_url = ")https?://[^/"]+', rf"\1{provider.url}", "\n".join(texts))
        variables = {name: f"secret-{name}" for text in texts for name in _variable.findall(text)}
        clouds = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": tokens.url, "GCE_METADATA_HOST": host, "GCE_METADATA_IP": host}
        gateway = stack.enter_context(running_gateway(folder, toml, variables | clouds))
        yield Stage(gateway, provider)


def test_every_recipe_has_a_shape() -> None:
    assert sorted(path.stem for path in SHAPES.iterdir()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_asks_as_its_provider_wants_and_reads_what_it_answers(play: Stage, name: str) -> None:
    shape = play.answer(name)
    (model,) = _model.findall(read_recipe(name))
    key = play.gateway.make_key(10**9)
    answer = ask("POST", play.gateway.url + GENERATIONS, key=key, body={"model": model, **shape["ask"]})
    assert answer.status == 200, answer.body
    asked = play.provider.last
    assert asked.target == shape["target"]
    assert asked.json == shape["sent"]
    header, secret = shape["header"]
    if secret is None:
        assert asked.headers[header] is None
    else:
        assert str(asked.headers[header]).startswith(secret)
    images = answer.json["data"]
    assert len(images) == shape["images"]
    assert all(image.get("b64_json") or image.get("url") for image in images)
    (entry,) = play.gateway.ledger(key)
    assert (entry["outcome"], entry["images"], entry["charged"]) == ("delivered", shape["images"], shape["charged"])
    play.gateway.check_books(key)


@pytest.mark.parametrize("name", NAMES)
def test_the_openai_sdk_needs_no_more_than_a_prompt(play: Stage, name: str) -> None:
    play.answer(name)
    (model,) = _model.findall(read_recipe(name))
    with openai.OpenAI(base_url=f"{play.gateway.url}/v1", api_key=play.gateway.make_key(10**9)) as sdk:
        made = sdk.images.generate(model=model, prompt="a cube")
    assert made.data
    assert made.data[0].b64_json or made.data[0].url


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("azure-openai", "/openai/v1/images/edits"),
        (
            "azure-openai-deployment",
            "/openai/deployments/gpt-image-2.6-flare/images/edits?api-version=2025-04-01-preview",
        ),
        ("azure-openai-entra", "/openai/v1/images/edits"),
    ],
)
def test_an_edit_takes_the_same_door(play: Stage, name: str, target: str) -> None:
    shape = play.answer(name)
    (model,) = _model.findall(read_recipe(name))
    picture = b"\x89PNG\r\n\x1a\n" + bytes(64)
    with openai.OpenAI(base_url=f"{play.gateway.url}/v1", api_key=play.gateway.make_key(10**9)) as sdk:
        made = sdk.images.edit(model=model, prompt="a cube", image=("a.png", picture), quality="high")
    assert made.data
    asked = play.provider.last
    assert asked.target == target
    assert str(asked.headers[shape["header"][0]]).startswith(shape["header"][1])
    named = {"model": "gpt-image-2.6-flare"} if "model" in shape["sent"] else {}
    assert asked.form == {**named, "prompt": "a cube", "quality": "high", "image": picture}
