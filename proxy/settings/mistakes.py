"""Mistakes of the configuration in words: where, what is wrong, and what would be right."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic_core import ErrorDetails

from proxy.telemetry.program import PROGRAM

ENVIRONMENT = "the environment"
SECTION_LISTS = ("providers", "models", "models.deployments", "models.prices", "admin.tokens", "alerts")
SECTIONS_WITHIN = ("admin.oidc",)
"""Sections of sections: no variable of the environment is one."""

MODEL_TAG, ALIAS_TAG = "<model>", "<alias>"
"""What distinguishes the kinds of ``[[models]]``; the place of a mistake holds it, and nobody reads it."""


_WORDS = {
    "string_type": "should be a string, in quotes",
    "dict_type": 'should be a table, like { name = "value" }',
    "tuple_type": 'should be a list, like ["value"]',
}
"""Of pydantic's types of errors, those that it tells in Python's words."""

_KEY_OF_A_TABLE = "[key]"
"""What pydantic adds to the place of a table's name that is not allowed."""

_in_a_list = re.compile(r": (models|providers)\[([0-9]+)\]")


class ConfigurationError(Exception):
    """The configuration cannot be used; the message reports every mistake, one a line."""


class AddressInUseError(ConfigurationError):
    """Something else listens at the ``address`` that ``setting`` names."""

    def __init__(self, message: str, setting: str, address: str) -> None:
        """Keep all of them."""
        super().__init__(message)
        self.setting = setting
        self.address = address


def describe(error: ErrorDetails, source: str, overridden: Mapping[str, str], known: Collection[str]) -> str:
    """One mistake in a line, led by its place.

    ``overridden`` has the variables of the environment that say what the file does; ``known`` are the names of all
    settings.
    """
    key = ""
    place = place_of(error)
    for part in place:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    if (name := key.partition("[")[0]) in overridden:
        source, key = ENVIRONMENT, overridden[name]
    wrong = _WORDS.get(error["type"], error["msg"].removeprefix("Value error, "))
    if error["type"] == "extra_forbidden" and ALIAS_TAG in error["loc"]:
        wrong = "stands beside alias_of: it belongs to the model that the alias stands for"
    elif error["type"] == "extra_forbidden":
        wrong = (
            f"is not a setting; '{PROGRAM.command('config example')}' prints all that there are"
            f"{_meant(str(place[-1]), known)}"
        )
    elif error["type"] == "missing":
        wrong = "is missing"
    elif error["type"] in ("model_type", "model_attributes_type"):
        wrong = (
            f"should be a section with settings of its own, [[{_list_name(place)}]]"
            if isinstance(place[-1], int)
            else (f"should be a section, [{_list_name(place)}], with settings below it")
        )
    elif error["type"] == "tuple_type" and _list_name(place) in SECTION_LISTS:
        wrong = f"should be sections, each begun by [[{_list_name(place)}]]"
    elif isinstance(error["input"], str | int | float) and not _may_hold_a_secret(key, str(error["input"])):
        wrong = f"is {error['input']!r}: {wrong[0].lower()}{wrong[1:]}"
    return f"{source}: {key}: {wrong}"


def place_of(error: ErrorDetails) -> tuple[int | str, ...]:
    """Where the mistake is: names of sections and settings, and numbers in lists."""
    return tuple(part for part in error["loc"] if part not in (MODEL_TAG, ALIAS_TAG, _KEY_OF_A_TABLE))


def with_name(mistake: str, content: Mapping[str, Any]) -> str:
    """The mistake, with the name of its model or provider where ``content`` has several of them to count."""
    if (match := _in_a_list.search(mistake)) is None:
        return mistake
    given, index = content.get(match[1]), int(match[2])
    if not isinstance(given, list) or not 1 < len(given) > index or not isinstance(given[index], dict):
        return mistake
    name = given[index].get("id" if match[1] == "models" else "name")
    if not isinstance(name, str) or repr(name) in mistake:
        return mistake
    return f"{mistake} ({match[1].removesuffix('s')} {name!r})"


def _meant(name: str, known: Collection[str]) -> str:
    if name in known:
        return "; another section has it: what follows a line like [section] belongs to that section"
    close = get_close_matches(name, known, 1, 0.8)
    return f"; was {close[0]} meant?" if close else ""


def _list_name(place: tuple[int | str, ...]) -> str:
    return ".".join(part for part in place if isinstance(part, str))


def _may_hold_a_secret(key: str, value: str) -> bool:
    """Whether a value is better not repeated; ``key`` may be a variable of the environment."""
    names = ("store.url", "store_url", "_env", "secret", "password", ".scheme")
    return any(mark in value for mark in "@?") or ".query." in f"{key}." or key.lower().endswith(names)
