"""Edits and variations as the image requests that they are, whether they came as JSON or as a form.

The fields are those of https://platform.openai.com/docs/api-reference/images/createEdit and ``createVariation``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

from proxy.domain.catalog import Ability, Model
from proxy.domain.errors import InvalidRequest
from proxy.domain.requests.image import (
    EDIT_KINDS,
    GENERATION,
    ImageRequest,
    Task,
    request_of_fields,
)
from proxy.domain.requests.image_links import check_link
from proxy.domain.requests.inputs import Inputs, Reference, Upload, address_of, check_inputs
from proxy.domain.requests.json_body import read_object
from proxy.domain.requests.kinds import (
    FILE,
    IDENTIFIER,
    NOTHING,
    Fields,
    Kind,
    array_of,
    excerpt,
    json_type,
    reference,
)

IMAGES_LIMIT = 16
"""How many images one edit may start from, as OpenAI's own limit is."""

MEMBERS_DEPTH_LIMIT = 8
"""Objects within each other, where each member is a field of a form."""

_member_path = re.compile(rf"(\w{{1,100}})((?:\[\w{{1,100}}\]){{1,{MEMBERS_DEPTH_LIMIT}}})", re.ASCII)
_ALONE = ("mask", "markup")
_image_field = re.compile(r"image(\[[0-9]{0,3}\])?")

_ABILITIES = {Task.EDIT: Ability.EDITS, Task.VARIATION: Ability.VARIATIONS}


# --- What a request may say -------------------------------------------------------------------------------------------


def _read_address(name: str, value: Any) -> Any:
    if type(value) is not str or not value.strip():
        raise InvalidRequest(f"'{name}' should be a string that is not empty.", param=name)
    value = address_of(value)
    if value[:11].lower() != "data:image/":
        # Any other data: address is no image, and is refused as what it is not.
        check_link(value if value[:5].lower() != "data:" else "", name, name)
    return value


def _read_reference(name: str, value: Any) -> Any:
    if type(value) is not dict:
        raise InvalidRequest(
            f"'{name}' should be an object with 'image_url' or 'file_id', not {json_type(value)}.", param=name
        )
    has_address, has_id = (value.get(member) is not None for member in ("image_url", "file_id"))
    fields = (STORED_IMAGE if has_id else LINKED_IMAGE).read_alone(name, value) if not (has_address and has_id) else {}
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
        "markup": REFERENCE,
    },
    required={"images": "those that are to be edited", **GENERATION.required},
)
EDIT_FORM = Fields(
    "EditForm",
    "The same with files; several images are sent as ``image[]``. An empty text is the same as one left out.\n\n"
    "An object is JSON, or a field for each member, as ``image_config[image_size]`` and ``svg[reasoning][effort]``.",
    {**EDIT_KINDS, "image": FILE, "mask": FILE, "markup": FILE},
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

    Raises InvalidRequest, which names the field.
    """
    fields, unknown = EDIT.read(read_object(body, "'model', 'prompt' and 'images'"))
    EDIT.check_required(fields)
    inputs = Inputs(fields.pop("images"), fields.pop("mask", None), fields.pop("markup", None))
    return request_of_fields(fields, unknown, Task.EDIT, inputs)


def request_of_form(texts: Iterable[tuple[str, str]], files: Sequence[Upload], task: Task) -> ImageRequest:
    """The request that these texts and files make, wherever they stood among the parts.

    A form has only texts, so ``2`` is a number where one belongs, ``true`` a switch, and an empty text is no more than
    one that was left out. Raises InvalidRequest, which names the field.
    """
    form = _form_of(task)
    fields, unknown = form.read(_values(texts, form.kinds))
    inputs = _inputs_of_files(files, task)
    form.check_required({*fields, *(["image"] if inputs.images else [])})
    return request_of_fields(fields, unknown, task, inputs)


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
    EITHER = "either"


def kind_of_field(name: str, task: Task, *, takes_unknown: bool = False) -> FieldKind | None:
    """What belongs into a form's field of this name: a file into ``image``, and for an edit into ``image[]``, too.

    Nothing into one that nobody knows, unless there are models that have such fields (``takes_unknown``).
    """
    kinds = _form_of(task).kinds
    kind = FILE if task is Task.EDIT and _image_field.fullmatch(name) else kinds.get(name)
    if kind is not None:
        return FieldKind.FILE if kind is FILE else FieldKind.TEXT
    if _member(name, kinds) is not None:
        return FieldKind.TEXT
    return FieldKind.EITHER if takes_unknown else None


def _member(name: str, kinds: Mapping[str, Kind]) -> tuple[str, list[str]] | None:
    """The field and the path within it that ``name`` is, as ``svg[reasoning][effort]``; None for any other name."""
    path = _member_path.fullmatch(name)
    if path is None or path[1] not in kinds or not kinds[path[1]].is_object:
        return None
    return path[1], path[2][1:-1].split("][")


def _inputs_of_files(files: Sequence[Upload], task: Task) -> Inputs:
    is_known = {file.name: kind_of_field(file.name, task) is FieldKind.FILE for file in files}
    images = [file for file in files if is_known[file.name] and file.name not in _ALONE]
    others = [file for file in files if not is_known[file.name]]
    most = IMAGES_LIMIT if task is Task.EDIT else 1
    if len(images) > most:
        raise InvalidRequest(f"There are {len(images)} images; send at most {most}.", param="image")
    alone: dict[str, Upload] = {}
    for file in files:
        if file.name in alone:
            raise InvalidRequest(f"'{file.name}' is given more than once; send it once.", param=file.name)
        if file.name in _ALONE:
            alone[file.name] = file
    return Inputs(images, **alone, others=others)


def _values(texts: Iterable[tuple[str, str]], kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """The values by name, with ``image_config[aspect_ratio]`` and its like put together as JSON would have them."""
    values: dict[str, Any] = {}
    objects: dict[str, dict[str, Any]] = {}
    seen: set[str] = set()
    for name, text in texts:
        if name in seen:
            raise InvalidRequest(f"'{excerpt(name)}' is given more than once; send it once.", param=excerpt(name))
        seen.add(name)
        member = _member(name, kinds)
        if member is not None:
            if text:
                _put(objects.setdefault(member[0], {}), member[1], text, name)
        elif text or name == "prompt":
            kind = kinds.get(name)
            values[name] = text if kind is None else kind.read_text(name, text)
    for name in objects:
        if name in values:
            raise InvalidRequest(f"'{name}' is given in two ways; send it once.", param=name)
    return values | objects


def _put(members: dict[str, Any], path: Sequence[str], text: str, name: str) -> None:
    inner: Any = members
    for step in path[:-1]:
        inner = inner.setdefault(step, {}) if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or path[-1] in inner:
        raise InvalidRequest(f"'{excerpt(name)}' is given in two ways; send it once.", param=excerpt(name))
    inner[path[-1]] = text
