"""Google's Gemini API (https://ai.google.dev/api/generate-content), as far as it makes images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import orjson
from typing_extensions import override

from proxy.domain.answers.answer import JSON
from proxy.domain.answers.images.reader import Reading
from proxy.domain.catalog import Ability, Model
from proxy.domain.errors import ProxyError
from proxy.domain.requests.image import ImageRequest
from proxy.domain.requests.inputs import PLAIN_BYTES, Upload, split_data_url
from proxy.upstream.bodies.outgoing import OutgoingBody
from proxy.upstream.dialects.gemini_chat import GeminiChat
from proxy.upstream.dialects.gemini_words import content_path, image_config, read_error, unknown_of
from proxy.upstream.dialects.protocol import Dialect
from proxy.upstream.dialects.reasons import reading_of
from proxy.upstream.dialects.words import image_config_of, placeholders, splice
from proxy.upstream.errors.failures import error_for_status
from proxy.upstream.errors.reports import read_report


class GeminiDialect(Dialect):
    """One request makes one image."""

    chat = GeminiChat()
    abilities = frozenset({Ability.EDITS})
    sizes_in_words = True

    @override
    def images_at_once(self, _endpoint: str) -> int:
        return 1

    def authorize(self, api_key: str) -> Mapping[str, str]:
        """A header of Google's own."""
        return {"x-goog-api-key": api_key} if api_key else {}

    def images_path(self, request: ImageRequest, model: Model) -> str:
        """The model is part of the path."""
        return content_path(model, stream=request.stream)

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

    @property
    @override
    def reading(self) -> Reading:
        return READING

    def read_refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> ProxyError:
        """Errors come as ``{"error": {"code", "message", "status", "details"}}``; a bad key is a 400."""
        report = read_report(body)
        if status == HTTPStatus.BAD_REQUEST and "API key" in report.message:
            status = HTTPStatus.UNAUTHORIZED
        return error_for_status(status, headers, report)


def _body(request: ImageRequest, model: Model, images: Sequence[object]) -> dict[str, object]:
    config: dict[str, object] = {"responseModalities": ["TEXT", "IMAGE"]}
    wanted = image_config_of(request, model)
    if wanted:
        config["imageConfig"] = image_config(wanted)
    contents = [{"role": "user", "parts": [{"text": request.prompt}, *images]}]
    body = {**unknown_of(request.unknown), "contents": contents, "generationConfig": config}
    return body if model.wording is None else model.wording.of(body)


READING = reading_of(read_error)
