"""OpenAI's images API as the sample provider speaks it: requests read, answers and errors written. Pure.

An answer is a list of byte segments rather than one body, so that base64 of 30 MB is neither copied nor escaped.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson

from proxy.sample_provider.behaviour import Behaviour, UnknownBehaviour, split_prompt, with_overrides

MALFORMED_BODY: Final = b'{"created":1,"data":[{"url":}]}'
MODELS: Final = ("sample-image-1", "sample-image-1-mini")

_MAX_N: Final = 100
_MAX_PARTIAL_IMAGES: Final = 3
_MIN_EDGE_PX: Final = 16
_MAX_EDGE_PX: Final = 4096
_LONG_EDGES_PX: Final = {"1k": 1024, "2k": 2048, "4k": 4096}
_DEFAULT_EDGE_PX: Final = 1024
_PIXELS: Final = re.compile(r"([0-9]{1,9})x([0-9]{1,9})")
_RATIO: Final = re.compile(r"([1-9][0-9]{0,3}):([1-9][0-9]{0,3})")
IMAGE_OUTPUT_TOKENS: Final = 1056
_IMAGE_COST_USD: Final = 0.04
_FILLER_BLOCK_BYTES: Final = 48 * 1024

# Statuses that a gateway may distinguish by their code; the others are `sample_failure`.
_FAILURES: Final = {
    400: ("image_generation_user_error", "content_policy_violation"),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "permission_denied"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
    500: ("server_error", "server_error"),
    503: ("server_error", "overloaded"),
}


class Refusal(Exception):
    """A request that is answered with an error in OpenAI's form."""

    def __init__(self, status: int, code: str, message: str, *, param: str | None = None) -> None:
        """Keep the HTTP status, the stable word, the text, and the field that is at fault."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param

    def body(self) -> bytes:
        """The error as JSON."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"  # noqa: PLR2004 - HTTP's own line
        return _error_body(kind, self.code, self.message, self.param)


def failure_body(status: int) -> bytes:
    """The error that the sample provider is set to answer with, as JSON."""
    kind, code = _FAILURES.get(status, ("server_error", "sample_failure"))
    return _error_body(kind, code, f"The sample provider was told to answer {status}.", None)


