"""Mistakes of the configuration in words: where, what is wrong, and what would be right."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_core import ErrorDetails

ENVIRONMENT = "the environment"
SECTION_LISTS = ("providers", "models", "models.deployments", "models.prices", "admin.tokens")
MODEL_TAG, ALIAS_TAG = "<model>", "<alias>"
"""What distinguishes the kinds of ``[[models]]``; the place of a mistake holds it, and nobody reads it."""


class ConfigurationError(Exception):
    """The configuration cannot be used; the message reports every mistake, one a line."""


def describe(error: ErrorDetails, source: str, overridden: Mapping[str, str]) -> str:
    """One mistake in a line; ``overridden`` has the variables of the environment that say what the file does."""
    key = ""
    place = tuple(part for part in error["loc"] if part not in (MODEL_TAG, ALIAS_TAG))
    for part in place:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    if (name := key.partition("[")[0]) in overridden:
        source, key = ENVIRONMENT, overridden[name]
    wrong = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden" and ALIAS_TAG in error["loc"]:
        wrong = "stands beside alias_of: it belongs to the model that the alias stands for"
    elif error["type"] == "extra_forbidden":
        wrong = "is not a setting; see config/lightmeter.toml for all that there are"
    elif error["type"] == "missing":
        wrong = "is missing"
    elif error["type"] in ("model_type", "model_attributes_type"):
        wrong = (
            f"should be a section with settings of its own, [[{_list_name(place)}]]"
            if isinstance(place[-1], int)
            else (f"should be a section, [{key}], with settings below it")
        )
    elif error["type"] == "tuple_type" and _list_name(place) in SECTION_LISTS:
        wrong = f"should be sections, each begun by [[{_list_name(place)}]]"
    elif isinstance(error["input"], str | int | float) and not _may_hold_a_secret(key, str(error["input"])):
        wrong = f"is {error['input']!r}: {wrong[0].lower()}{wrong[1:]}"
    return f"{source}: {key}: {wrong}"


def _list_name(place: tuple[int | str, ...]) -> str:
    return ".".join(part for part in place if isinstance(part, str))


def _may_hold_a_secret(key: str, value: str) -> bool:
    """Whether a value is better not repeated; ``key`` may be a variable of the environment."""
    names = ("store.url", "store_url", "_env", "secret", "password", ".scheme")
    return any(mark in value for mark in "@?") or ".query." in key or key.lower().endswith(names)
