"""Google's Gemini API, as far as it makes images: ``generateContent`` and ``streamGenerateContent``. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson

from proxy.sample_provider.behaviour import Behaviour
from proxy.sample_provider.dialects.documents import IMAGE, filled
from proxy.sample_provider.dialects.wire import (
    IMAGE_OUTPUT_TOKENS,
    Order,
    Refusal,
    behaviour_for,
    difference,
    pixels,
    text_tokens_of,
)

_STATUSES: Final = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_TEXT: Final = "Here is what the sample provider has to say."
_TEXT_TOKENS: Final = 11
_THOUGHT: Final = "The sample provider thinks about what to draw."


def read_content(asked: dict[str, Any], overrides: str, behaviour: Behaviour) -> tuple[Order, Behaviour]:
    """The order in a ``generateContent`` request; ``generationConfig.imageConfig`` decides the pixels."""
    config = asked.get("generationConfig", {})
    if not isinstance(config, dict):
        raise Refusal(400, "invalid_value", "generationConfig must be an object.", param="generationConfig")
    if config.get("candidateCount", 1) != 1:
        raise Refusal(400, "invalid_value", "Multiple candidates is not enabled for this model.")
    image_config = config.get("imageConfig", {})
    if not isinstance(image_config, dict):
        raise Refusal(400, "invalid_value", "generationConfig.imageConfig must be an object.")
    prompt, behaviour = behaviour_for(_prompt(asked), overrides, behaviour)
    words = {"aspect_ratio": image_config.get("aspectRatio"), "image_size": image_config.get("imageSize")}
    width, height = pixels({"image_config": words})
    modalities = config.get("responseModalities") or ["TEXT", "IMAGE"]
    images = 1 if "IMAGE" in modalities else 0
    if behaviour.images is not None:
        images = behaviour.images
    if behaviour.block_reason or (behaviour.finish_reason or "STOP") != "STOP":
        images = 0
    return Order(prompt, images, width, height, True, behaviour.picture_format or "png"), behaviour


def _prompt(asked: dict[str, Any]) -> str:
    """The text of what the user has said last."""
    contents = asked.get("contents")
    if not isinstance(contents, list) or not contents:
        raise Refusal(400, "invalid_value", "* GenerateContentRequest.contents: contents is not specified")
    if "systemInstruction" in asked:
        _texts(asked["systemInstruction"], "system_instruction")
    said = [_texts(content, f"contents[{index}]") for index, content in enumerate(contents)]
    roles = [content.get("role", "user") for content in contents]
    if not set(roles) <= {"user", "model"}:
        raise Refusal(400, "invalid_value", "Please use a valid role: user, model.")
    return next((text for text, role in zip(reversed(said), reversed(roles), strict=True) if role == "user"), "")


def _texts(content: object, place: str) -> str:
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, list) or not all(isinstance(part, dict) and part for part in parts):
        raise Refusal(400, "invalid_value", f"* GenerateContentRequest.{place}.parts: must be a list of parts.")
    return " ".join(part["text"] for part in parts if isinstance(part.get("text"), str))


def answer(order: Order, behaviour: Behaviour, image: bytes, _created_s: int) -> list[bytes]:
    """The whole answer."""
    if behaviour.block_reason:
        return filled(_blocked(order, behaviour), image)
    candidate = _candidate(_parts(order, behaviour), behaviour.finish_reason or "STOP")
    return filled({"candidates": [candidate], **_tail(order, behaviour)}, image)


def events(order: Order, behaviour: Behaviour, image: bytes, _created_s: int) -> Iterator[list[bytes]]:
    """The answers of a stream: each part in one of its own, and the reason why it ended in the last."""
    if behaviour.block_reason:
        yield _event(_blocked(order, behaviour), image)
        return
    for part in _parts(order, behaviour):
        yield _event({"candidates": [_candidate([part], None)], **_tail(order)}, image)
    last = _candidate([{"text": ""}] if order.images else [], behaviour.finish_reason or "STOP")
    yield _event({"candidates": [last], **_tail(order, behaviour)}, image)


def _event(document: dict[str, Any], image: bytes) -> list[bytes]:
    # Google ends lines so.
    return [b"data: ", *filled(document, image), b"\r\n\r\n"]


def _parts(order: Order, behaviour: Behaviour) -> list[dict[str, Any]]:
    """Thoughts, then what it says, which it does even where text was not asked for, then the images."""
    if (behaviour.finish_reason or "STOP") != "STOP":
        return _thoughts(order, behaviour)
    images = [_inline(order, difference(index)) for index in range(order.images)]
    return [*_thoughts(order, behaviour), {"text": _TEXT}, *images]


def _thoughts(order: Order, behaviour: Behaviour) -> list[dict[str, Any]]:
    if not behaviour.thoughts:
        return []
    return [{"text": _THOUGHT, "thought": True}, *([{**_inline(order), "thought": True}] * behaviour.thoughts)]


def _inline(order: Order, end: str = "") -> dict[str, Any]:
    return {"inlineData": {"mimeType": f"image/{order.picture_format}", "data": IMAGE + end}}


def _candidate(parts: list[dict[str, Any]], finish_reason: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {}
    if parts:
        candidate["content"] = {"parts": parts, "role": "model"}
    if finish_reason is not None:
        candidate["finishReason"] = finish_reason
        if finish_reason != "STOP":
            candidate["finishMessage"] = f"The sample provider was told to answer {finish_reason}."
    return {**candidate, "index": 0}


def _blocked(order: Order, behaviour: Behaviour) -> dict[str, Any]:
    return {"promptFeedback": {"blockReason": behaviour.block_reason}, **_tail(order)}


def _tail(order: Order, behaviour: Behaviour | None = None) -> dict[str, Any]:
    """What stands below an answer, or with a ``behaviour`` below the last one."""
    prompt_tokens = text_tokens_of(order)
    answers = behaviour is not None and (behaviour.finish_reason or "STOP") == "STOP"
    text_tokens, image_tokens = (_TEXT_TOKENS, IMAGE_OUTPUT_TOKENS * order.images) if answers else (0, 0)
    usage: dict[str, Any] = {
        "promptTokenCount": prompt_tokens,
        "totalTokenCount": prompt_tokens + text_tokens + image_tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt_tokens}],
    }
    if answers:
        usage["candidatesTokenCount"] = text_tokens + image_tokens
        usage["candidatesTokensDetails"] = [{"modality": "IMAGE", "tokenCount": image_tokens}]
    return {"usageMetadata": usage, "modelVersion": "sample-image-1", "responseId": "sample"}


def error(status: int, _code: str, message: str) -> bytes:
    """An error in Google's form."""
    return orjson.dumps({"error": {"code": status, "message": message, "status": _STATUSES.get(status, "UNKNOWN")}})


def failure(status: int) -> bytes:
    """The error that the sample provider is set to answer with."""
    return error(status, "", f"The sample provider was told to answer {status}.")


def error_event() -> list[bytes]:
    """The error that a stream breaks off with."""
    error = {"code": 500, "message": "The sample provider was told to fail.", "status": "INTERNAL"}
    return _event({"error": error}, b"")
