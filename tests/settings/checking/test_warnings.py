from __future__ import annotations

from pathlib import Path

import pytest

from tests.settings.test_settings import LEAST, File

LISTED = 'parameters = ["n", "size", "quality"]\n'
LOW, HIGH, ANY = (
    '[[models.prices]]\nquality = "low"\nbase = 2_000\n',
    '[[models.prices]]\nquality = "high"\nbase = 20_000\n',
    "[[models.prices]]\nbase = 9_000\n",
)
LARGE = '[[models.prices]]\nsize = "4K"\nbase = 45_000\n'


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path)


def warnings(file: File, text: str, multiplier: str = "1") -> list[str]:
    given = LEAST.replace("token_multiplier = 1", f'token_multiplier = "{multiplier}"')
    return file.load(given + text).warnings(0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        LISTED + LOW + HIGH + ANY + LARGE,
        LISTED + ANY,
        'sizes = ["1024x1024", "4K"]\n' + LARGE + LARGE.replace("4K", "1024x1024"),
        LISTED + LOW + ANY + "[models.settle]\nby = 'usage'\nper_million = "
        "{ input_text = 1, input_image = 1, output_text = 1, output_image = 1 }",
    ],
)
def test_of_prices_that_are_meant_nothing_is_said(file: File, text: str) -> None:
    assert warnings(file, text) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            LISTED + LOW + HIGH,
            ["acme/image-1: prices", "quality for some values only (high, low)", "5,000"],
        ),
        (LISTED + LARGE, ["size for some values only (4k)", "add a rule without size"]),
        (LOW + ANY, ["rules name quality (low)", "parameters do not list quality", "never hears of it"]),
        (LISTED + ANY + ANY.replace("9_000", "8_000"), ["the rule 'any' of base 8000 never wins"]),
        (
            LISTED + ANY + '[[models.prices]]\nsize = "1024x1024"\nmin_pixels = 9_000_000\nbase = 1\n',
            ["'size=1024x1024 min_pixels=9000000' of base 1 never wins"],
        ),
        (
            "[models.settle]\nby = 'usage'\nper_million = { input_text = 1, output_image = 1 }",
            ["input_image, output_text have no price", "charges nothing"],
        ),
        (LISTED + ANY + LOW.replace("2_000", "0"), ["the rule 'quality=low' makes a unit price of 0", "cost nothing"]),
    ],
)
def test_what_is_probably_not_meant_is_told(file: File, text: str, words: list[str]) -> None:
    (warning,) = warnings(file, text)
    for word in words:
        assert word in warning


def test_a_multiplier_of_nothing_is_told(file: File) -> None:
    (warning,) = warnings(file, "", multiplier="0")
    assert warning.startswith("acme/image-1: token_multiplier is 0, which makes its unit price 0")


# --- Settings without any effect --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "model", "told"),
    [
        (
            "poll_interval = 2",
            "",
            "acme: poll_interval has no effect: the dialect 'openai' is not polled",
        ),
        (
            'dialect = "gemini"\npoll_hosts = []\nresult_hosts = ["x.example"]',
            "",
            "acme: poll_hosts, result_hosts have no effect: the dialect 'gemini' is not polled",
        ),
        (
            "",
            'response_format = "b64_json"',
            "acme/image-1: response_format has no effect: no provider of it is polled",
        ),
        (
            "",
            "[models.settle.per_million]\noutput_image = 5",
            'acme/image-1: settle.per_million has no effect with by = "images"; by = "usage" charges by it',
        ),
        ('dialect = "bfl"\npoll_interval = 2\npoll_hosts = []', 'response_format = "b64_json"', None),
    ],
)
def test_settings_without_any_effect_are_told(file: File, provider: str, model: str, told: str | None) -> None:
    text = LEAST.replace("[[models]]", f"{provider}\n[[models]]") + model
    assert file.load(text).warnings(0) == ([] if told is None else [told])


def test_pauses_cannot_grow_to_less_than_they_begin_with(file: File) -> None:
    assert file.mistakes(LEAST.replace("[[models]]", 'dialect = "bfl"\npoll_interval = 9\n[[models]]')) == [
        "providers[0].max_poll_interval: is less than poll_interval, 9, from which the pauses grow"
    ]
