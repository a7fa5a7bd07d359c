"""OpenRouter (https://openrouter.ai/docs/api/api-reference/images/generate-an-image): images of many providers."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from typing_extensions import override

from proxy.domain.answers.answer import JSON
from proxy.domain.answers.images.reader import Reading
from proxy.domain.catalog import Ability, Model
from proxy.domain.requests.image import ImageRequest
from proxy.domain.requests.inputs import Upload
from proxy.upstream.bodies.outgoing import OutgoingBody
from proxy.upstream.dialects.openai import CHAT_PATH, OpenAIDialect, read_error
from proxy.upstream.dialects.openrouter_chat import OpenRouterChat
from proxy.upstream.dialects.reasons import reading_of
from proxy.upstream.dialects.words import image_config_of, placeholders, splice

IMAGES_AT_ONCE = 10
CHAT_ENDPOINT = "chat"
IMAGES_PATH = "/images"
"""Of edits as well."""

SIZE_NAMES = {"aspect_ratio": "aspect_ratio", "image_size": "resolution"}
LISTED = frozenset(
    {"n", "quality", "background", "output_format", "output_compression", "stream", "partial_images", "seed", "user"}
)
"""What its images endpoint takes by OpenAI's names, sizes excepted."""

WRITTEN_HERE = frozenset({*SIZE_NAMES.values(), "input_references"})
"""What is written from what has been priced: no field that nobody knows takes its place."""


class OpenRouterDialect(OpenAIDialect):
    """Chat, its errors and the key are as OpenAI's. Images go to an endpoint of their own, or to chat.

    A model's ``endpoint`` says to which of the two; in a chat, one request makes one image.
    """

    chat = OpenRouterChat()
    abilities = frozenset({Ability.EDITS, Ability.LINKED_IMAGES})
    sizes_in_words = True
    own_paths: Mapping[str, str] = {"generations": IMAGES_PATH, "chat": CHAT_PATH}

    @override
    def images_at_once(self, endpoint: str) -> int | None:
        return 1 if endpoint == CHAT_ENDPOINT else IMAGES_AT_ONCE

    @override
    def images_path(self, _request: ImageRequest, model: Model) -> str:
        return CHAT_PATH if model.endpoint == CHAT_ENDPOINT else IMAGES_PATH

    @override
    def write_generation(self, request: ImageRequest, model: Model) -> bytes:
        """In a chat the prompt is the only message. Never a stream there: it would repeat the image."""
        if model.endpoint == CHAT_ENDPOINT:
            return _written(_chat_body(request, model, request.prompt), model)
        return _written(_images_body(request, model), model)

    @override
    def write_edit(self, request: ImageRequest, model: Model, boundary: str) -> OutgoingBody:
        """The images stand beside the prompt; those that were uploaded become ``data:`` addresses."""
        places = placeholders(request.inputs, boundary)
        images: list[dict[str, object]] = []
        for image, place in places:
            address = f"data:{image.kind};base64,{place}" if isinstance(image, Upload) else image.image_url
            images.append({"type": "image_url", "image_url": {"url": address}})
        if model.endpoint == CHAT_ENDPOINT:
            body = _chat_body(request, model, [{"type": "text", "text": request.prompt}, *images])
        else:
            body = {**_images_body(request, model), "input_references": images}
        return OutgoingBody(JSON, splice(_written(body, model), places))

    @property
    @override
    def reading(self) -> Reading:
        return READING


def _written(body: dict[str, object], model: Model) -> bytes:
    return orjson.dumps(body if model.wording is None else model.wording.of(body))


def _images_body(request: ImageRequest, model: Model) -> dict[str, object]:
    """A ``size`` that stands alone keeps its name; beside ``resolution`` and ``aspect_ratio`` it would be refused."""
    fields = {name: value for name, value in request.fields.items() if name in model.parameters and name in LISTED}
    if request.fields.get("image_config"):
        config = image_config_of(request, model)
        wanted = {theirs: config[name] for name, theirs in SIZE_NAMES.items() if name in config}
    else:
        wanted = {"size": request.size} if request.size not in (None, "auto") and "size" in model.parameters else {}
    unknown = {name: value for name, value in request.unknown.items() if name not in WRITTEN_HERE}
    return {**unknown, "model": model.upstream_model, "prompt": request.prompt, **fields, **wanted}


def _chat_body(request: ImageRequest, model: Model, content: object) -> dict[str, object]:
    body: dict[str, object] = {
        "model": model.upstream_model,
        "messages": [{"role": "user", "content": content}],
        "modalities": ["image", "text"],
    }
    if wanted := image_config_of(request, model):
        body["image_config"] = wanted
    if "user" in request.fields and "user" in model.parameters:
        body["user"] = request.fields["user"]
    return {**request.unknown, **body}


READING = reading_of(read_error)
