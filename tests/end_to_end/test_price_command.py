"""``lightmeter price`` and ``GET /v1/models``: what a model costs is what is charged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.test_command_line import lightmeter, run
from tests.support.gateways import RunningGateway, ask, configuration, image_model, running_gateway
from tests.support.price_tables import UNITS_PER_USD, VECTORS, images_answer, path_of, request_of
from tests.support.scripted_provider import ScriptedProvider, scripted_provider


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    with scripted_provider(lambda _number: images_answer({"images": 1})) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("price-command")


@pytest.fixture(scope="module")
def gateway(provider: ScriptedProvider, folder: Path) -> Iterator[RunningGateway]:
    models = [{**image_model(f"acme/{number}"), **vector["model"]} for number, vector in enumerate(VECTORS)]
    accounting = {"units_per_usd": UNITS_PER_USD}
    toml = configuration(f"embedded:{folder}/data", provider.url, models=models, accounting=accounting)
    with running_gateway(folder, toml) as running:
        yield running


def priced(folder: Path, *arguments: str) -> Any:
    environment = {"SAMPLE_PROVIDER_KEY": "sk-any"}
    config = ("--config", str(folder / "lightmeter.toml"))
    return json.loads(lightmeter("price", *arguments, *config, "--json", environment=environment))


@pytest.mark.parametrize("number", range(0, len(VECTORS), 3))
def test_it_shows_what_the_gateway_reserves_and_charges(
    gateway: RunningGateway, provider: ScriptedProvider, folder: Path, number: int
) -> None:
    vector = VECTORS[number]
    request, answer = vector["request"], vector["answer"]
    options = [f"--{name}={value}" for name, value in request.items() if name in ("n", "quality", "size")]
    if "image_config" in request:
        options.append(f"--image-size={request['image_config']['image_size']}")
    options += [f"--task={vector.get('task', 'generation')}", f"--references={vector.get('reference_images', 0)}"]
    shown = priced(folder, f"acme/{number}", *options, f"--images={answer['images']}")
    provider.script = lambda _number: images_answer(answer)
    key = gateway.make_key(10_000_000)
    body = request_of(vector, model=f"acme/{number}")
    ask("POST", gateway.url + path_of(vector), key=key, body=body)
    (entry,) = gateway.ledger(key)
    assert (shown["reserved"], shown["reserved_usd"]) == (entry["reserved"], entry["reserved_usd"])
    assert shown["rule"] == entry.get("price_rule", "default")
    assert (
        entry["charged"] in [each["charged"] for each in shown["answers"]] or "usage" in answer or "cost_usd" in answer
    )


def test_it_says_why_for_people(gateway: RunningGateway, folder: Path) -> None:
    number = next(place for place, vector in enumerate(VECTORS) if vector["name"] == "low")
    config = ("--config", str(folder / "lightmeter.toml"))
    environment = {"SAMPLE_PROVIDER_KEY": "sk-any"}
    left_open = lightmeter("price", f"acme/{number}", *config, environment=environment)
    assert "quality and size left open: the dearest price that it may come to is reserved" in left_open
    assert "45,000" in left_open
    named = lightmeter("price", f"acme/{number}", "--quality=low", "--size=1K", *config, environment=environment)
    assert "of the rules that match, the one that names most" in named
    assert [line.split() for line in named.splitlines() if line.startswith("quality=low")] == [
        ["quality=low", "2,000", "yes"]
    ]
    wrong = run("price", "acme/none", *config, environment=environment)
    assert wrong.returncode == 1
    assert "does not exist" in wrong.stderr


def test_the_models_say_what_they_cost(gateway: RunningGateway) -> None:
    listed = ask("GET", f"{gateway.url}/v1/models", key=gateway.make_key()).json["data"]
    models = {int(model["id"].partition("/")[2]): model for model in listed}
    number = next(place for place, vector in enumerate(VECTORS) if vector.get("reference_images"))
    model = models[number]
    assert model["prices"] == [
        {"quality": "high", "size": "1536x1024", "quota_units": 45_000, "quota_units_usd": "0.45"},
        {"size": "4k", "quota_units": 67_500, "quota_units_usd": "0.675"},
        {"quality": "high", "quota_units": 30_000, "quota_units_usd": "0.30"},
        {"quality": "low", "quota_units": 3_000, "quota_units_usd": "0.03"},
        {"size": "4K", "quota_units": 18_750, "quota_units_usd": "0.1875"},
        {"quota_units": 7_500, "quota_units_usd": "0.075"},
    ]
    assert (model["sizes"], model["qualities"]) == (["1536x1024", "4k"], ["high", "low"])
    assert model["reference_image"] == {"quota_units": 1_200, "quota_units_usd": "0.012"}
    assert "quality" in model["parameters"]
    by = {model["settled_by"] for model in models.values()}
    assert by == {"images", "usage", "cost"}
