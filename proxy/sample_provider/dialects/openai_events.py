"""The events of OpenAI's image streams: partial images, then one ``completed`` for each image. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from proxy.sample_provider.behaviour import Behaviour
from proxy.sample_provider.dialects.documents import IMAGE, event
from proxy.sample_provider.dialects.wire import Order, difference, usage


def events(kind: str, order: Order, _behaviour: Behaviour, image: bytes, created_s: int) -> Iterator[list[bytes]]:
    """The events of an order; ``kind`` is ``image_generation`` or ``image_edit``."""
    facts: dict[str, Any] = {
        "b64_json": IMAGE,
        "created_at": created_s,
        "size": f"{order.width}x{order.height}",
        "quality": order.quality,
        "background": "opaque",
        "output_format": order.picture_format,
    }
    for number in range(order.images):
        facts["b64_json"] = IMAGE + difference(number)
        for index in range(order.partial_images):
            name = f"{kind}.partial_image"
            yield event({"type": name, **facts, "partial_image_index": index}, image, name=name)
        name = f"{kind}.completed"
        yield event({"type": name, **facts, "usage": usage(order, 1)}, image, name=name)


def error_event() -> list[bytes]:
    """The error that a stream breaks off with."""
    error = {
        "type": "server_error",
        "code": "server_error",
        "message": "The sample provider was told to fail in the middle of a stream.",
        "param": None,
    }
    return event({"type": "error", "error": error}, name="error")
