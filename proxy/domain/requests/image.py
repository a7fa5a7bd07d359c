"""An image request as this gateway understands it: parsed, checked, and ready to be written anew for a provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any

from proxy.domain.errors import InvalidRequest
from proxy.domain.records import record
from proxy.domain.requests.inputs import Inputs
from proxy.domain.requests.json_body import read_object
from proxy.domain.requests.kinds import (
    ASPECT_RATIO,
    BOOLEAN,
    IDENTIFIER,
    OBJECT,
    SIZE,
    TEXT,
    WORD,
    Fields,
    integer,
    object_of,
)

NO_INPUTS = Inputs()


class Task(StrEnum):
    """What is to be made: images of a prompt, of a prompt and images, or of one image."""

    GENERATION = "image_generation"
    EDIT = "image_edit"
    VARIATION = "image_variation"


@record
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
    unknown: Mapping[str, Any] = field(default_factory=dict)
    """Fields that nobody here knows, as they came; what is left of them is forwarded: see ``accept_unknown``."""


# --- What a request may say -------------------------------------------------------------------------------------------

IMAGE_CONFIG = object_of(
    Fields(
        "ImageConfig",
        "Settings that no provider's name is on; ``image_size`` ``4K`` is the one that changes the price.",
        {"aspect_ratio": ASPECT_RATIO, "image_size": SIZE},
    )
)

GENERATION = Fields(
    "GenerationRequest",
    "A request for images. Null is the same as left out; what the model's ``parameters`` do not list is not "
    "forwarded.\n\n``model`` may be left out where the gateway has a ``default_model``. ``n`` is at most the model's "
    "``max_n``.",
    {
        "model": IDENTIFIER,
        "prompt": TEXT,
        "n": integer(1),
        "size": SIZE,
        "quality": WORD,
        "style": WORD,
        "user": WORD,
        "image_config": IMAGE_CONFIG,
        "background": WORD,
        "moderation": WORD,
        "output_format": WORD,
        "output_compression": integer(0, 100),
        "partial_images": integer(0, 3),
        "response_format": WORD,
        "stream": BOOLEAN,
        "safety_identifier": WORD,
        "complexity": WORD,
        "frame_count": integer(1),
        "frame_duration_ms": integer(1),
        "svg": OBJECT,
    },
    required={"prompt": "the text that describes the image"},
)

EDIT_KINDS = {**GENERATION.kinds, "input_fidelity": WORD}
"""The same for an edit, its images excepted."""

KNOWN_PARAMETERS = frozenset(GENERATION.kinds) - {"model", "prompt"}
"""What a request for images may say beside what it is for."""

LISTED_PARAMETERS = frozenset({*EDIT_KINDS, "markup"}) - {"model", "prompt"}
"""What a model's ``parameters`` may list."""


def parse_image_request(body: bytes | dict[str, Any]) -> ImageRequest:
    """Read a body of ``POST /v1/images/generations``, decoded or not.

    The same name twice: the last one counts, here and in what is forwarded, for that is written from this result.
    ``n``'s upper end depends on the model: see ``check_n``.

    Raises InvalidRequest, which names the field.
    """
    fields, unknown = GENERATION.read(read_object(body, "'model' and 'prompt'"))
    GENERATION.check_required(fields)
    return request_of_fields(fields, unknown)


def request_of_fields(
    fields: dict[str, Any], unknown: Mapping[str, Any], task: Task = Task.GENERATION, inputs: Inputs = NO_INPUTS
) -> ImageRequest:
    """The request that fields make which have been read."""
    image_config = fields.get("image_config")
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
        unknown=unknown,
    )


def check_n(request: ImageRequest, max_n: int) -> None:
    """Refuse more images than the model makes in one request (InvalidRequest)."""
    if request.n is not None and request.n > max_n:
        raise InvalidRequest(f"'n' is {request.n}, but this model makes at most {max_n} images a request.", param="n")


def check_stream(request: ImageRequest, parameters: frozenset[str]) -> None:
    """Refuse a stream from a model that makes none (InvalidRequest)."""
    if request.stream and "stream" not in parameters:
        raise InvalidRequest("'stream' should be false or left out: this model does not stream.", param="stream")
