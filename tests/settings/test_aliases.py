"""Other names of models: which are taken, and how a mistake in one is explained."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.settings.mistakes import ConfigurationError
from proxy.settings.settings import Settings, read_settings

PROVIDER = {"name": "acme", "base_url": "https://api.acme.example/v1"}


def made(model_id: str) -> dict[str, Any]:
    return {"id": model_id, "provider": "acme", "upstream_model": "image-1", "token_multiplier": "1.5"}


def alias(name: str, alias_of: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "alias_of": alias_of, **more}


def read(*models: Any, **server: Any) -> Settings:
    return read_settings({"server": server, "providers": [PROVIDER], "models": list(models)}, "file", {})


def mistakes(*models: Any, **server: Any) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(*models, **server)
    return [line.removeprefix("file: ") for line in str(caught.value).splitlines()]


def test_an_alias_is_the_model_that_it_stands_for() -> None:
    settings = read(alias("image-latest", "acme/image-2"), made("acme/image-1"), made("acme/image-2"))
    catalog = settings.catalog()
    assert catalog.get("image-latest") is catalog.get("acme/image-2")
    assert [model.id for model in catalog.all()] == ["acme/image-1", "acme/image-2"]
    assert [name for name, _model in catalog.names()] == ["acme/image-1", "acme/image-2", "image-latest"]
    assert [model.id for model in settings.all_models] == ["image-latest", "acme/image-1", "acme/image-2"]


def test_an_alias_may_serve_requests_that_name_no_model() -> None:
    settings = read(made("acme/image-1"), alias("latest", "acme/image-1"), default_model="latest")
    assert settings.catalog().default_model == "latest"


@pytest.mark.parametrize(
    ("setting", "value"),
    [("token_multiplier", "2"), ("provider", "acme"), ("parameters", ["n"]), ("deployments", []), ("typo", 1)],
)
def test_nothing_else_may_stand_beside_alias_of(setting: str, value: object) -> None:
    assert mistakes(made("acme/image-1"), alias("latest", "acme/image-1", **{setting: value})) == [
        f"models[1].{setting}: stands beside alias_of: it belongs to the model that the alias stands for"
    ]


@pytest.mark.parametrize(
    ("models", "told"),
    [
        (
            [made("a"), alias("b", "c")],
            ["models[1].alias_of: no model has the id 'c'; there are ['a']"],
        ),
        (
            [made("a"), alias("b", "a"), alias("c", "b")],
            ["models[2].alias_of: 'b' is an alias itself: name the model that it stands for"],
        ),
        (
            [made("a"), alias("b", "c"), alias("c", "b")],
            [
                "models[1].alias_of: 'c' is an alias itself: name the model that it stands for",
                "models[2].alias_of: 'b' is an alias itself: name the model that it stands for",
            ],
        ),
        (
            [made("a"), alias("b", "b")],
            ["models[1].alias_of: 'b' is an alias itself: name the model that it stands for"],
        ),
        ([made("a"), alias("a", "a")], ["models[1].id: there is another model 'a'"]),
        ([made("a"), alias("b", "a"), alias("b", "a")], ["models[2].id: there is another model 'b'"]),
        (
            [made("a"), {"alias_of": "a"}, alias("b c", "a"), {"id": "b", "alias_of": 7}],
            [
                "models[1].id: is missing",
                "models[2].id: is 'b c': string should match pattern '^[^\\s\\x00-\\x1f]+$'",
                "models[3].alias_of: is 7: input should be a valid string",
            ],
        ),
        ([7], ["models[0]: should be a section with settings of its own, [[models]]"]),
    ],
)
def test_a_mistake_in_an_alias_is_told_with_its_place(models: list[Any], told: list[str]) -> None:
    assert mistakes(*models) == told


def test_mistakes_in_models_beside_aliases_have_their_place_in_the_file() -> None:
    wrong = made("acme/image-1") | {"provider": "nobody"}
    assert mistakes(alias("latest", "acme/image-1"), wrong) == [
        "models[1].provider: no provider is named 'nobody'; there are ['acme']"
    ]
    assert mistakes(alias("latest", "acme/image-1"), made("acme/image-1") | {"token_multiplier": "x"})[0].startswith(
        "models[1].token_multiplier: is 'x'"
    )
