"""JSON documents that hold images, written without copying the images. Pure."""

from __future__ import annotations

from typing import Any, Final

import orjson

# Stands for an image's base64 in a document; no prompt holds it by chance.
IMAGE: Final = "@sample-image-5d0c61f8b2a94e7c@"
_MARK: Final = IMAGE.encode()


def filled(document: dict[str, Any], image: bytes) -> list[bytes]:
    """The document as JSON, with every `IMAGE` replaced by this base64 text; the image itself is a segment."""
    first, *others = orjson.dumps(document).split(_MARK)
    segments = [first]
    for other in others:
        segments += (image, other)
    return segments


def event(document: dict[str, Any], image: bytes = b"", *, name: str | None = None) -> list[bytes]:
    """The document as one server-sent event, with a name where one is given."""
    opening = b"data: " if name is None else b"event: " + name.encode() + b"\ndata: "
    return [opening, *filled(document, image), b"\n\n"]
