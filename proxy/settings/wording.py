"""How the requests of one of the ``[[models]]`` are worded: names, constants, and fields of the operator's own."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from proxy.domain.requests.chat import CHAT
from proxy.domain.requests.extras import KINDS, Allowed, kind_of
from proxy.domain.requests.image import LISTED_PARAMETERS
from proxy.domain.requests.kinds import Kind
from proxy.domain.wording import IMAGE_CONFIG, EditForm, Path, Wording

METERED = frozenset(
    {"model", "prompt", "messages", "n", "size", "quality", "image_config", "stream", "modalities", "contents"}
)
"""What a request is priced by, or what makes it one: the client says it, and what is metered is what is forwarded."""

INPUTS = frozenset({"image", "images", "mask", "markup"})
"""What an edit starts from."""

CONFIG_MEMBERS = ("aspect_ratio", "image_size")
SIDES = ("width", "height")
_name = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")


# --- Values -----------------------------------------------------------------------------------------------------------


def _flat(given: object, path: str = "") -> dict[str, object]:
    """``{image_config.image_size = "resolution"}``, which TOML reads as tables within each other, by dotted names."""
    if not isinstance(given, dict):
        raise ValueError('should be names, like { image_config.image_size = "resolution" }')  # noqa: TRY004
    flat: dict[str, object] = {}
    for name, value in given.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{path}{name}.")
        else:
            flat[f"{path}{name}"] = value
    return flat


def _dotted(text: str) -> str:
    if not all(_name.fullmatch(name) for name in text.split(".")):
        raise ValueError("should be a name of letters, digits, _ and -, or several with dots between them")
    return text


def _constants(given: dict[str, Any]) -> dict[str, Any]:
    for name, value in given.items():
        if name in METERED:
            raise ValueError(
                f"{name} is what a request is priced by, or for: its client says it, so it is no constant; "
                "sizes may be limited by sizes, and images by max_n"
            )
        if name in INPUTS:
            raise ValueError(f"{name} is what an edit starts from, and is no constant")
        if not _is_json(value):
            raise ValueError(f"{name} should be what JSON has: a text, a number, true, false, a list or a table")
    return given


def _is_json(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(name, str) for name in value) and all(map(_is_json, value.values()))
    if isinstance(value, list):
        return all(map(_is_json, value))
    return isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


def _kind(given: object) -> str | tuple[Allowed, ...]:
    if isinstance(given, str) and given in KINDS:
        return given
    if isinstance(given, list) and given and all(isinstance(each, Allowed) and _is_json(each) for each in given):
        return tuple(given)
    raise ValueError(
        f'should be one of {", ".join(KINDS)}, or a list of the values that are allowed, like ["low", "high"]'
    )


def _extra_names(given: dict[str, Any]) -> dict[str, Any]:
    for name in given:
        if not _name.fullmatch(name):
            raise ValueError(f"{name} should be a name of letters, digits, _ and -")
        if name in (METERED | INPUTS) - {"quality"}:
            raise ValueError(f"{name} is known already, and has settings of its own: leave it out")
    return given


Dotted = Annotated[str, AfterValidator(_dotted)]
Renames = Annotated[dict[Dotted, Dotted], BeforeValidator(_flat)]
Words = dict[Dotted, dict[str, str]]
Constants = Annotated[dict[str, Any], AfterValidator(_constants)]
Extras = Annotated[dict[str, Annotated[Any, BeforeValidator(_kind)]], AfterValidator(_extra_names)]


# --- What they make ---------------------------------------------------------------------------------------------------


def wording_of(
    renames: Mapping[str, str],
    words: Mapping[str, Mapping[str, str]],
    constants: Mapping[str, Any],
    *,
    names_model: bool,
    edits: EditForm = EditForm.FORM,
) -> Wording | None:
    """The wording, None where there is nothing to be worded otherwise."""
    if not (renames or words or constants) and names_model and edits is EditForm.FORM:
        return None
    return Wording(
        tuple((_path(source), _path(target)) for source, target in renames.items()),
        {_path(name): dict(given) for name, given in words.items()},
        dict(constants),
        names_model,
        edits,
    )


def kinds_of(extras: Mapping[str, str | Sequence[Allowed]]) -> dict[str, Kind]:
    """The kinds of the fields that the operator has added."""
    return {name: kind_of(given) for name, given in extras.items()}


def _path(dotted: str) -> Path:
    return tuple(dotted.split("."))


def check_wording(
    renames: Mapping[str, str],
    constants: Mapping[str, Any],
    extras: Mapping[str, Any],
    parameters: Sequence[str],
    dialects: Sequence[str],
) -> Iterator[str]:
    """What does not fit together, each led by the setting. The model is asked for at providers of ``dialects``."""
    for name in constants:
        if name in parameters or name in extras:
            yield f"constants.{name}: clients may send it too, in vain: leave it out of the other place"
    targets = list(renames.values())
    for source, target in renames.items():
        yield from (f"rename.{source}: {mistake}" for mistake in _check_source(source, extras, parameters, dialects))
        first = target.partition(".")[0]
        if first in (METERED | INPUTS) - {"size", "quality", "image_config"}:
            yield f"rename.{source}: {target} is taken by what every request says: choose another name"
        elif first in constants and target in constants:
            yield f"rename.{source}: {target} is among the constants: one of both would be lost"
        elif (target in parameters or target in extras) and target not in renames:
            yield f"rename.{source}: {target} is forwarded under that name already: leave it out there"
        elif targets.count(target) > 1:
            yield f"rename.{source}: another field is renamed to {target} too: give each a name of its own"


def _check_source(
    source: str, extras: Mapping[str, Any], parameters: Sequence[str], dialects: Sequence[str]
) -> Iterator[str]:
    first, _, member = source.partition(".")
    if source in extras:
        return
    if other := sorted({*dialects} - {"openai", "openrouter"}):
        yield f"the dialect {other[0]!r} has names of its own; only fields of extra_parameters go where they are told"
    elif first == IMAGE_CONFIG and (member not in CONFIG_MEMBERS or "openrouter" in dialects):
        known = ", ".join(CONFIG_MEMBERS)
        yield f"of image_config, {known} can be renamed, and at providers of the dialect 'openrouter' nothing"
    elif first == "size" and member and (member not in SIDES or "openrouter" in dialects or "size" not in parameters):
        yield "of size, width and height can be renamed, where parameters list it, at providers of the dialect 'openai'"
    elif first in (METERED - {"prompt", "n", "size", "quality", "image_config"}) | INPUTS:
        yield "every provider knows it by this name"
    elif first in LISTED_PARAMETERS and first not in parameters and first != IMAGE_CONFIG:
        yield f"{first} is not forwarded: add it to parameters"
    elif first not in LISTED_PARAMETERS | set(CHAT.kinds) | {"prompt"}:
        yield "no request has this field; add it to extra_parameters, or correct its name"
