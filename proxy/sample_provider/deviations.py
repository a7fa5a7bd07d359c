"""The ways in which real providers deviate from their own pages, so that clients can be tried on each of them. Pure.

What an answer says is rewritten as a document, and then encoded; each dialect has the ways that make sense in it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

WRONG_CONTENT_TYPE: Final = "wrong-content-type"
NO_CONTENT_TYPE: Final = "no-content-type"
BYTE_ORDER_MARK: Final = "byte-order-mark"
GZIP: Final = "gzip"
LARGE_HEADERS: Final = "large-headers"
IMAGES_MEMBER: Final = "images-member"
BARE_BASE64: Final = "bare-base64"
DATA_ADDRESS: Final = "data-address"
DUPLICATE: Final = "duplicate"
CUT: Final = "cut"
ERROR_IN_200: Final = "error-in-200"
NO_IMAGE: Final = "no-image"
CREATED_AS_TEXT: Final = "created-as-text"
NO_CREATED: Final = "no-created"
USAGE_WITHOUT_TOTAL: Final = "usage-without-total"
LATE_ERROR: Final = "late-error"

DEVIATIONS: Final[Mapping[str, str]] = {
    WRONG_CONTENT_TYPE: "JSON is called an event stream, and events are called JSON.",
    NO_CONTENT_TYPE: "The answer has no Content-Type.",
    BYTE_ORDER_MARK: "U+FEFF stands before the body.",
    GZIP: "The body is compressed, though nobody asked for that.",
    LARGE_HEADERS: "48 KiB of headers, 200 of them.",
    IMAGES_MEMBER: "OpenAI's JSON has images where data should be.",
    BARE_BASE64: "Base64 stands where an address should (OpenAI's JSON, and chat).",
    DATA_ADDRESS: "A data: address stands where base64 should (OpenAI and Gemini), or alone in chat's images.",
    DUPLICATE: "Each image comes twice.",
    CUT: "The connection breaks off in the second image; with one image, after it.",
    ERROR_IN_200: "A refusal of the content has status 200.",
    NO_IMAGE: "A text comes in the image's place.",
    CREATED_AS_TEXT: "created and created_at are dates in words (OpenAI and chat).",
    NO_CREATED: "created and created_at are missing (OpenAI and chat).",
    USAGE_WITHOUT_TOTAL: "The usage has no total.",
    LATE_ERROR: "A stream has an error event after the finished images.",
}
SAID_INSTEAD: Final = "The sample provider would rather not draw this."

_MARK: Final = b"\xef\xbb\xbf"
_CREATED: Final = "2026-11-26T08:00:00Z"
_HEADERS: Final = {f"x-sample-filler-{number}": "f" * 230 for number in range(200)}
_GZIP_WINDOW_BITS: Final = 31
_TYPES: Final = {"application/json": "text/event-stream", "text/event-stream": "application/json"}


# --- Documents ------------------------------------------------------------------------------------------------------


def deviating_answer(segments: Iterable[bytes], names: Collection[str]) -> list[bytes]:
    """A whole answer, as these deviations have it."""
    document = orjson.loads(b"".join(segments))
    _rewrite(document, names)
    body = orjson.dumps(document)
    images = _images_in(document)
    if CUT in names and len(images) > 1:
        body = body[: _middle_of(body, images, 1)]
    return [body]


def deviating_events(
    groups: Iterable[Sequence[bytes]], names: Collection[str], error_event: Callable[[], Sequence[bytes]]
) -> Iterator[list[bytes]]:
    """The events of a stream, as these deviations have them."""
    finished = 0
    came = False
    is_late = LATE_ERROR in names
    for group in groups:
        raw = b"".join(group)
        if is_late and raw.strip().endswith(b"[DONE]"):
            yield [*error_event()]
            is_late = False
        opening, mark, rest = raw.partition(b"data: {")
        if not mark:
            yield [raw]
            continue
        came = True
        document = orjson.loads(b"{" + rest)
        _rewrite(document, names)
        images = _images_in(document)
        event = opening + b"data: " + orjson.dumps(document) + rest[len(rest.rstrip()) :]
        if CUT in names and finished < 2 <= finished + len(images):  # noqa: PLR2004 - the second image
            yield [event[: _middle_of(event, images, 1 - finished)]]
            return
        finished += len(images)
        yield [event]
        if DUPLICATE in names and "b64_json" in document and images:
            yield [event]
    if NO_IMAGE in names and not came:
        yield [b"data: " + orjson.dumps({"text": SAID_INSTEAD}) + b"\n\n"]
    if is_late:
        yield [*error_event()]


def _rewrite(document: dict[str, Any], names: Collection[str]) -> None:
    for name in names:
        rewrite = _REWRITES.get(name)
        if rewrite is not None:
            rewrite(document)


def _entries(document: dict[str, Any]) -> list[dict[str, Any]]:
    """OpenAI's images: those of a whole answer, or the one of an event."""
    data = document.get("data", document.get("images"))
    if isinstance(data, list):
        return data
    return [document] if "b64_json" in document else []


