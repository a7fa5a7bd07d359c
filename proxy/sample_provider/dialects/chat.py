"""Chat completions whose answers hold images, as OpenRouter speaks them. Pure.

Images are data URLs in ``message.images`` or ``delta.images``, or in the text, as some have them; ``usage`` holds what
was billed beside the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson

from proxy.sample_provider.behaviour import Behaviour
from proxy.sample_provider.dialects.documents import IMAGE, event, filled
from proxy.sample_provider.dialects.wire import (
    IMAGE_OUTPUT_TOKENS,
    Order,
    Refusal,
    cost_usd,
    difference,
    order_of,
    text_tokens_of,
)

_MODEL: Final = "sample-image-1"
_TEXT: Final = "Here is what the sample provider has to say."
_TEXT_TOKENS: Final = 11


def read_chat(asked: dict[str, Any], overrides: str, behaviour: Behaviour) -> tuple[Order, Behaviour]:
    """The order in a chat request; one whose ``modalities`` lack ``image`` is answered with text alone."""
    fields: dict[str, Any] = {name: asked[name] for name in ("n", "size", "image_config", "stream") if name in asked}
    order, behaviour = order_of(
        {**fields, "prompt": _prompt(asked), "response_format": "b64_json"}, overrides, behaviour
    )
    modalities = asked.get("modalities")
    if isinstance(modalities, list) and "image" in modalities:
        return order, behaviour
    return (
        Order(order.prompt, 0, order.width, order.height, True, order.picture_format, order.stream),
        behaviour,
    )


def _prompt(asked: dict[str, Any]) -> str:
    """The text of the last message of the user."""
    messages = asked.get("messages")
    for message in reversed(messages if isinstance(messages, list) else []):
        if not isinstance(message, dict) or message.get("role") != "user":
            continue
        content = message.get("content")
        if isinstance(content, str):
            return content
        parts = content if isinstance(content, list) else []
        return " ".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))
    raise Refusal(400, "missing_required_parameter", "messages must hold one of the user.", param="messages")


def answer(order: Order, behaviour: Behaviour, image: bytes, created_s: int) -> list[bytes]:
    """The whole answer."""
    message: dict[str, Any] = {"role": "assistant", "content": _TEXT, "refusal": None, "reasoning": None}
    message |= _with_images(order, behaviour, range(order.images))
    choice = {"index": 0, "logprobs": None, "finish_reason": "stop", "native_finish_reason": "STOP", "message": message}
    return filled({**_head("chat.completion", created_s), "choices": [choice], "usage": _usage(order)}, image)


def events(order: Order, behaviour: Behaviour, image: bytes, created_s: int) -> Iterator[list[bytes]]:
    """Text first, then each image in a delta of its own (again and again by ``repeats``), then usage."""
    head = _head("chat.completion.chunk", created_s)
    yield event({**head, "choices": [_delta({"content": _TEXT})]})
    for index in range(order.images):
        for _ in range(1 + behaviour.repeats):
            delta = {"content": "", **_with_images(order, behaviour, range(index, index + 1))}
            for part in _cut_text(delta) if behaviour.image_place == "text" else [delta]:
                yield event({**head, "choices": [_delta(part)]}, image)
    yield event({**head, "choices": [_delta({"content": ""}, "stop")]})
    yield event({**head, "choices": [_delta({"content": ""})], "usage": _usage(order)})


def _with_images(order: Order, behaviour: Behaviour, indexes: range) -> dict[str, Any]:
    if not indexes:
        return {}
    url = f"data:image/{order.picture_format};base64,{IMAGE}"
    images: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": url + difference(index)}, "index": index} for index in indexes
    ]
    if behaviour.image_place == "text":
        return {"content": "".join(f"![{index}]({image['image_url']['url']}) " for index, image in enumerate(images))}
    if behaviour.image_place == "content":
        return {"content": [{"type": "text", "text": _TEXT}, *images]}
    return {"images": images}


def _cut_text(delta: dict[str, Any]) -> list[dict[str, Any]]:
    """Text comes as tokens do, which end anywhere: within an address, and after the image's bytes."""
    lead, mark, rest = delta["content"].partition("base64,")
    return [{"content": part} for part in (lead[:-3], lead[-3:] + mark, rest[:-2], rest[-2:])]


def _delta(fields: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    native = None if finish_reason is None else "STOP"
    delta = {"role": "assistant", **fields}
    return {
        "index": 0,
        "delta": delta,
        "finish_reason": finish_reason,
        "native_finish_reason": native,
        "logprobs": None,
    }


def _head(kind: str, created_s: int) -> dict[str, Any]:
    return {
        "id": f"gen-{created_s}-sample",
        "provider": "Sample",
        "model": _MODEL,
        "object": kind,
        "created": created_s,
    }


def _usage(order: Order) -> dict[str, Any]:
    prompt_tokens = text_tokens_of(order)
    image_tokens = IMAGE_OUTPUT_TOKENS * order.images
    cost = cost_usd(order.images)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": _TEXT_TOKENS + image_tokens,
        "total_tokens": prompt_tokens + _TEXT_TOKENS + image_tokens,
        "cost": cost,
        "is_byok": False,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "cost_details": {
            "upstream_inference_cost": None,
            "upstream_inference_prompt_cost": 0,
            "upstream_inference_completions_cost": cost,
        },
        "completion_tokens_details": {"reasoning_tokens": 0, "image_tokens": image_tokens},
    }


def error(status: int, code: str, message: str) -> bytes:
    """An error in OpenRouter's form, whose ``code`` is the status."""
    return orjson.dumps({"error": {"message": message, "code": status, "metadata": {"reason": code}}})


def failure(status: int) -> bytes:
    """The error that the sample provider is set to answer with."""
    return error(status, "sample_failure", f"The sample provider was told to answer {status}.")


def error_event() -> list[bytes]:
    """The error that a stream breaks off with."""
    choice = _delta({"content": ""}, "error")
    document = {**_head("chat.completion.chunk", 0), "choices": [choice]}
    return event({**document, "error": {"code": "server_error", "message": "The sample provider was told to fail."}})
