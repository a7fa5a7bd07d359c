from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from proxy.domain.billing.pricing import price
from proxy.domain.catalog import UNITS_LIMIT, Model
from proxy.domain.prices.settling import Prices, SettleBy
from proxy.domain.requests.image import parse_image_request
from tests.settings.test_settings import LEAST, File

PRICES = """
[[models.prices]]
quality = " High "
size = "1536X1024"
task = "generation"
min_pixels = 1_000_000
base = 18_000

[[models.prices]]
base = 1_000

[models.inputs]
image = 800

[models.settle]
by = "usage"
per_million = { input_text = 500_000, output_image = 3_000_000 }
"""


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path)


def model_of(file: File, text: str, *, accounting: str = "") -> Model:
    return file.load(f"{accounting}{LEAST}{text}").catalog().get("acme/image-1")


def prices_of(file: File, text: str, *, accounting: str = "") -> Prices:
    prices = model_of(file, text, accounting=accounting).prices
    assert prices is not None
    return prices


def test_a_model_has_the_prices_of_its_sections_worked_out(file: File) -> None:
    model = model_of(file, PRICES)
    prices = model.prices
    assert prices is not None
    assert [(rule.name, prices.table.units_of(rule)) for rule in prices.table.rules] == [
        ("task=generation quality=high size=1536x1024 min_pixels=1000000", 18_000),
        ("any", 1_000),
    ]
    assert [prices.table.quality_written(each) for each in ("high", "HIGH ", "low")] == ["High", "High", "low"]
    assert (prices.reference_units, prices.settling.by) == (800, SettleBy.USAGE)
    assert prices.settling.per_million == {
        "input_text": 500_000, "input_image": 0, "output_text": 0, "output_image": 3_000_000
    }  # fmt: skip
    assert model.least_units == 1_000


def test_every_price_is_rounded_up_once_after_the_multiplier(file: File) -> None:
    text = LEAST.replace("token_multiplier = 1", 'token_multiplier = "1.0001"') + PRICES
    model = file.load(text).catalog().get("acme/image-1")
    assert model.prices is not None
    assert [model.prices.table.units_of(rule) for rule in model.prices.table.rules] == [18_002, 1_001]
    assert model.prices.reference_units == 801


def test_a_model_without_any_has_none(file: File) -> None:
    assert model_of(file, "").prices is None


def test_a_cost_is_charged_by_the_units_of_a_dollar(file: File) -> None:
    prices = prices_of(file, '[models.settle]\nby = "cost"', accounting="[accounting]\nunits_per_usd = 100_000.5\n")
    assert prices.settling.units_per_usd == Decimal("100000.5")
    assert prices.settling.cost_units(Decimal("0.1")) == 10_001


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        ("[[models.prices]]\nbase = -1", "models[0].prices[0].base", ["is -1", "greater than or equal to 0"]),
        ("[[models.prices]]\nbase = 1.5", "models[0].prices[0].base", ["is 1.5", "integer"]),
        ("[[models.prices]]\nbase = true", "models[0].prices[0].base", ["integer"]),
        ("[[models.prices]]\nquality = 'low'", "models[0].prices[0].base", ["is missing"]),
        ("[[models.prices]]\nbase = 1\nquality = 'auto'", "models[0].prices[0].quality", ["leaves it open"]),
        ("[[models.prices]]\nbase = 1\nsize = ' AUTO'", "models[0].prices[0].size", ["leaves it open"]),
        ("[[models.prices]]\nbase = 1\nsize = '1024*1024'", "models[0].prices[0].size", ["WIDTHxHEIGHT", "2K"]),
        ("[[models.prices]]\nbase = 1\ntask = 'draw'", "models[0].prices[0].task", ["generation, edit, varia"]),
        ("[[models.prices]]\nbase = 1\nmin_pixels = 0", "models[0].prices[0].min_pixels", ["is 0", "equal to 1"]),
        ("[[models.prices]]\nbase = 1\nn = 2", "models[0].prices[0].n", ["is not a setting"]),
        ("[models.prices]\nbase = 1", "models[0].prices", ["[[models.prices]]"]),
        ("[models.inputs]\nimage = 'x'", "models[0].inputs.image", ["is 'x'", "integer"]),
        ("[models.settle]\nby = 'tokens'", "models[0].settle.by", ["is 'tokens'", "images, usage, cost"]),
        ("[models.settle]\nby = 'usage'", "models[0].settle", ["per_million: is missing", "output_image = 3_000_000"]),
        ("[models.settle]\nby = 'cost'", "models[0].settle.by", ["accounting.units_per_usd is missing", "US dollar"]),
        (
            "[models.settle]\nper_million = { output = 1 }",
            "models[0].settle.per_million.output",
            ["is not a setting"],
        ),
        (
            "[[models.prices]]\nbase = 1_000_000_000_000",
            "models[0].prices[0].base",
            ["is 1000000000000", "less than 450,359,962,737 at this token_multiplier", "2^53"],
        ),
        ("[models.inputs]\nimage = 1_000_000_000_000", "models[0].inputs.image", ["less than 450,359,962,737", "2^53"]),
    ],
)  # fmt: skip
def test_a_mistake_says_what_is_wrong_and_what_would_be_right(
    file: File, text: str, key: str, words: list[str]
) -> None:
    (mistake,) = file.mistakes(LEAST + text)
    assert mistake.startswith(f"{key}: ")
    for word in words:
        assert word in mistake


def test_a_cost_that_could_pass_what_can_be_counted_is_refused(file: File) -> None:
    text = "[accounting]\nunits_per_usd = 1_000_000_000_000\n" + LEAST + "[models.settle]\nby = 'cost'"
    (mistake,) = file.mistakes(text)
    assert mistake.startswith("models[0].settle.by: ")
    assert "less than 450,359,962,737" in mistake


def test_tokens_that_could_pass_what_can_be_counted_are_refused(file: File) -> None:
    text = LEAST.replace("token_multiplier = 1", "token_multiplier = 1000")
    (mistake,) = file.mistakes(text + "[models.settle]\nper_million = { output_text = 3_000_000_000 }")
    assert mistake.startswith(
        "models[0].settle.per_million.output_text: is 3000000000: should be less than 2,097,152,000"
    )


def test_the_dearest_that_is_taken_can_be_counted(file: File) -> None:
    text = f"[[models.prices]]\nbase = {UNITS_LIMIT // 2 // 10_000 - 1}"
    model = model_of(file, text)
    quote = price(parse_image_request(b'{"prompt":"a cube","n":1000}'), model)
    assert quote.units * 10 < UNITS_LIMIT


def test_pixels_are_words_where_its_provider_is_asked_in_words(file: File) -> None:
    text = "[[models.prices]]\nsize = '2K'\nbase = 9_000"
    for dialect, units in (("openai", 5_000), ("gemini", 9_000), ("openrouter", 9_000)):
        given = LEAST.replace('name = "acme"', f'name = "acme"\ndialect = "{dialect}"') + text
        model = file.load(given).catalog().get("acme/image-1")
        assert price(parse_image_request(b'{"prompt":"a cube","size":"2048x2048"}'), model).units == units
