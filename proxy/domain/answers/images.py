"""A provider's images response on its way to the client: whole where it is small, as a stream where it is not.

Most answers are a few URLs. One of at most 64 KiB is held until it is there, read at once, and may still become a
proper error; a larger one goes through ``ImagesScanner`` while it arrives. Which of the two it is depends on its size
alone, so that the output is the same for every way of cutting the input.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

import orjson
from typing_extensions import override

from proxy.domain.answers.answer import JSON, Answer
from proxy.domain.answers.holder import HELD_BYTES_LIMIT
from proxy.domain.catalog import IMAGES_LIMIT
from proxy.domain.errors import ProxyError
from proxy.domain.parsing.image_addresses import is_image_address
from proxy.domain.parsing.image_header import PREFIX_BYTES_LIMIT, SIZES_LIMIT, Size, SizeProbe, keep_size, read_size
from proxy.domain.parsing.json_shapes import NOTE_BYTES_LIMIT, PASSED, Shape, ShapedScanner, ShapeListener, object_of
from proxy.domain.parsing.json_tokens import DEPTH_LIMIT, MalformedResponse

BASE64: Final = "b64_json"

IMAGE_SHAPE = Shape(
    passes=True,
    element=True,
    only=(b"{", "an image in 'data' is not an object"),
    members={
        b"url": Shape(passes=True, payload="url"),
        b"b64_json": Shape(passes=True, payload=BASE64),
        b"revised_prompt": PASSED,
        b"media_type": PASSED,
    },
)
IMAGES_SHAPE = Shape(
    passes=True,
    only=(b"{", "the body is not a JSON object"),
    members={
        **dict.fromkeys((b"created", b"background", b"output_format", b"quality", b"size"), PASSED),
        b"data": Shape(passes=True, only=(b"[n", "'data' is not an array"), once="data", items=IMAGE_SHAPE),
        b"usage": Shape(note="usage", optional=True),
    },
)
"""What a client sees of an answer and of each image in it; but for `data`, no objects and arrays."""

_TOP_LEVEL = frozenset(name.decode() for name, shape in IMAGES_SHAPE.members.items() if shape.passes)
_IN_AN_IMAGE = frozenset(name.decode() for name in IMAGE_SHAPE.members)
_PAYLOADS = tuple(name.decode() for name, shape in IMAGE_SHAPE.members.items() if shape.payload)


class ImagesScanner(ShapeListener):
    """Reads an answer as it comes, and counts. See ``ShapeListener`` for what it hears.

    ``images`` counts those whose payload was there from the first byte to the last. ``usage`` is the provider's object,
    as JSON, or None where there was none or it was larger than 16 KiB.
    """

    __slots__ = ("_counted", "_is_base64", "_payload_bytes", "_probe", "_scanner", "images", "sizes", "usage")

    def __init__(self) -> None:
        """Start before the first byte of a body."""
        self.images = 0
        self.sizes: list[Size | None] = []
        self.usage: bytes | None = None
        self._scanner = ShapedScanner(IMAGES_SHAPE)
        self._probe = SizeProbe()
        self._counted = self._is_base64 = False
        self._payload_bytes = 0

    @property
    def complete(self) -> bool:
        """Whether the end of the answer has come; what may follow is blank."""
        return self._scanner.complete

    def feed(self, piece: bytes) -> bytes:
        """Take the next piece of the body; return what of it may be passed on, which may be nothing.

        Raises MalformedResponse; what was returned before stays true.
        """
        return self._scanner.feed(piece, self)

    def finish(self) -> None:
        """The body has ended. Raises MalformedResponse where it ended too early."""
        self._scanner.finish(self)
        if "data" not in self._scanner.seen:
            raise MalformedResponse("the answer has no 'data'")

    @override
    def begin_element(self) -> None:
        self._counted = False

    @override
    def end_element(self) -> None: ...

    @override
    def begin_payload(self, name: str) -> None:
        self._is_base64 = name == BASE64
        self._payload_bytes = 0
        self._probe.begin()

    @override
    def payload(self, piece: bytes) -> None:
        self._payload_bytes += len(piece)
        self._probe.add(piece)

    @override
    def end_payload(self) -> None:
        """Of two payloads of an image, the first one counts."""
        if self._counted or not self._payload_bytes:
            return
        if self.images == IMAGES_LIMIT:
            raise MalformedResponse("there are too many images in the answer")
        self._counted = True
        self.images += 1
        keep_size(self.sizes, self._probe.size() if self._is_base64 else None)

    @override
    def note(self, _name: str, value: bytes) -> None:
        """It is the usage."""
        if value[:1] == b"{":
            self.usage = object_of(value)


class ImagesAnswer(Answer):
    """OpenAI's images answer for a client that has asked for it: held while it is small, then passed on."""

    __slots__ = ("_held", "_held_bytes", "_scanner", "images", "sizes", "usage")

    content_type = JSON
    whole = True
    comment = b""

    def __init__(self) -> None:
        """Start before the first byte of a body."""
        self.images = 0
        self.sizes: list[Size | None] = []
        self.usage: bytes | None = None
        self._scanner: ImagesScanner | None = None
        self._held: list[bytes] | None = []
        self._held_bytes = 0

    @property
    def complete(self) -> bool:
        """Whether the end of a streamed answer has been returned; what may follow is blank."""
        return self._scanner is not None and self._scanner.complete

    def feed(self, piece: bytes) -> bytes:
        """Take the next piece; return what may be passed on, which may be nothing. Raises MalformedResponse."""
        if self._held is None:
            return self._pass(piece)
        self._held.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes <= HELD_BYTES_LIMIT:
            return b""
        held, self._held = b"".join(self._held), None
        return self._pass(held)

    def _pass(self, piece: bytes) -> bytes:
        if self._scanner is None:
            self._scanner = ImagesScanner()
        try:
            return self._scanner.feed(piece)
        finally:
            self._count(self._scanner)

    def finish(self) -> bytes:
        """The body has ended: return all of a small answer, nothing of a large one. Raises MalformedResponse."""
        body = self._take_held()
        if body is not None:
            whole = self._read_whole(body)
            if whole is not None:
                return whole
        scanner = self._scanner = self._scanner or ImagesScanner()
        rest = self._pass(body) if body else b""
        scanner.finish()
        return rest

    def break_off(self) -> None:
        """The body has ended before its end: count what was complete."""
        body = self._take_held()
        if body:
            with contextlib.suppress(MalformedResponse):
                self._pass(body)

    def _count(self, scanner: ImagesScanner) -> None:
        self.images, self.sizes, self.usage = scanner.images, scanner.sizes, scanner.usage

    def write_error(self, _error: ProxyError) -> None:
        """JSON that has begun has no room for an error."""

    def _take_held(self) -> bytes | None:
        if self._held is None:
            return None
        held, self._held = b"".join(self._held), None
        return held

    def _read_whole(self, body: bytes) -> bytes | None:
        """A good answer as ``ImagesScanner`` would pass it on; None leaves the verdict to that."""
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
    return text if len(text) <= NOTE_BYTES_LIMIT and not _is_deeper(usage, DEPTH_LIMIT) else None


def _is_deeper(value: Any, levels: int) -> bool:
    if type(value) not in (dict, list):
        return False
    inner = value.values() if type(value) is dict else value
    return levels == 0 or any(_is_deeper(one, levels - 1) for one in inner)


def _allowed(members: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name in names and type(value) not in (dict, list)}
