"""Edits and variations as the image requests that they are, whether they came as JSON or as a form.

The fields are those of https://platform.openai.com/docs/api-reference/images/createEdit and ``createVariation``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

import orjson

from proxy.domain.catalog import Ability, Model
from proxy.domain.errors import InvalidRequest, UnknownParameter
from proxy.domain.requests.image import (
    EDIT_CHECKS,
    ImageRequest,
    Task,
    kind_of,
    read_image_config,
    read_object,
    request_of_fields,
    shown,
    without_nulls,
)
from proxy.domain.requests.image_links import check_link
from proxy.domain.requests.inputs import Inputs, Reference, Upload, check_inputs

IMAGES_LIMIT = 16
"""How many images one edit may start from, as OpenAI's own limit is."""

FILE_ID_LENGTH_LIMIT = 1_000
_INTEGERS = frozenset({"n", "output_compression", "partial_images"})
_SWITCHES = {"true": True, "false": False}
_integer = re.compile(r"-?[0-9]{1,100}")
_config_path = re.compile(r"image_config\[(\w{1,100})\]")
_image_field = re.compile(r"image(\[[0-9]{0,3}\])?")

_ABILITIES = {Task.EDIT: Ability.EDITS, Task.VARIATION: Ability.VARIATIONS}

Checks = Mapping[str, Callable[[str, object], None]]

VARIATION_CHECKS: Checks = {name: EDIT_CHECKS[name] for name in ("model", "n", "response_format", "size", "user")}
"""What checks each field that a variation may have, its image excepted."""


def parse_edit_request(body: bytes | dict[str, Any]) -> ImageRequest:
    """Read a JSON body of ``POST /v1/images/edits``, decoded or not.

    Raises InvalidRequest, which names the field, or UnknownParameter.
    """
    given = without_nulls(read_object(body, "'model', 'prompt' and 'images'"))
    images, mask = given.pop("images", None), given.pop("mask", None)
    fields = {name: _checked(name, value, EDIT_CHECKS) for name, value in given.items()}
    inputs = Inputs(_references(images), None if mask is None else _reference("mask", mask))
    return request_of_fields(fields, Task.EDIT, inputs)


def request_of_form(texts: Iterable[tuple[str, str]], files: Sequence[Upload], task: Task) -> ImageRequest:
    """The request that these texts and files make, wherever they stood among the parts.

    A form has only texts, so ``2`` is a number where one belongs, ``true`` a switch, and an empty text is no more than
    one that was left out. Raises InvalidRequest, which names the field, or UnknownParameter.
    """
    checks = _checks_of(task)
    fields: dict[str, Any] = {}
    for name, value in _join_config(texts).items():
        fields[name] = _checked(name, value, checks)
    return request_of_fields(fields, task, _inputs_of_files(files, task))


def _checks_of(task: Task) -> Checks:
    return VARIATION_CHECKS if task is Task.VARIATION else EDIT_CHECKS


def _checked(name: str, value: Any, checks: Checks) -> Any:
    check = checks.get(name)
    if check is None:
        raise UnknownParameter(f"Unknown parameter: '{shown(name)}'.", param=shown(name))
    check(name, value)
    return value if name != "image_config" else read_image_config(value)


def check_task(request: ImageRequest, model: Model) -> None:
    """Refuse what the model's provider cannot be asked for (InvalidRequest)."""
    needed = _ABILITIES.get(request.task)
    if needed is None:
        return
    if needed not in model.abilities:
        raise InvalidRequest(
            f"This model makes no {needed}; ask it for images at /v1/images/generations, or choose another one.",
            param="model",
        )
    check_inputs(request.inputs, model)


# --- References -------------------------------------------------------------------------------------------------------


def _references(images: object) -> list[Reference]:
    if images is None:
        raise InvalidRequest("Missing required parameter: 'images', those that are to be edited.", param="images")
    if type(images) is not list or not 1 <= len(images) <= IMAGES_LIMIT:
        raise InvalidRequest(f"'images' should be an array of 1 to {IMAGES_LIMIT} images.", param="images")
    return [_reference(f"images[{index}]", image) for index, image in enumerate(images)]


