"""What the dialects of polled providers need to write a task and to read its end."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.domain.catalog import Model
from proxy.domain.errors import ProviderRefusal
from proxy.domain.parsing.image_addresses import is_image_address
from proxy.domain.requests.image import ImageRequest
from proxy.domain.requests.sizes import to_image_config, to_size
from proxy.upstream.dialects.words import image_config_of
from proxy.upstream.errors.failures import clean

ADDRESSES_LIMIT = 100
"""Images of one task."""

WRITTEN_HERE = frozenset({"prompt", "width", "height", "aspect_ratio", "webhook", "webhook_url", "webhook_secret"})
"""What is written from what has been priced, and who else would be told of the result: no unknown field's place."""

_pixels = re.compile(r"([0-9]+)x([0-9]+)")


@dataclass(frozen=True, slots=True)
class AskedShape:
    """The size to ask for: in pixels, or as an aspect ratio with a word for its size; None for what is left open."""

    width: int | None = None
    height: int | None = None
    aspect_ratio: str | None = None
    image_size: str | None = None


def shape_of(request: ImageRequest, model: Model) -> AskedShape:
    """An aspect ratio where the model's ``parameters`` list ``image_config``, pixels where they list only ``size``."""
    if "image_config" in model.parameters:
        config = image_config_of(request, model)
        ratio, word = config.get("aspect_ratio"), config.get("image_size")
        return AskedShape(aspect_ratio=ratio if ratio != "auto" else None, image_size=word)
    if "size" not in model.parameters:
        return AskedShape()
    size = request.size
    if size is None or not _pixels.fullmatch(size):
        edge = model.four_k_long_edge
        config = request.fields.get("image_config", {}) if size is None else to_image_config(size, edge)
        size = to_size(config.get("aspect_ratio"), config.get("image_size"), edge) if config else None
    found = _pixels.fullmatch(size or "")
    return AskedShape() if found is None else AskedShape(int(found[1]), int(found[2]))


def listed(request: ImageRequest, model: Model, name: str) -> Any:
    """A field that the model's ``parameters`` list, None where they do not or it was not given."""
    return request.fields.get(name) if name in model.parameters else None


def unknown_of(request: ImageRequest, besides: Collection[str] = ()) -> dict[str, Any]:
    """What is forwarded of the fields that nobody here knows."""
    unknown = request.unknown.items()
    return {name: value for name, value in unknown if name not in WRITTEN_HERE and name not in besides}


def text_in(answer: Mapping[str, Any], name: str) -> str:
    """A member that is text; empty where it is anything else."""
    value = answer.get(name)
    return value if isinstance(value, str) else ""


def addresses_in(value: object) -> tuple[str, ...]:
    """The addresses of images in ``value``: itself, those in a list, or those under ``url`` of its objects."""
    items = value if isinstance(value, list) else [value]
    texts = [item.get("url") if isinstance(item, dict) else item for item in items[:ADDRESSES_LIMIT]]
    return tuple(text for text in texts if isinstance(text, str) and is_image_address(text))


def moderated(code: str, message: str = "") -> ProviderRefusal:
    """The error for a task whose content the provider refuses."""
    said = clean(message) or "The provider refused the content of the request or of its image."
    return ProviderRefusal(said, provider_status=400, provider_code=code, param=None)
