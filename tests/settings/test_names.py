"""Other names of models, their ends, and models that stand in for others; and what is told of mistakes in them."""

from __future__ import annotations

import copy
import re
from datetime import UTC, date, datetime
from typing import Any

import pytest

from proxy.domain.retirement import Retirement
from proxy.settings.mistakes import ConfigurationError
from proxy.settings.settings import Settings, read_settings

DAY = date(2026, 12, 1)
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
    return [re.sub(r" \(model '.*'\)$", "", line.removeprefix("file: ")) for line in str(caught.value).splitlines()]


def test_an_alias_is_the_model_that_it_stands_for() -> None:
    settings = read(alias("image-latest", "acme/image-2"), made("acme/image-1"), made("acme/image-2"))
    catalog = settings.catalog()
    assert catalog.get("image-latest") is catalog.get("acme/image-2")
    assert [model.id for model in catalog.all()] == ["acme/image-1", "acme/image-2"]
    assert [name for name, _model in catalog.names(0)] == ["acme/image-1", "acme/image-2", "image-latest"]
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
                "models[2].id: is 'b c': should have no blanks and no control characters",
                "models[3].alias_of: is 7: should be a string, in quotes",
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


# --- Until when -------------------------------------------------------------------------------------------------------


def test_a_model_and_an_alias_may_retire() -> None:
    settings = read(
        made("a") | {"retires": DAY, "replaced_by": "b"}, made("b"), alias("c", "a", retires=date(2026, 11, 1))
    )
    assert settings.catalog().retirements == {
        "a": Retirement("2026-12-01", 1_796_083_200, "b"),
        "c": Retirement("2026-11-01", 1_793_491_200),
    }
    assert settings.warnings(datetime(2026, 11, 26, tzinfo=UTC).timestamp()) == [
        "The model 'a' retires on 2026-12-01, and is refused from then on; use 'b' instead.",
        "The model 'c' was retired on 2026-11-01.",
    ]
    assert read(made("a")).warnings(0) == []


def test_a_replacement_may_retire_later_or_be_an_alias_of_another_model() -> None:
    ends = {"retires": DAY, "replaced_by": "b"}
    later = read(made("a") | ends, made("b") | {"retires": date(2026, 12, 2)}).catalog().retirements
    assert (later["a"].replaced_by, later["b"].day) == ("b", "2026-12-02")
    another = read(made("a") | ends, made("c"), alias("b", "c")).catalog().retirements
    assert another["a"].replaced_by == "b"


@pytest.mark.parametrize("value", ["2026-12-01", 1_764_547_200, datetime(2026, 12, 1, tzinfo=UTC), True])
def test_the_day_is_written_as_toml_has_it(value: object) -> None:
    assert "should be a day without quotes, like 2026-12-01" in mistakes(made("a") | {"retires": value})[0]


@pytest.mark.parametrize(
    ("replaced_by", "others", "told"),
    [
        ("b", [], "no model has the id 'b'; there are ['a']"),
        ("a", [], "'a' is this model itself"),
        ("b", [alias("b", "a")], "'b' is this model itself"),
        ("b", [made("b") | {"retires": DAY}], "'b' retires on 2026-12-01, which is no later"),
    ],
)
def test_a_replacement_has_to_be_there(replaced_by: str, others: list[Any], told: str) -> None:
    retiring = made("a") | {"retires": DAY, "replaced_by": replaced_by}
    assert mistakes(retiring, *others) == [f"models[0].replaced_by: {told}"]


def test_a_replacement_without_a_day_says_nothing() -> None:
    assert mistakes(made("a") | {"replaced_by": "b"}, made("b")) == [
        "models[0].replaced_by: is given without retires, the day from which on the model is refused"
    ]


# --- Other models instead ---------------------------------------------------------------------------------------------


def test_a_model_may_have_others_that_stand_in_for_it() -> None:
    catalog = read(
        made("a") | {"fallback": ["b", "latest"]}, made("b") | {"fallback": ["a"]}, made("c"), made("d"),
        alias("latest", "c"),
    ).catalog()  # fmt: skip
    assert [model.id for model in catalog.instead_of(catalog.get("a"), 0)] == ["b", "c"]
    assert [model.id for model in catalog.instead_of(catalog.get("b"), 0)] == ["a"]
    assert catalog.instead_of(catalog.get("d"), 0) == []
    # Each of them has a breaker, and nobody else.
    deployments = {model.id: [each.provider for each in model.deployments] for model in catalog.all()}
    assert deployments == {"a": ["acme"], "b": ["acme"], "c": ["acme"], "d": []}


def test_one_that_has_retired_stands_in_for_nobody() -> None:
    catalog = read(made("a") | {"fallback": ["b", "c"]}, made("b") | {"retires": DAY}, made("c")).catalog()
    model = catalog.get("a")
    assert [each.id for each in catalog.instead_of(model, 1_796_083_199)] == ["b", "c"]
    assert [each.id for each in catalog.instead_of(model, 1_796_083_200)] == ["c"]


@pytest.mark.parametrize(
    ("fallback", "told"),
    [
        (["x"], ["models[0].fallback[0]: no model has the id 'x'; there are ['a', 'b', 'also-a', 'also-b']"]),
        (["a"], ["models[0].fallback[0]: 'a' is this model itself"]),
        (["b", "also-a"], ["models[0].fallback[1]: 'also-a' is this model itself"]),
        (["b", "also-b"], ["models[0].fallback[1]: 'also-b' is there already"]),
        (["b", "b"], ["models[0].fallback[1]: 'b' is there already"]),
    ],
)
def test_only_another_model_stands_in_for_one(fallback: list[str], told: list[str]) -> None:
    others = made("b"), alias("also-a", "a"), alias("also-b", "b")
    assert mistakes(made("a") | {"fallback": fallback}, *others) == told


def test_an_alias_has_no_fallback_of_its_own() -> None:
    assert mistakes(made("a"), made("b"), alias("c", "a", fallback=["b"])) == [
        "models[2].fallback: stands beside alias_of: it belongs to the model that the alias stands for"
    ]


def test_a_model_that_is_read_again_is_the_same_and_keeps_what_is_known_of_its_deployments() -> None:
    worded = {"constants": {"watermark": False}, "rename": {"size": "dimensions"}}
    priced = {"prices": [{"quality": "high", "base": 9}], "inputs": {"image": 3}}
    by_usage = {"settle": {"by": "usage", "per_million": {"output_image": 7}}}
    models = [
        made("a") | worded | priced | {"fallback": ["b"]}, made("b") | by_usage, made("c") | priced,
        {"id": "d", "token_multiplier": "1", "deployments": [{"provider": "acme", "upstream_model": "x"}], **priced},
    ]  # fmt: skip
    before, after = (read(*copy.deepcopy(models)).catalog() for _ in range(2))
    assert [*before.all()] == [*after.all()]
    (deployment,) = before.get("a").deployments
    assert deployment.wording is not None
    assert deployment.wording.constants == {"watermark": False}
    dearer = [*models[:2], made("c") | {"prices": [{"quality": "high", "base": 10}], "inputs": {"image": 3}}]
    assert read(*dearer).catalog().get("c") != before.get("c")