def _reference(name: str, given: object) -> Reference:
    if type(given) is not dict:
        raise InvalidRequest(
            f"'{name}' should be an object with 'image_url' or 'file_id', not {kind_of(given)}.", param=name
        )
    known = without_nulls(given)
    for inner, value in known.items():
        path = f"{name}.{shown(inner)}"
        if inner not in ("image_url", "file_id"):
            raise UnknownParameter(f"Unknown parameter: '{path}'.", param=path)
        if type(value) is not str or not value.strip():
            raise InvalidRequest(f"'{path}' should be a string that is not empty.", param=path)
    if len(known) != 1:
        raise InvalidRequest(f"'{name}' should have either 'image_url' or 'file_id'.", param=name)
    address, file_id = known.get("image_url"), known.get("file_id")
    if address is not None and address[:11].lower() != "data:image/":
        # Any other data: address is no image, and is refused as what it is not.
        path = f"{name}.image_url"
        check_link(address if address[:5].lower() != "data:" else "", path, path)
    if file_id is not None and len(file_id) > FILE_ID_LENGTH_LIMIT:
        raise InvalidRequest(
            f"'{name}.file_id' should have at most {FILE_ID_LENGTH_LIMIT:,} characters.", param=f"{name}.file_id"
        )
    return Reference(image_url=address, file_id=file_id)


# --- Forms ------------------------------------------------------------------------------------------------------------


class FieldKind(Enum):
    """What a field of a form holds."""

    TEXT = "text"
    FILE = "file"


def kind_of_field(name: str, task: Task) -> FieldKind | None:
    """What belongs into a form's field of this name: a file into ``image``, and for an edit ``image[]`` and ``mask``.

    None where nobody knows the field.
    """
    is_edit = task is Task.EDIT
    if name == "image" or (is_edit and (name == "mask" or _image_field.fullmatch(name))):
        return FieldKind.FILE
    is_known = name in _checks_of(task) or (is_edit and _config_path.fullmatch(name))
    return FieldKind.TEXT if is_known else None


def _inputs_of_files(files: Sequence[Upload], task: Task) -> Inputs:
    images = [file for file in files if file.name != "mask"]
    masks = [file for file in files if file.name == "mask"]
    most = IMAGES_LIMIT if task is Task.EDIT else 1
    if not images:
        raise InvalidRequest("Missing required parameter: 'image', the file to start from.", param="image")
    if len(images) > most:
        raise InvalidRequest(f"There are {len(images)} images; send at most {most}.", param="image")
    if len(masks) > 1:
        raise InvalidRequest("'mask' is given more than once; send it once.", param="mask")
    return Inputs(images, masks[0] if masks else None)


def _join_config(texts: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The values by name, with ``image_config[aspect_ratio]`` and its like put together as JSON would have them."""
    values: dict[str, Any] = {}
    config: dict[str, str] = {}
    seen: set[str] = set()
    for name, text in texts:
        if name in seen:
            raise InvalidRequest(f"'{shown(name)}' is given more than once; send it once.", param=shown(name))
        seen.add(name)
        path = _config_path.fullmatch(name)
        if path is not None:
            config |= {path[1]: text} if text else {}
        elif text or name == "prompt":
            values[name] = _value(name, text)
    if config and "image_config" in values:
        raise InvalidRequest("'image_config' is given in two ways; send it once.", param="image_config")
    return {**values, "image_config": config} if config else values


def _value(name: str, text: str) -> Any:
    if name in _INTEGERS:
        if not _integer.fullmatch(text):
            raise InvalidRequest(f"'{name}' should be an integer, not '{shown(text)}'.", param=name)
        return int(text)
    if name == "stream":
        if text not in _SWITCHES:
            raise InvalidRequest(f"'stream' should be true or false, not '{shown(text)}'.", param=name)
        return _SWITCHES[text]
    if name == "image_config":
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            raise InvalidRequest("'image_config' should be an object as JSON.", param=name) from None
    return text
