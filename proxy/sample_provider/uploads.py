"""Multipart uploads, read as they come: files are measured and hashed, never held."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import orjson
from aiohttp import BodyPartReader, web

from proxy.sample_provider.dialects.wire import Refusal
from proxy.sample_provider.memory import ReceivedPart

_READ_BYTES: Final = 64 * 1024
_MAX_FIELD_BYTES: Final = 1024 * 1024
_MAX_PARTS: Final = 100
_NUMBERS: Final = ("n", "partial_images", "output_compression")
_SWITCHES: Final = {"true": True, "false": False}


async def read_parts(request: web.Request) -> tuple[ReceivedPart, ...]:
    """Every part of the body, in order; raises `Refusal` for a body that is not multipart, or is broken."""
    parts: list[ReceivedPart] = []
    if request.content_type != "multipart/form-data":
        raise Refusal(415, "unsupported_media_type", "The body must be multipart/form-data.")
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader) or not part.name or len(parts) == _MAX_PARTS:
                raise Refusal(400, "invalid_multipart", f"A body has at most {_MAX_PARTS} parts, each with a name.")
            parts.append(await _read_part(part, part.name))
    except ValueError as error:
        raise Refusal(400, "invalid_multipart", f"The body is not valid multipart: {error}") from error
    return tuple(parts)


async def _read_part(part: BodyPartReader, name: str) -> ReceivedPart:
    digest, size_bytes, text = hashlib.sha256(), 0, bytearray()
    while chunk := await part.read_chunk(_READ_BYTES):
        digest.update(chunk)
        size_bytes += len(chunk)
        if part.filename is None:
            text += chunk
            if size_bytes > _MAX_FIELD_BYTES:
                raise Refusal(413, "payload_too_large", f"{name} is too large for a field.", param=name)
    value = text.decode(errors="replace") if part.filename is None else None
    return ReceivedPart(name, part.filename, part.headers.get("Content-Type"), size_bytes, digest.hexdigest(), value)


def fields_of(parts: tuple[ReceivedPart, ...]) -> dict[str, Any]:
    """The fields among the parts, with numbers and switches as JSON would have them; raises without an image."""
    if not any(part.name in ("image", "image[]") and part.value is None for part in parts):
        raise Refusal(400, "missing_required_parameter", "An image is required, and is a file.", param="image")
    fields: dict[str, Any] = {}
    for part in parts:
        if part.value is None:
            continue
        value: Any = part.value
        if part.name in _NUMBERS and value.isascii() and value.isdecimal():
            value = int(value)
        elif part.name == "stream":
            value = _SWITCHES.get(value, value)
        elif part.name == "image_config":
            value = _object(value)
        fields[part.name] = value
    return fields


def _object(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