def _messages(document: dict[str, Any]) -> list[dict[str, Any]]:
    """What chat says."""
    return [choice.get("message") or choice.get("delta") or {} for choice in document.get("choices", ())]


def _parts(document: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """What Gemini says."""
    return [candidate.get("content", {}).get("parts", []) for candidate in document.get("candidates", ())]


def _images_member(document: dict[str, Any]) -> None:
    if "data" in document:
        document["images"] = document.pop("data")


def _bare_base64(document: dict[str, Any]) -> None:
    for entry in _entries(document):
        if entry is not document and "b64_json" in entry:
            entry["url"] = entry.pop("b64_json")
    for message in _messages(document):
        for image in message.get("images", ()):
            address = image["image_url"]
            address["url"] = address["url"].rpartition("base64,")[2]


def _data_address(document: dict[str, Any]) -> None:
    for entry in _entries(document):
        if "b64_json" in entry:
            entry["b64_json"] = f"data:image/{document.get('output_format', 'png')};base64,{entry['b64_json']}"
    for message in _messages(document):
        if "images" in message:
            message["images"] = [image["image_url"]["url"] for image in message["images"]]
    for parts in _parts(document):
        for data in (part["inlineData"] for part in parts if "inlineData" in part):
            data["data"] = f"data:{data['mimeType']};base64,{data['data']}"


def _duplicate(document: dict[str, Any]) -> None:
    for holder in (document, *_messages(document)):
        for member in holder.keys() & {"data", "images"}:
            holder[member] = [image for image in holder[member] for _ in range(2)]
    for parts in _parts(document):
        parts[:] = [part for part in parts for _ in range(2 if "inlineData" in part else 1)]


def _no_image(document: dict[str, Any]) -> None:
    if "data" in document:
        document["text"] = SAID_INSTEAD


def _created_as_text(document: dict[str, Any]) -> None:
    for name in ("created", "created_at"):
        if name in document:
            document[name] = _CREATED


def _no_created(document: dict[str, Any]) -> None:
    for name in ("created", "created_at"):
        document.pop(name, None)


def _usage_without_total(document: dict[str, Any]) -> None:
    for usage, total in (("usage", "total_tokens"), ("usageMetadata", "totalTokenCount")):
        document.get(usage, {}).pop(total, None)


_REWRITES: Final[Mapping[str, Callable[[dict[str, Any]], None]]] = {
    IMAGES_MEMBER: _images_member,
    BARE_BASE64: _bare_base64,
    DATA_ADDRESS: _data_address,
    DUPLICATE: _duplicate,
    NO_IMAGE: _no_image,
    CREATED_AS_TEXT: _created_as_text,
    NO_CREATED: _no_created,
    USAGE_WITHOUT_TOTAL: _usage_without_total,
}


def _images_in(document: dict[str, Any]) -> list[str]:
    """The finished images of a document, each as the text that it has there."""
    if document.get("type", "").endswith("partial_image"):
        return []
    found = [entry.get("b64_json") or entry["url"] for entry in _entries(document)]
    for message in _messages(document):
        found += [image if isinstance(image, str) else image["image_url"]["url"] for image in message.get("images", ())]
    for parts in _parts(document):
        found += [part["inlineData"]["data"] for part in parts if "inlineData" in part and not part.get("thought")]
    return found


def _middle_of(body: bytes, images: Sequence[str], index: int) -> int:
    """Where the middle of an image stands in a body that has these images in this order."""
    start = 0
    for image in images[:index]:
        start = body.index(image.encode(), start) + len(image)
    return body.index(images[index].encode(), start) + len(images[index]) // 2


# --- Bytes and headers ----------------------------------------------------------------------------------------------


def deviating_headers(headers: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """The headers of an answer; an empty Content-Type is none at all."""
    changed = dict(headers)
    if WRONG_CONTENT_TYPE in names:
        changed["Content-Type"] = _TYPES[changed["Content-Type"].partition(";")[0]]
    if NO_CONTENT_TYPE in names:
        changed["Content-Type"] = ""
    if GZIP in names:
        changed["Content-Encoding"] = "gzip"
    if LARGE_HEADERS in names:
        changed |= _HEADERS
    return changed


def encoded(groups: Iterable[Iterable[bytes]], names: Collection[str]) -> Iterator[list[bytes]]:
    """The body as these deviations have its bytes; each group still leaves as a whole."""
    compressor = zlib.compressobj(wbits=_GZIP_WINDOW_BITS) if GZIP in names else None
    mark = _MARK if BYTE_ORDER_MARK in names else b""
    for group in groups:
        body = mark + b"".join(group)
        mark = b""
        yield [body if compressor is None else compressor.compress(body) + compressor.flush(zlib.Z_SYNC_FLUSH)]
    if compressor is not None and CUT not in names:
        yield [compressor.flush()]
