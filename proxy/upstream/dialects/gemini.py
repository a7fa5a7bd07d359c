"""Google's Gemini API (https://ai.google.dev/api/generate-content), as far as it makes images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from urllib.parse import quote

import orjson

from proxy.domain.answer import JSON, Answer
from proxy.domain.catalog import Ability, Model
from proxy.domain.errors import NothingGenerated, ProxyError
from proxy.domain.image_inputs import PLAIN_BYTES, Upload, split_data_url
from proxy.domain.image_request import ImageRequest
from proxy.domain.json_shapes import Shape
from proxy.domain.outgoing_body import OutgoingBody
from proxy.domain.translation import Reading, translate
from proxy.upstream.dialects.words import image_config_of, placeholders, splice, words_of
from proxy.upstream.failures import ErrorReport, clean, error_for_status, error_in_answer

GOOD_ENDS = frozenset({"STOP", "MAX_TOKENS", "FINISH_REASON_UNSPECIFIED"})


class GeminiDialect:
    """See ``Dialect``. One request makes one image; it knows no chat here."""

    chat = None
    max_n = 1
    abilities = frozenset({Ability.EDITS})

    def authorize(self, api_key: str) -> Mapping[str, str]:
        """A header of Google's own."""
        return {"x-goog-api-key": api_key} if api_key else {}

    def images_path(self, request: ImageRequest, model: Model) -> str:
        """The model is part of the path."""
        name = quote(model.upstream_model, safe="/")
        name = name if "/" in name else f"models/{name}"
        return f"/{name}:streamGenerateContent?alt=sse" if request.stream else f"/{name}:generateContent"

    def write_generation(self, request: ImageRequest, model: Model) -> bytes:
        """The prompt is the only content; sizes go into ``imageConfig``, and other hints have no place."""
        return orjson.dumps(_body(request, model, []))

    def write_edit(self, request: ImageRequest, model: Model, boundary: str) -> OutgoingBody:
        """The images stand after the prompt, each as ``inlineData``."""
        places = placeholders(request.inputs, boundary)
        parts = []
        for image, place in places:
            if isinstance(image, Upload):
                kind, data = image.kind, place
            else:
                kind, data = split_data_url(image.image_url or "") or (PLAIN_BYTES, "")
            parts.append({"inlineData": {"mimeType": kind, "data": data}})
        return OutgoingBody(JSON, splice(orjson.dumps(_body(request, model, parts)), places))

    def read_images(self, content_type: str, request: ImageRequest, *, created_s: int) -> Answer:
        """Each image is passed on while it arrives."""
        return translate(READING, content_type, stream=request.stream, created_s=created_s, task=request.task)

    def read_refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> ProxyError:
        """Errors come as ``{"error": {"code", "message", "status"}}``; a bad key is a 400."""
        words = words_of(body)
        if status == HTTPStatus.BAD_REQUEST and (b"API_KEY" in body or "API key" in words.get("message", "")):
            status = HTTPStatus.UNAUTHORIZED
        return error_for_status(status, headers, ErrorReport(words.get("message", ""), words.get("status")))


def _body(request: ImageRequest, model: Model, images: Sequence[object]) -> dict[str, object]:
    config: dict[str, object] = {"responseModalities": ["TEXT", "IMAGE"]}
    wanted = image_config_of(request, model)
    if wanted:
        names = {"aspect_ratio": "aspectRatio", "image_size": "imageSize"}
        config["imageConfig"] = {names[name]: value for name, value in wanted.items()}
    contents = [{"role": "user", "parts": [{"text": request.prompt}, *images]}]
    return {"contents": contents, "generationConfig": config}


def _read_error(text: bytes) -> ProxyError:
    words = words_of(b'{"error":%b}' % text)
    return error_in_answer(ErrorReport(words.get("message", ""), words.get("status")))


def _refuse(notes: Mapping[str, bytes]) -> ProxyError | None:
    """Why no image came: the prompt was blocked, or what was made of it."""
    reason = _text(notes.get("block")) or _text(notes.get("finish"))
    if not reason or reason in GOOD_ENDS:
        return None
    why = clean(_text(notes.get("why")))
    return NothingGenerated(f"The provider made no image: {clean(reason)}. {why}".strip(), reason=reason)


def _text(note: bytes | None) -> str:
    value = orjson.loads(note) if note else None
    return value if isinstance(value, str) else ""


_DATA = Shape(
    members={
        b"data": Shape(payload="b64_json"),
        b"mimeType": Shape(note="media_type"),
        b"mime_type": Shape(note="media_type"),
    }
)
_PART = Shape(picture=True, members={b"inlineData": _DATA, b"inline_data": _DATA, b"thought": Shape(note="skip")})
READING = Reading(
    Shape(
        members={
            b"candidates": Shape(
                items=Shape(
                    members={
                        b"content": Shape(members={b"parts": Shape(items=_PART)}),
                        b"finishReason": Shape(note="finish"),
                        b"finishMessage": Shape(note="why"),
                    }
                )
            ),
            b"promptFeedback": Shape(
                members={b"blockReason": Shape(note="block"), b"blockReasonMessage": Shape(note="why")}
            ),
            b"usageMetadata": Shape(note="usage"),
            b"error": Shape(note="error"),
        }
    ),
    _read_error,
    _refuse,
)
