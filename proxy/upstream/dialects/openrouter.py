"""OpenRouter (https://openrouter.ai/docs/features/multimodal/image-generation): images are asked for by chat."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from proxy.domain.answers.answer import JSON, Answer
from proxy.domain.answers.images_rewritten import Reading, translate
from proxy.domain.catalog import Ability, Model
from proxy.domain.errors import NothingGenerated, ProxyError
from proxy.domain.parsing.json_shapes import Shape
from proxy.domain.requests.image import ImageRequest
from proxy.domain.requests.inputs import Upload
from proxy.upstream.bodies.outgoing import OutgoingBody
from proxy.upstream.dialects.openai import OpenAIDialect, read_error
from proxy.upstream.dialects.openrouter_chat import OpenRouterChat
from proxy.upstream.dialects.words import image_config_of, placeholders, splice


class OpenRouterDialect(OpenAIDialect):
    """Chat, its errors and the key are as OpenAI's; one request makes one image."""

    chat = OpenRouterChat()
    max_n = 1
    abilities = frozenset({Ability.EDITS, Ability.LINKED_IMAGES})

    def images_path(self, _request: ImageRequest, _model: Model) -> str:
        """The same as for chat."""
        return "/chat/completions"

    def write_generation(self, request: ImageRequest, model: Model) -> bytes:
        """The prompt is the only message. Never a stream: it would bring the image whole as well, and repeat it."""
        return orjson.dumps(_body(request, model, request.prompt))

    def write_edit(self, request: ImageRequest, model: Model, boundary: str) -> OutgoingBody:
        """The images stand beside the prompt; those that were uploaded become ``data:`` addresses."""
        places = placeholders(request.inputs, boundary)
        parts: list[dict[str, object]] = [{"type": "text", "text": request.prompt}]
        for image, place in places:
            address = f"data:{image.kind};base64,{place}" if isinstance(image, Upload) else image.image_url
            parts.append({"type": "image_url", "image_url": {"url": address}})
        return OutgoingBody(JSON, splice(orjson.dumps(_body(request, model, parts)), places))

    def read_images(self, content_type: str, request: ImageRequest, *, created_s: int) -> Answer:
        """Each image is passed on while it arrives, out of its ``data:`` address."""
        return translate(READING, content_type, stream=request.stream, created_s=created_s, task=request.task)


def _body(request: ImageRequest, model: Model, content: object) -> dict[str, object]:
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


def _refuse(notes: Mapping[str, bytes]) -> ProxyError | None:
    if notes.get("finish") != b'"content_filter"':
        return None
    return NothingGenerated("The provider made no image: content_filter.", reason="content_filter")


_IMAGE = Shape(
    element=True,
    members={b"image_url": Shape(payload="url", members={b"url": Shape(payload="url")})},
)
_MESSAGE = Shape(members={b"images": Shape(items=_IMAGE), b"content": Shape(items=_IMAGE)})
READING = Reading(
    Shape(
        members={
            b"choices": Shape(
                items=Shape(
                    members={
                        b"message": _MESSAGE,
                        b"delta": _MESSAGE,
                        b"finish_reason": Shape(note="finish"),
                        b"error": Shape(note="error"),
                    }
                )
            ),
            b"usage": Shape(note="usage"),
            b"error": Shape(note="error"),
        }
    ),
    read_error,
    _refuse,
)