def _error_body(kind: str, code: str, message: str, param: str | None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


# --- Requests -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Order:
    """What one request is to be answered with: so many pictures of a prompt, of a size in pixels, in a form."""

    prompt: str
    images: int
    width: int
    height: int
    as_base64: bool
    picture_format: str = "png"
    stream: bool = False
    partial_images: int = 0
    quality: str = "standard"


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is; raises `Refusal`."""
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, "invalid_json", f"The body is not valid JSON: {error}") from error
    if not isinstance(asked, dict):
        raise Refusal(400, "invalid_json", "The body must be a JSON object.")
    return asked


def read_order(body: bytes, overrides: str, behaviour: Behaviour) -> tuple[Order, Behaviour]:
    """The order in a request's body, and how to answer it; ``overrides`` is the text of the behaviour header."""
    return order_of(read_object(body), overrides, behaviour)


def order_of(asked: dict[str, Any], overrides: str, behaviour: Behaviour) -> tuple[Order, Behaviour]:
    """The order in a request of fields, as `read_order` reads it."""
    prompt = asked.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise Refusal(400, "missing_required_parameter", "A prompt is required, and is a string.", param="prompt")
    prompt, behaviour = behaviour_for(prompt, overrides, behaviour)
    number = _number_of_images(asked, behaviour)
    width, height = pixels(asked)
    stream = _switch_in(asked, "stream")
    order = Order(
        prompt,
        number if behaviour.images is None else behaviour.images,
        width,
        height,
        # A stream has no URLs, and neither has any answer of OpenAI's current models.
        stream or _is_gpt_image(asked) or _wants_base64(asked, behaviour),
        behaviour.picture_format or _picture_format(asked),
        stream,
        _partial_images(asked),
        _quality(asked, stream),
    )
    return order, behaviour


def behaviour_for(prompt: str, overrides: str, behaviour: Behaviour) -> tuple[str, Behaviour]:
    """A prompt without its prefix, and the behaviour that header and prefix make; raises `Refusal`."""
    prefix, prompt = split_prompt(prompt)
    try:
        return prompt, with_overrides(with_overrides(behaviour, overrides), prefix)
    except UnknownBehaviour as error:
        raise Refusal(400, "unknown_behaviour", f"Sample provider: {error}.") from error


def _switch_in(asked: dict[str, Any], name: str) -> bool:
    value = asked.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise Refusal(400, "invalid_value", f"{name} must be true or false.", param=name)
    return value


def _is_gpt_image(asked: dict[str, Any]) -> bool:
    """Whether the model is named as OpenAI's current ones are: their images are base64, their quality low to high."""
    return _text_in(asked, "model", "model").rpartition("/")[2].startswith("gpt-image")


def _quality(asked: dict[str, Any], stream: bool) -> str:
    """What the answer says of its quality: the one asked for, where the model knows it."""
    word = _text_in(asked, "quality", "quality")
    if word in ("low", "medium", "high"):
        return word
    # Only the current models stream; what is left open is theirs to choose.
    return "high" if stream or _is_gpt_image(asked) else "standard"


def _picture_format(asked: dict[str, Any]) -> str:
    word = _text_in(asked, "output_format", "output_format") or "png"
    if word not in ("png", "jpeg", "webp"):
        raise Refusal(400, "invalid_value", "output_format must be png, jpeg or webp.", param="output_format")
    return word


def _partial_images(asked: dict[str, Any]) -> int:
    number = asked.get("partial_images")
    if number is None:
        return 0
    if type(number) is not int or not 0 <= number <= _MAX_PARTIAL_IMAGES:
        limits = f"from 0 to {_MAX_PARTIAL_IMAGES}"
        raise Refusal(400, "invalid_value", f"partial_images must be a whole number {limits}.", param="partial_images")
    return number


def _number_of_images(asked: dict[str, Any], behaviour: Behaviour) -> int:
    number = asked.get("n")
    if number is None:
        return behaviour.default_n
    if type(number) is not int or not 1 <= number <= _MAX_N:
        raise Refusal(400, "invalid_value", f"n must be a whole number from 1 to {_MAX_N}.", param="n")
    return number


def _wants_base64(asked: dict[str, Any], behaviour: Behaviour) -> bool:
    form = asked.get("response_format")
    if form is None:
        return behaviour.image_bytes is not None or behaviour.answer == "b64_json"
    if form not in ("url", "b64_json"):
        raise Refusal(400, "invalid_value", "response_format must be url or b64_json.", param="response_format")
    return bool(form == "b64_json")


def _text_in(asked: dict[str, Any], name: str, param: str) -> str:
    value = asked.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refusal(400, "invalid_value", f"{param} must be a string.", param=param)
    return value.strip().lower()


def pixels(asked: dict[str, Any]) -> tuple[int, int]:
    """Width and height. As with real providers' looser cousins, a word that means nothing here is the default."""
    config = asked.get("image_config")
    if config is None:
        config = {}
    if not isinstance(config, dict):
        raise Refusal(400, "invalid_value", "image_config must be an object.", param="image_config")
    size = _text_in(asked, "size", "size")
    word = _text_in(config, "image_size", "image_config.image_size")
    ratio = _RATIO.fullmatch(_text_in(config, "aspect_ratio", "image_config.aspect_ratio"))
    exact = _PIXELS.fullmatch(size)
    if exact is not None:
        width, height = int(exact[1]), int(exact[2])
        if not _MIN_EDGE_PX <= min(width, height) <= max(width, height) <= _MAX_EDGE_PX:
            limits = f"from {_MIN_EDGE_PX} to {_MAX_EDGE_PX} pixels"
            raise Refusal(400, "invalid_value", f"Each edge of size must be {limits}.", param="size")
        return width, height
    edge = _LONG_EDGES_PX.get(size) or _LONG_EDGES_PX.get(word, _DEFAULT_EDGE_PX)
    if ratio is None:
        return edge, edge
    across, down = int(ratio[1]), int(ratio[2])
    short = max(_MIN_EDGE_PX, round(edge * min(across, down) / max(across, down)))
    return (edge, short) if across >= down else (short, edge)


# --- Answers --------------------------------------------------------------------------------------------------------


def url_answer(order: Order, url: str, created_s: int) -> list[bytes]:
    """An answer whose every image is at an address of its own, ``url``; ``created_s`` is Unix time in seconds."""
    images = [
        orjson.dumps({"url": f"{url}?n={index}" if index else url, "revised_prompt": order.prompt})
        for index in range(order.images)
    ]
    return [_head(order, created_s), b",".join(images), _tail(order)]


def base64_answer(order: Order, image: bytes, created_s: int) -> list[bytes]:
    """An answer whose images are this base64 text, and differ at its end; ``created_s`` is Unix time in seconds."""
    opening, closing = b'{"b64_json":"', b'","revised_prompt":' + orjson.dumps(order.prompt) + b"}"
    segments = [_head(order, created_s)]
    for index in range(order.images):
        segments += (b"," + opening if index else opening, image, difference(index).encode() + closing)
    return [*segments, _tail(order)]


def difference(index: int) -> str:
    """What makes an image differ from the first: bytes after its end, which decoders pass over."""
    return base64.b64encode(index.to_bytes(3)).decode() if index else ""


def endless_answer(segments: Iterable[bytes], image: bytes) -> Iterator[bytes]:
    """An answer as far as its first image, whose base64 never ends."""
    for segment in segments:
        if segment is image:
            break
        yield segment
    while True:
        yield _filler_block()


def _head(order: Order, created_s: int) -> bytes:
    facts = {
        "created": created_s,
        "background": "opaque",
        "output_format": order.picture_format,
        "quality": order.quality,
        "size": f"{order.width}x{order.height}",
    }
    return orjson.dumps(facts)[:-1] + b',"data":['


def _tail(order: Order) -> bytes:
    facts = {"usage": usage(order, order.images), "cost": cost_usd(order.images)}
    return b"]," + orjson.dumps(facts)[1:]


def text_tokens_of(order: Order) -> int:
    """The tokens of a prompt, roughly as providers count them."""
    return -(-len(order.prompt.encode()) // 4)


def cost_usd(images: int) -> float:
    """What so many images cost, in US dollars."""
    return round(_IMAGE_COST_USD * images, 2)


def usage(order: Order, images: int) -> dict[str, Any]:
    """OpenAI's ``usage`` for so many images of an order."""
    text_tokens = text_tokens_of(order)
    output_tokens = IMAGE_OUTPUT_TOKENS * images
    return {
        "total_tokens": text_tokens + output_tokens,
        "input_tokens": text_tokens,
        "output_tokens": output_tokens,
        "input_tokens_details": {"text_tokens": text_tokens, "image_tokens": 0},
    }


def models_body() -> bytes:
    """The list of models, as JSON."""
    entries = [{"id": name, "object": "model", "created": 0, "owned_by": "sample-provider"} for name in MODELS]
    return orjson.dumps({"object": "list", "data": entries})


@lru_cache(maxsize=1)
def _filler_block() -> bytes:
    # Not one letter repeated: a body that compresses to nothing would flatter whoever compresses.
    return base64.b64encode(hashlib.shake_256(b"lightmeter").digest(_FILLER_BLOCK_BYTES))


@lru_cache(maxsize=4)
def filler(length_bytes: int) -> bytes:
    """Valid base64 text of this length, rounded up to whole groups of 4 bytes; the same every time."""
    length_bytes = -(-length_bytes // 4) * 4
    block = _filler_block()
    return (block * (length_bytes // len(block) + 1))[:length_bytes]


def cut(segments: Iterable[bytes], size_bytes: int) -> Iterator[bytes | memoryview]:
    """The segments, joined, in pieces of exactly this size; only the last may be shorter.

    Bytes are copied where a piece spans segments, and nowhere else.
    """
    pending = b""
    for segment in segments:
        start = 0
        if pending:
            start = size_bytes - len(pending)
            pending += segment[:start]
            if len(pending) < size_bytes:
                continue
            yield pending
            pending = b""
        view = memoryview(segment)
        end = start + max(0, len(segment) - start) // size_bytes * size_bytes
        for offset in range(start, end, size_bytes):
            yield view[offset : offset + size_bytes]
        pending = segment[end:]
    if pending:
        yield pending
