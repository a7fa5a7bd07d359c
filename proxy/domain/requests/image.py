"""An image request as this gateway understands it: parsed, checked, and ready to be written anew for a provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from proxy.domain.errors import InvalidRequest, UnknownParameter
from proxy.domain.requests.inputs import Inputs
from proxy.domain.requests.size_words import read_aspect_ratio, read_size

WORD_LENGTH_LIMIT = 1_000
"""Characters in any string but the prompt: sizes, hints and user ids are short."""

DEPTH_LIMIT = 64
"""Objects and arrays within each other, in all of a request."""

NO_INPUTS = Inputs()


class Task(StrEnum):
    """What is to be made: images of a prompt, of a prompt and images, or of one image."""

    GENERATION = "image_generation"
    EDIT = "image_edit"
    VARIATION = "image_variation"


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """What a client asked for. ``n`` and the sizes are None where the client left them to the provider.

    A variation's ``prompt`` is empty.
    """

    model: str | None
    prompt: str
    n: int | None = None
    size: str | None = None
    image_size: str | None = None
    stream: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Every field that was given and is not null, ``model`` and the ``inputs`` excepted, as it would be forwarded."""

    task: Task = Task.GENERATION
    inputs: Inputs = NO_INPUTS


def parse_image_request(body: bytes | dict[str, Any]) -> ImageRequest:
    """Read a body of ``POST /v1/images/generations``, decoded or not.

    The same name twice: the last one counts, here and in what is forwarded, for that is written from this result.
    ``n``'s upper end depends on the model: see ``check_n``.

    Raises InvalidRequest, which names the field, or UnknownParameter.
    """
    given = read_object(body, "'model' and 'prompt'")
    fields: dict[str, Any] = {}
    for name, value in given.items():
        check = CHECKS.get(name)
        if check is None:
            raise UnknownParameter(f"Unknown parameter: '{shown(name)}'.", param=shown(name))
        if value is not None:
            check(name, value)
            fields[name] = value if name != "image_config" else read_image_config(value)
    return request_of_fields(fields)


def read_object(body: bytes | dict[str, Any], wanted: str) -> dict[str, Any]:
    """The object that a JSON body holds. Raises InvalidRequest, which says what is ``wanted`` in it."""
    if isinstance(body, dict):
        return body
    if not body:
        raise InvalidRequest(f"The request has no body; it should be a JSON object with {wanted}.")
    return parse_json(body, f" with {wanted}")


