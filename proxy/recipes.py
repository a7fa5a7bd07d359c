"""Configurations of providers that work as they are: where they are in a wheel, and in a checkout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_PLACES = (Path(__file__).parent / "cli" / "recipe_files", Path(__file__).parents[1] / "config" / "recipes")


def _find() -> Mapping[str, Path]:
    folder = next((place for place in _PLACES if place.is_dir()), _PLACES[0])
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


RECIPES: Mapping[str, Path] = _find()
"""Those that there are, by name."""


def read_recipe(name: str) -> str:
    """The recipe of this name, which is one of ``RECIPES``."""
    return RECIPES[name].read_text(encoding="utf-8")


def about(text: str) -> str:
    """What a recipe is for: its first line."""
    return text.partition("\n")[0].removeprefix("# ")
