"""A provider's images response on its way to the client: whole where it is small, as a stream where it is not.

Most answers are a few URLs. One of at most 64 KiB is held until it is there, read at once, and may still become a
proper error; a larger one goes through ``ResponseScanner`` while it arrives. Which of the two it is depends on its size
alone, so that the output is the same for every way of cutting the input.
"""

from __future__ import annotations

from typing import Any

import orjson

from proxy.domain.answer import JSON
from proxy.domain.errors import ProxyError
from proxy.domain.image_addresses import is_image_address
from proxy.domain.image_size import PREFIX_BYTES_LIMIT, SIZES_LIMIT, Size, read_size
from proxy.domain.response_scanner import (
    DEPTH_LIMIT,
    IMAGE_PAYLOADS,
    IN_AN_IMAGE,
    TOP_LEVEL,
    USAGE_BYTES_LIMIT,
    MalformedResponse,
    ResponseScanner,
)

WHOLE_BYTES_LIMIT = 65_536

_TOP_LEVEL = frozenset(name.decode() for name in TOP_LEVEL)
_IN_AN_IMAGE = frozenset(name.decode() for name in IN_AN_IMAGE)
_PAYLOADS = tuple(name.decode() for name in IMAGE_PAYLOADS)


class ImagesAnswer:
    """See ``Answer``."""

    __slots__ = ("_held", "_held_bytes", "_scanner", "images", "sizes", "usage")

    content_type = JSON
    whole = True
    comment = b""

    def __init__(self) -> None:
        """Start before the first byte of a body."""
        self.images = 0
        self.sizes: list[Size | None] = []
        self.usage: bytes | None = None
        self._scanner = ResponseScanner()
        self._held: list[bytes] | None = []
        self._held_bytes = 0

    @property
    def complete(self) -> bool:
        """Whether the end of a streamed answer has been returned; what may follow is blank."""
        return self._scanner.complete

    def feed(self, piece: bytes) -> bytes:
        """Take the next piece; return what may be passed on, which may be nothing. Raises MalformedResponse."""
        if self._held is None:
            return self._pass(piece)
        self._held.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes <= WHOLE_BYTES_LIMIT:
            return b""
        held, self._held = b"".join(self._held), None
        return self._pass(held)

    def _pass(self, piece: bytes) -> bytes:
        passed = self._scanner.feed(piece)
        self.images = self._scanner.images
        return passed

    def finish(self) -> bytes:
        """The body has ended: return all of a small answer, nothing of a large one. Raises MalformedResponse."""
        body = self._take_held()
        if body is not None:
            whole = self._read_whole(body)
            if whole is not None:
                return whole
        try:
            rest = self._scanner.feed(body) if body else b""
            self._scanner.finish()
        finally:
            self._count()
        return rest

    def break_off(self) -> None:
        """The body has ended before its end: count what was complete."""
        body = self._take_held()
        try:
            self._scanner.feed(body or b"")
        except MalformedResponse:
            pass
        finally:
            self._count()

    def _count(self) -> None:
        self.images, self.sizes, self.usage = self._scanner.images, self._scanner.sizes, self._scanner.usage

    def tell(self, _error: ProxyError) -> None:
        """JSON that has begun has no room for an error."""

    def _take_held(self) -> bytes | None:
        if self._held is None:
            return None
        held, self._held = b"".join(self._held), None
        return held

    def _read_whole(self, body: bytes) -> bytes | None:
        """A good answer as ``ResponseScanner`` would pass it on; None leaves the verdict to that."""
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        if type(answer) is not dict or type(answer.get("data")) is not list:
            return None
        sizes: list[Size | None] = []
        data: list[dict[str, Any]] = []
        for image in answer["data"]:
            if type(image) is not dict:
                return None
            passed = _allowed(image, _IN_AN_IMAGE)
            url = passed.get("url")
            if type(url) is str and not is_image_address(url):
                del passed["url"]
            data.append(passed)
            if any(type(passed.get(name)) is str and passed[name] != "" for name in _PAYLOADS):
                sizes.append(_size(passed))
        usage = answer.get("usage")
        if type(usage) is dict:
            self.usage = _bounded(usage)
        self.images, self.sizes = len(sizes), sizes[:SIZES_LIMIT]
        answer["data"] = None
        whole = _allowed(answer, _TOP_LEVEL)
        whole["data"] = data
        return orjson.dumps(whole)


def _size(image: dict[str, Any]) -> Size | None:
    """Of the payload that came first, as for a large answer."""
    first = next(name for name in image if name in _PAYLOADS and type(image[name]) is str and image[name] != "")
    return read_size(image[first][:PREFIX_BYTES_LIMIT].encode()) if first == "b64_json" else None


def _bounded(usage: dict[str, Any]) -> bytes | None:
    try:
        text = orjson.dumps(usage)
    except TypeError:
        # Nested deeper than orjson writes, though not deeper than it reads.
        return None
    return text if len(text) <= USAGE_BYTES_LIMIT and not _is_deeper(usage, DEPTH_LIMIT) else None


def _is_deeper(value: Any, levels: int) -> bool:
    if type(value) not in (dict, list):
        return False
    inner = value.values() if type(value) is dict else value
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in inner)


def _allowed(members: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name in names and type(value) not in (dict, list)}
