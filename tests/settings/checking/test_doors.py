from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from yarl import URL

from proxy.settings.checking.doors import PATHS, check_door
from tests.settings.test_settings import GOOD, File, changed
from tests.support.processes import ROOT


@pytest.mark.parametrize("given", ["https://api.openai.com", "https://api.openai.com/"])
def test_a_known_provider_without_its_path_is_told_what_to_write(given: str) -> None:
    assert [*check_door(given, ())] == [
        "base_url: api.openai.com has its API below /v1: write https://api.openai.com/v1"
    ]


@pytest.mark.parametrize(
    ("given", "paths"),
    [
        ("https://api.openai.com/v1", ()),
        ("https://api.openai.com/other", ()),
        ("https://api.openai.com", ("generations",)),
        ("https://images.example", ()),
        ("http://127.0.0.1:9090", ()),
    ],
)
def test_what_may_be_meant_is_left_alone(given: str, paths: tuple[str, ...]) -> None:
    assert [*check_door(given, paths)] == []


def test_every_recipe_and_every_dialect_of_a_known_host_has_its_path() -> None:
    recipes = [tomllib.loads(path.read_text()) for path in (ROOT / "config" / "recipes").glob("*.toml")]
    given = [provider["base_url"] for recipe in recipes for provider in recipe["providers"]]
    given += re.findall(r"^\| `\w+` \| `(https://\S+)` \|", (ROOT / "config" / "README.md").read_text(), re.MULTILINE)
    urls = [URL(each) for each in given]
    assert {url.host: url.path for url in urls if url.host in PATHS}.items() <= PATHS.items()
    assert len({url.host for url in urls if url.host in PATHS}) > 10


def test_it_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    (mistake,) = File(tmp_path).mistakes(changed("https://api.acme.example/v1", "https://api.openai.com", GOOD))
    assert mistake.startswith("providers[0].base_url: api.openai.com has its API below /v1")
