"""Edits and variations as the image requests that they are, whether they came as JSON or as a form.

The fields are those of https://platform.openai.com/docs/api-reference/images/createEdit and ``createVariation``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

from proxy.domain.catalog import Ability, Model
from proxy.domain.errors import InvalidRequest
from proxy.domain.requests.image import (
    EDIT_KINDS,
    GENERATION,
    ImageRequest,
    Task,
    refuse_unknown,
    request_of_fields,
)
from proxy.domain.requests.image_links import check_link
from proxy.domain.requests.inputs import Inputs, Reference, Upload, check_inputs
from proxy.domain.requests.json_body import read_object
from proxy.domain.requests.kinds import (
    FILE,
    IDENTIFIER,
    NOTHING,
    Fields,
    Kind,
    array_of,
    kind_of,
    reference,
    shown,
)

IMAGES_LIMIT = 16
"""How many images one edit may start from, as OpenAI's own limit is."""

_config_path = re.compile(r"image_config\[(\w{1,100})\]")
_image_field = re.compile(r"image(\[[0-9]{0,3}\])?")

_ABILITIES = {Task.EDIT: Ability.EDITS, Task.VARIATION: Ability.VARIATIONS}


# --- What a request may say -------------------------------------------------------------------------------------------


def _read_address(name: str, value: Any) -> Any:
    if type(value) is not str or not value.strip():
        raise InvalidRequest(f"'{name}' should be a string that is not empty.", param=name)
    if value[:11].lower() != "data:image/":
        # Any other data: address is no image, and is refused as what it is not.
        check_link(value if value[:5].lower() != "data:" else "", name, name)
    return value


def _read_reference(name: str, value: Any) -> Any:
    if type(value) is not dict:
        raise InvalidRequest(
            f"'{name}' should be an object with 'image_url' or 'file_id', not {kind_of(value)}.", param=name
        )
    has_address, has_id = (value.get(member) is not None for member in ("image_url", "file_id"))
    fields = (STORED_IMAGE if has_id else LINKED_IMAGE).read_member(name, value) if not (has_address and has_id) else {}
    if not fields:
        raise InvalidRequest(f"'{name}' should have either 'image_url' or 'file_id'.", param=name)
    return Reference(**fields)


LINKED_IMAGE = Fields(
    "LinkedImage",
    "An image by its address: ``https:``, or ``data:`` in base64.",
    {
        "image_url": Kind(
            _read_address,
            {"type": "string", "pattern": "^([Hh][Tt][Tt][Pp][Ss]://|[Dd][Aa][Tt][Aa]:[Ii][Mm][Aa][Gg][Ee]/)"},
        ),
        "file_id": NOTHING,
    },
    required={"image_url": "its address"},
)
STORED_IMAGE = Fields(
    "StoredImage",
    "An image by the id of a file that its provider keeps.",
    {"file_id": IDENTIFIER, "image_url": NOTHING},
    required={"file_id": "its id"},
)
REFERENCE = Kind(
    _read_reference,
    {"anyOf": [reference(LINKED_IMAGE), reference(STORED_IMAGE)]},
    objects=(LINKED_IMAGE, STORED_IMAGE),
)
EDIT = Fields(
    "EditRequest",
    "A request for an edit of images that are elsewhere.",
    {
        **EDIT_KINDS,
        "images": array_of(REFERENCE, 1, IMAGES_LIMIT, f"an array of 1 to {IMAGES_LIMIT} images"),
        "mask": REFERENCE,
    },
    required={"images": "those that are to be edited", **GENERATION.required},
)
EDIT_FORM = Fields(
    "EditForm",
    "The same with files; several images are sent as ``image[]``. An empty text is the same as one left out.\n\n"
    "``image_config`` is JSON, or two fields ``image_config[aspect_ratio]`` and ``image_config[image_size]``.",
    {**EDIT_KINDS, "image": FILE, "mask": FILE},
    required={**GENERATION.required, "image": "the file to start from"},
    has_nulls=False,
)
VARIATION_FORM = Fields(
    "VariationForm",
    "A request for variations of one image.",
    {**{name: EDIT_KINDS[name] for name in ("model", "n", "size", "response_format", "user")}, "image": FILE},
    required={"image": "the file to start from"},
    has_nulls=False,
)


def parse_edit_request(body: bytes | dict[str, Any]) -> ImageRequest:
    """Read a JSON body of ``POST /v1/images/edits``, decoded or not.

    Raises InvalidRequest, which names the field, or UnknownParameter.
    """
    fields, unknown = EDIT.read(read_object(body, "'model', 'prompt' and 'images'"))
    refuse_unknown(unknown)
    EDIT.check_required(fields)
    return request_of_fields(fields, Task.EDIT, Inputs(fields.pop("images"), fields.pop("mask", None)))


def request_of_form(texts: Iterable[tuple[str, str]], files: Sequence[Upload], task: Task) -> ImageRequest:
    """The request that these texts and files make, wherever they stood among the parts.

    A form has only texts, so ``2`` is a number where one belongs, ``true`` a switch, and an empty text is no more than
    one that was left out. Raises InvalidRequest, which names the field, or UnknownParameter.
    """
    form = _form_of(task)
    fields, unknown = form.read(_values(texts, form))
    refuse_unknown(unknown)
    inputs = _inputs_of_files(files, task)
    form.check_required({*fields, *(["image"] if inputs.images else [])})
    return request_of_fields(fields, task, inputs)


def _form_of(task: Task) -> Fields:
    return VARIATION_FORM if task is Task.VARIATION else EDIT_FORM


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
    kind = FILE if is_edit and _image_field.fullmatch(name) else _form_of(task).kinds.get(name)
    if kind is not None:
        return FieldKind.FILE if kind is FILE else FieldKind.TEXT
    return FieldKind.TEXT if is_edit and _config_path.fullmatch(name) else None


def _inputs_of_files(files: Sequence[Upload], task: Task) -> Inputs:
    images = [file for file in files if file.name != "mask"]
    masks = [file for file in files if file.name == "mask"]
    most = IMAGES_LIMIT if task is Task.EDIT else 1
    if len(images) > most:
        raise InvalidRequest(f"There are {len(images)} images; send at most {most}.", param="image")
    if len(masks) > 1:
        raise InvalidRequest("'mask' is given more than once; send it once.", param="mask")
    return Inputs(images, masks[0] if masks else None)


def _values(texts: Iterable[tuple[str, str]], form: Fields) -> dict[str, Any]:
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
            kind = form.kinds.get(name)
            values[name] = text if kind is None else kind.read_text(name, text)
    if config and "image_config" in values:
        raise InvalidRequest("'image_config' is given in two ways; send it once.", param="image_config")
    return {**values, "image_config": config} if config else values