def parse_json(body: bytes, wanted: str = "") -> dict[str, Any]:
    """The object in ``body``, no deeper than a request may be. Raises InvalidRequest, which says what is ``wanted``."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}.") from None
    if type(given) is not dict:
        raise InvalidRequest(f"The request body should be a JSON object{wanted}.")
    # A body with fewer brackets cannot be deeper; most have a few.
    if body.count(b"[") + body.count(b"{") > DEPTH_LIMIT:
        check_depth(given)
    return given


def check_depth(given: dict[str, Any]) -> None:
    """Refuse what is nested deeper than ``DEPTH_LIMIT`` (InvalidRequest, which names the field)."""
    for name, value in given.items():
        level, depth = _nested([value]), 1
        while level:
            depth += 1
            if depth > DEPTH_LIMIT:
                raise InvalidRequest(f"'{shown(name)}' is nested more than {DEPTH_LIMIT} deep.", param=shown(name))
            level = [inner for outer in level for inner in _nested(outer)]


def _nested(outer: dict[str, Any] | list[Any]) -> list[dict[str, Any] | list[Any]]:
    values = outer.values() if isinstance(outer, dict) else outer
    return [value for value in values if isinstance(value, dict | list)]


def request_of_fields(fields: dict[str, Any], task: Task = Task.GENERATION, inputs: Inputs = NO_INPUTS) -> ImageRequest:
    """The request that checked fields make. Raises InvalidRequest where the prompt is missing."""
    if "prompt" not in fields and task is not Task.VARIATION:
        raise InvalidRequest("Missing required parameter: 'prompt', the text that describes the image.", param="prompt")
    image_config = fields.get("image_config")
    if "size" in fields:
        size = read_size("size", fields.pop("size"))
        fields |= {} if size is None else {"size": size}
    return ImageRequest(
        model=fields.pop("model", None),
        prompt=fields.get("prompt", ""),
        n=fields.get("n"),
        size=fields.get("size"),
        image_size=image_config.get("image_size") if image_config else None,
        stream=fields.get("stream", False),
        fields=fields,
        task=task,
        inputs=inputs,
    )


def check_n(request: ImageRequest, max_n: int) -> None:
    """Refuse more images than the model makes in one request (InvalidRequest)."""
    if request.n is not None and request.n > max_n:
        raise InvalidRequest(f"'n' is {request.n}, but this model makes at most {max_n} images a request.", param="n")


def check_stream(request: ImageRequest, parameters: frozenset[str]) -> None:
    """Refuse a stream from a model that makes none (InvalidRequest)."""
    if request.stream and "stream" not in parameters:
        raise InvalidRequest("'stream' should be false or left out: this model does not stream.", param="stream")


# --- One check for each kind of field: the value is what the name promises, or InvalidRequest that says what would be


def _word(name: str, value: object) -> None:
    if type(value) is not str:
        raise InvalidRequest(f"'{name}' should be a string, not {kind_of(value)}.", param=name)
    if len(value) > WORD_LENGTH_LIMIT:
        raise InvalidRequest(f"'{name}' should have at most {WORD_LENGTH_LIMIT:,} characters.", param=name)


def _text(name: str, value: object) -> None:
    if type(value) is not str:
        raise InvalidRequest(f"'{name}' should be a string, not {kind_of(value)}.", param=name)
    if not value.strip():
        raise InvalidRequest(f"'{name}' should not be empty.", param=name)


def check_model(name: str, value: object) -> None:
    """The id of a model."""
    _word(name, value)
    _text(name, value)


def _integer(least: int, most: int | None) -> Callable[[str, object], None]:
    wanted = f"an integer from {least} to {most}" if most is not None else f"an integer of at least {least}"

    def check(name: str, value: object) -> None:
        # `type() is`, for True is an int to isinstance, and 1.0 and 2**64 come out of orjson as floats.
        if type(value) is not int:
            raise InvalidRequest(f"'{name}' should be {wanted}, not {kind_of(value)}.", param=name)
        if value < least or (most is not None and value > most):
            raise InvalidRequest(f"'{name}' should be {wanted}, not {value}.", param=name)

    return check


def check_boolean(name: str, value: object) -> None:
    """True or false."""
    if type(value) is not bool:
        raise InvalidRequest(f"'{name}' should be true or false, not {kind_of(value)}.", param=name)


def check_image_config(name: str, value: object) -> None:
    """An object with ``aspect_ratio`` and ``image_size`` at most."""
    if type(value) is not dict:
        raise InvalidRequest(
            f"'{name}' should be an object with 'aspect_ratio' and 'image_size', not {kind_of(value)}.",
            param=name,
        )
    for inner, setting in value.items():
        path = f"{name}.{shown(inner)}"
        if inner not in ("aspect_ratio", "image_size"):
            raise UnknownParameter(f"Unknown parameter: '{path}'.", param=path)
        if setting is not None:
            _word(path, setting)


def read_image_config(given: Mapping[str, Any]) -> dict[str, str]:
    """What a checked ``image_config`` says, written anew; what is null or blank is left out.

    Raises InvalidRequest, which names the setting.
    """
    config = {}
    for name, value in given.items():
        read = read_size if name == "image_size" else read_aspect_ratio
        written = None if value is None else read(f"image_config.{name}", value)
        if written is not None:
            config[name] = written
    return config


def without_nulls(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was given: null is as good as left out."""
    return {name: value for name, value in given.items() if value is not None}


def shown(name: str) -> str:
    """A name that came from outside, short enough to be given back."""
    return name[:100]


def kind_of(value: object) -> str:
    """What a value is, in JSON's words."""
    kinds = {
        str: "a string",
        int: "an integer",
        float: "a number",
        bool: "a boolean",
        list: "an array",
        dict: "an object",
    }
    return kinds.get(type(value), "null")


CHECKS: Mapping[str, Callable[[str, object], None]] = {
    "model": check_model,
    "prompt": _text,
    "n": _integer(1, None),
    "size": _word,
    "quality": _word,
    "style": _word,
    "user": _word,
    "image_config": check_image_config,
    "background": _word,
    "moderation": _word,
    "output_format": _word,
    "output_compression": _integer(0, 100),
    "partial_images": _integer(0, 3),
    "response_format": _word,
    "stream": check_boolean,
}
"""What checks each field that a request for images may have."""

EDIT_CHECKS: Mapping[str, Callable[[str, object], None]] = {**CHECKS, "input_fidelity": _word}
"""The same for an edit, its images excepted."""

KNOWN_PARAMETERS = frozenset(CHECKS) - {"model", "prompt"}
"""What a request for images may say beside what it is for."""

LISTED_PARAMETERS = frozenset(EDIT_CHECKS) - {"model", "prompt"}
"""What a model's ``parameters`` may list."""
