"""Each recipe, against a stand-in that answers with the shape that its provider publishes (``shapes``, as data)."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import openai
import pytest

from proxy.recipes import RECIPES, read_recipe
from tests.end_to_end.test_token_doors import Issuer
from tests.support.gateways import RunningGateway, ask, running_gateway
from tests.support.recording_provider import Answered, RecordingProvider, recording_provider

SHAPES = Path(__file__).parent / "shapes"
GENERATIONS = "/v1/images/generations"
NAMES = sorted(RECIPES)
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(64)
_base64 = b64encode(PICTURE).decode()
PLACES = {"<picture>": PICTURE, "<base64>": _base64, "<address>": f"data:image/png;base64,{_base64}"}
_variable = re.compile(r'_env = "(\w+)"')
_model = re.compile(r'^id = "(\S+)"$', re.MULTILINE)


@dataclass(frozen=True)
class Stage:
    gateway: RunningGateway
    provider: RecordingProvider

    def answer(self, name: str, images: int | None = None) -> dict[str, Any]:
        """Answer as its shape has it, several answers in turn; with no more than so many ``images``."""
        shape: dict[str, Any] = json.loads((SHAPES / f"{name}.json").read_text())
        answers = shape["answer"] if isinstance(shape["answer"], list) else [shape["answer"]]
        bodies = [json.dumps(each | ({"data": each["data"][:images]} if "data" in each else {})) for each in answers]
        turns = cycle(bodies)
        self.provider.answer = lambda _asked: Answered(body=next(turns).encode())
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


def filled(value: Any) -> Any:
    """A shape's JSON with the picture in it, in place of what stands for it."""
    if isinstance(value, dict):
        return {name: filled(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [filled(inner) for inner in value]
    return PLACES.get(value, value) if isinstance(value, str) else value


@pytest.mark.parametrize("name", NAMES)
def test_an_edit_is_asked_for_as_its_provider_takes_it_or_refused_here(play: Stage, name: str) -> None:
    shape = play.answer(name, images=1)
    (model,) = _model.findall(read_recipe(name))
    key, asked_before = play.gateway.make_key(10**9), len(play.provider.asked)
    with openai.OpenAI(base_url=f"{play.gateway.url}/v1", api_key=key, max_retries=0) as sdk:
        if shape["edit"] is None:
            with pytest.raises(openai.BadRequestError, match="makes no edits"):
                sdk.images.edit(model=model, prompt="a cube", image=("a.png", PICTURE))
            assert len(play.provider.asked) == asked_before
            return
        made = sdk.images.edit(model=model, prompt="a cube", image=("a.png", PICTURE))
    assert made.data
    asked, expected = play.provider.last, shape["edit"]
    assert asked.target == expected["target"]
    header, secret = shape["header"]
    assert asked.headers[header] is None if secret is None else str(asked.headers[header]).startswith(secret)
    if "form" in expected:
        assert asked.form == filled(expected["form"])
    else:
        assert asked.json == filled(expected["json"])
    (entry,) = play.gateway.ledger(key)
    assert (entry["outcome"], entry["charged"]) == ("delivered", expected["charged"])


@pytest.mark.parametrize("name", NAMES)
def test_a_refusal_in_the_words_of_its_provider_is_told_and_costs_nothing(play: Stage, name: str) -> None:
    error = play.answer(name)["error"]
    body = error["body"] if isinstance(error["body"], str) else json.dumps(error["body"])
    kind = {"Content-Type": error.get("type", "application/json")}
    play.provider.answer = lambda _asked: Answered(error["status"], body.encode(), kind)
    (model,) = _model.findall(read_recipe(name))
    key = play.gateway.make_key(10**9)
    answer = ask("POST", play.gateway.url + GENERATIONS, key=key, body={"model": model, "prompt": "a cube"})
    assert answer.status == error["seen"], answer.body
    assert error["message"] in answer.json["error"]["message"]
    play.gateway.check_books(key)
    assert sum(entry["charged"] for entry in play.gateway.ledger(key)) == 0


@pytest.mark.parametrize(("name", "size"), [("seedream", "1024x1024"), ("recraft", "1707x1024"), ("xai", "1792x1024")])
def test_a_size_that_its_provider_does_not_make_is_refused_here(play: Stage, name: str, size: str) -> None:
    play.answer(name)
    (model,) = _model.findall(read_recipe(name))
    key, asked_before = play.gateway.make_key(10**9), len(play.provider.asked)
    body = {"model": model, "prompt": "a cube", "size": size}
    answer = ask("POST", play.gateway.url + GENERATIONS, key=key, body=body)
    assert (answer.status, answer.json["error"]["param"]) == (400, "size")
    assert len(play.provider.asked) == asked_before


@pytest.mark.parametrize("name", ["azure-mai", "azure-flux", "seedream", "vllm-omni"])
def test_a_mask_that_its_provider_does_not_take_is_refused_here(play: Stage, name: str) -> None:
    play.answer(name)
    (model,) = _model.findall(read_recipe(name))
    picture = ("a.png", PICTURE)
    with (
        openai.OpenAI(base_url=f"{play.gateway.url}/v1", api_key=play.gateway.make_key(10**9), max_retries=0) as sdk,
        pytest.raises(openai.BadRequestError, match="'mask' should be left out"),
    ):
        sdk.images.edit(model=model, prompt="a cube", image=picture, mask=picture)


WRONG_KEYS: dict[str, dict[str, Any]] = {
    "xai": {
        "code": "Client specified an invalid argument",
        "error": "Incorrect API key provided: se***EY. You can obtain an API key from https://console.x.ai.",
    },
    "gemini": {
        "error": {
            "code": 400,
            "message": "API key not valid. Please pass a valid API key.",
            "status": "INVALID_ARGUMENT",
            "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
        }
    },
}


@pytest.mark.parametrize("name", WRONG_KEYS)
def test_a_400_that_is_about_the_key_is_the_operators_and_shows_nothing_of_it(play: Stage, name: str) -> None:
    play.provider.answer = lambda _asked: Answered(400, json.dumps(WRONG_KEYS[name]).encode())
    (model,) = _model.findall(read_recipe(name))
    body = {"model": model, "prompt": "a cube"}
    answer = ask("POST", play.gateway.url + GENERATIONS, key=play.gateway.make_key(10**9), body=body)
    assert answer.status == 502, answer.body
    assert b"API key" not in answer.body
