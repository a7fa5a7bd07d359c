"""OpenAI's images answer: read at once where it is small and as it should be, and by ``ImagesReader`` where it is not.

Most answers are a few URLs. One of at most 64 KiB is held until it is there. Which of the two ways it goes depends on
its bytes alone, so that the output is the same for every way of cutting the input.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import orjson
from typing_extensions import override

from proxy.domain.answers.answer import JSON, Answer
from proxy.domain.answers.holder import HELD_BYTES_LIMIT
from proxy.domain.answers.images.reader import ImagesReader, Reading, repeated
from proxy.domain.answers.images.writing import SETTINGS, ImagesHead, ImagesJson, ImagesStream
from proxy.domain.answers.places import DOCUMENT, IMAGE_MEMBERS
from proxy.domain.answers.usage_writing import image_tokens
from proxy.domain.errors import ProxyError
from proxy.domain.parsing.base64_text import LOOKED_AT_BYTES, is_plain
from proxy.domain.parsing.image_addresses import is_image_address, read_place
from proxy.domain.parsing.image_header import PREFIX_BYTES_LIMIT, SIZES_LIMIT, Size, read_size
from proxy.domain.parsing.json_shapes import NOTE_BYTES_LIMIT
from proxy.domain.parsing.json_tokens import DEPTH_LIMIT, MalformedResponse

_READ = frozenset({"created", "data", "usage", *SETTINGS})
_READ_OF_AN_IMAGE = frozenset({"b64_json", "url", "revised_prompt", "media_type"})
_NOT_SCALAR = frozenset({dict, list, type(None)})
_ELSEWHERE = frozenset(name.decode() for name in DOCUMENT.members) - _READ
_ELSEWHERE_IN_AN_IMAGE = frozenset(name.decode() for name in IMAGE_MEMBERS) - _READ_OF_AN_IMAGE
"""Where an image, an error or a reason may stand as well: whoever has one of these is read in full."""


class ImagesAnswer(Answer):
    """One JSON document for a client that has asked for one."""

    __slots__ = ("_head", "_held", "_held_bytes", "_reader", "_reading", "images", "sizes", "told", "usage")

    content_type = JSON
    complete = False
    whole = True
    comment = b""

    def __init__(self, reading: Reading, head: ImagesHead) -> None:
        """Start before the first byte of a body."""
        self._reading = reading
        self._head = head
        self._reader: ImagesReader | None = None
        self._held: list[bytes] | None = []
        self._held_bytes = 0
        self.images = 0
        self.sizes: list[Size | None] = []
        self.told: Sequence[tuple[str, str]] = ()
        self.usage: bytes | None = None

    @override
    def feed(self, piece: bytes) -> bytes:
        if self._held is None:
            return self._pass(piece)
        self._held.append(piece)
        self._held_bytes += len(piece)
        return b"" if self._held_bytes <= HELD_BYTES_LIMIT else self._pass(self._take_held())

    @override
    def finish(self) -> bytes:
        body = self._take_held()
        if body and (whole := self._read_whole(body)) is not None:
            return whole
        passed = self._pass(body)
        try:
            return passed + self._need_reader().finish()
        finally:
            self._count()

    @override
    def break_off(self) -> None:
        with contextlib.suppress(MalformedResponse, ProxyError):
            self._pass(self._take_held())
        self._need_reader().break_off()
        self._count()

    @override
    def close(self) -> bytes | None:
        return self._need_reader().close()

    def write_error(self, _error: ProxyError) -> None:
        """JSON that has begun has no room for an error."""

    def _take_held(self) -> bytes:
        held, self._held = b"".join(self._held or ()), None
        return held

    def _need_reader(self) -> ImagesReader:
        if self._reader is None:
            self._reader = ImagesReader(self._reading, ImagesJson(self._head), comes_as_events=False)
        return self._reader

    def _pass(self, piece: bytes) -> bytes:
        reader = self._need_reader()
        try:
            return reader.feed(piece)
        finally:
            self.images = reader.images

    def _count(self) -> None:
        reader = self._need_reader()
        self.images, self.sizes, self.usage, self.told = reader.images, reader.sizes, reader.usage, reader.told

    def _read_whole(self, body: bytes) -> bytes | None:
        """An answer just as OpenAI has it, as ``ImagesReader`` would write it; None leaves any other to that."""
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        if type(answer) is not dict or not _ELSEWHERE.isdisjoint(answer) or type(answer.get("created")) is not int:
            return None
        if answer["created"] < 0:
            return None
        images = _read_images(answer.get("data"))
        if not images:
            return None
        usage = answer.get("usage")
        if type(usage) is dict:
            self.usage = _bounded(usage)
        self.images = len(images)
        self.sizes = [_size(image) for image in images[:SIZES_LIMIT]]
        self.told = repeated(_word(answer.get("quality")), _word(answer.get("size")), self.images)
        whole = {"data": images, "created": answer["created"]}
        for name in SETTINGS:
            if name in answer and type(answer[name]) not in _NOT_SCALAR:
                whole[name] = answer[name]
        if self._head.shows_tokens and self.usage is not None:
            whole["usage"] = orjson.Fragment(image_tokens(self.usage))
        return orjson.dumps(whole)


def read_images(reading: Reading, head: ImagesHead, *, comes_as_events: bool, stream: bool) -> Answer:
    """What reads the body of a 2xx, for a client that has asked for a ``stream`` or has not."""
    if not stream and not comes_as_events:
        return ImagesAnswer(reading, head)
    writer = ImagesStream(head) if stream else ImagesJson(head)
    return ImagesReader(reading, writer, comes_as_events=comes_as_events)


def _read_images(data: Any) -> list[dict[str, str]] | None:
    """What a client gets of each image; None where one of them is not plain, or is there twice."""
    if type(data) is not list:
        return None
    images, payloads = [], set()
    for one in data:
        image = _read_image(one)
        if image is None:
            return None
        images.append(image)
        payloads.add(image.get("b64_json") or image["url"])
    return images if len(payloads) == len(images) else None


def _read_image(image: Any) -> dict[str, str] | None:
    """What a client gets of an object with one payload, which is what its name says; None where it is another."""
    if type(image) is not dict or not _ELSEWHERE_IN_AN_IMAGE.isdisjoint(image):
        return None
    read = {}
    for name, value in image.items():
        if value is not None and name in _READ_OF_AN_IMAGE:
            if type(value) is not str:
                return None
            read[name] = value
    return read if _is_plain(read.get("b64_json"), read.get("url")) else None


def _is_plain(base64: str | None, url: str | None) -> bool:
    if base64 is None:
        return url is not None and is_image_address(url) and url[:5].lower() != "data:"
    begin = base64[:LOOKED_AT_BYTES].encode(errors="replace")
    place = read_place(begin, is_base64=True)
    return url is None and place is not None and place.kind == b"b64_json" and not place.lead_bytes and is_plain(begin)


def _word(value: object) -> str:
    return value if type(value) is str else ""


def _size(image: dict[str, Any]) -> Size | None:
    base64 = image.get("b64_json")
    return None if base64 is None else read_size(base64[:PREFIX_BYTES_LIMIT].encode())


def _bounded(usage: dict[str, Any]) -> bytes | None:
    try:
        text = orjson.dumps(usage)
    except TypeError:
        # Nested deeper than orjson writes, though not deeper than it reads.
        return None
    # What has fewer brackets cannot be deeper; most have a few.
    may_be_deeper = text.count(b"{") + text.count(b"[") > DEPTH_LIMIT
    return text if len(text) <= NOTE_BYTES_LIMIT and not (may_be_deeper and _is_deeper(usage, DEPTH_LIMIT)) else None


def _is_deeper(value: Any, levels: int) -> bool:
    if type(value) not in (dict, list):
        return False
    inner = value.values() if type(value) is dict else value
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in inner)
