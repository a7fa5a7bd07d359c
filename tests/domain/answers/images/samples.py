"""Answers to requests for images: how each is read, and what is true of all that a client gets of one."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any, Final

import orjson
from openai.types import (
    ImageEditCompletedEvent,
    ImageEditPartialImageEvent,
    ImageGenCompletedEvent,
    ImageGenPartialImageEvent,
)

from proxy.domain.answers.answer import Answer
from proxy.domain.answers.images.answer import read_images
from proxy.domain.answers.images.reader import Reading
from proxy.domain.answers.images.writing import ImagesHead
from proxy.upstream.dialects.openai import READING
from tests.domain.answer_samples import Passed, events_of, passed_however_cut

CREATED_S: Final = 1_764_000_000
HEAD: Final = ImagesHead(CREATED_S)
TOP_LEVEL: Final = {"created", "data", "background", "output_format", "quality", "size", "usage"}
IN_AN_IMAGE: Final = {"url", "b64_json", "revised_prompt", "media_type"}
IN_AN_EVENT: Final = {
    "type", "created_at", "background", "output_format", "quality", "size", "usage", "partial_image_index",
    *IN_AN_IMAGE,
}  # fmt: skip
EVENTS: Final[dict[str, Any]] = {
    "image_generation.completed": ImageGenCompletedEvent,
    "image_generation.partial_image": ImageGenPartialImageEvent,
    "image_edit.completed": ImageEditCompletedEvent,
    "image_edit.partial_image": ImageEditPartialImageEvent,
}
NO_TOKENS: Final = {
    "total_tokens": 0,
    "input_tokens": 0,
    "output_tokens": 0,
    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
}
COMPLETED: Final = {
    "type": "image_generation.completed",
    "created_at": CREATED_S,
    "background": "auto",
    "output_format": "png",
    "quality": "auto",
    "size": "auto",
    "usage": NO_TOKENS,
}
"""What an event says where nobody said anything."""

_base64 = re.compile(r"[A-Za-z0-9+/=_-]+")
_address = re.compile(r"https?:|data:image/", re.IGNORECASE)


def make(*, events: bool = False, stream: bool = False, reading: Reading = READING, head: ImagesHead = HEAD) -> Answer:
    return read_images(reading, head, comes_as_events=events, stream=stream)


def read(
    body: bytes, *, events: bool = False, stream: bool = False, reading: Reading = READING, head: ImagesHead = HEAD
) -> Passed:
    """The same however it is cut."""
    return passed_however_cut(lambda: make(events=events, stream=stream, reading=reading, head=head), body)


def sse(*documents: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % orjson.dumps(document) for document in documents)


def delivered(output: bytes, *, stream: bool) -> list[dict[str, Any]]:
    """The images that a client has."""
    if stream:
        return [event for event in events_of(output) if event["type"].endswith(".completed")]
    images: list[dict[str, Any]] = orjson.loads(output)["data"]
    return images


def addresses(output: bytes, *, stream: bool) -> list[str]:
    return [image.get("b64_json") or image["url"] for image in delivered(output, stream=stream)]


def cut(body: bytes, at: list[int]) -> list[bytes]:
    ends = sorted({0, len(body), *(end % (len(body) + 1) for end in at)})
    return [body[begin:end] for begin, end in pairwise(ends)]


def check_output(output: bytes, *, stream: bool, is_base64: bool = True) -> None:
    """What is true of all that leaves; ``is_base64`` where no image in base64 had anything else in it."""
    if stream:
        for event in events_of(output):
            if event["type"] != "error":
                _check_event(event, is_base64=is_base64)
        return
    answer = orjson.loads(output)
    assert set(answer) <= TOP_LEVEL
    assert type(answer["created"]) is int
    assert all(type(value) not in (dict, list) for name, value in answer.items() if name not in ("data", "usage"))
    for image in answer["data"]:
        assert set(image) <= IN_AN_IMAGE
        _check_image(image, is_base64=is_base64)


def _check_event(event: dict[str, Any], *, is_base64: bool) -> None:
    assert set(event) <= IN_AN_EVENT
    kind = EVENTS[event["type"]]
    required = {name for name, field in kind.model_fields.items() if field.is_required()}
    # OpenAI's streams know no addresses.
    assert required - set(event) <= ({"b64_json"} if "url" in event else set())
    assert type(event["created_at"]) is int
    assert all(type(value) not in (dict, list) for name, value in event.items() if name != "usage")
    _check_image(event, is_base64=is_base64)


def _check_image(image: dict[str, Any], *, is_base64: bool) -> None:
    """One payload, which is what its name says."""
    assert ("url" in image) != ("b64_json" in image)
    assert all(type(image.get(name)) not in (dict, list) for name in ("revised_prompt", "media_type"))
    if "url" in image:
        assert _address.match(image["url"])
    else:
        assert image["b64_json"]
        assert not is_base64 or _base64.fullmatch(image["b64_json"])
