"""Two ways of asking for a size, each put in the words of the other: ``image_config``, and ``WIDTHxHEIGHT``.

The pixels are Gemini's for 1K (https://ai.google.dev/gemini-api/docs/image-generation), twice as many a side for 2K and
four times for 4K.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from proxy.domain.catalog import DEFAULT_FOUR_K_LONG_EDGE, Model
from proxy.domain.records import record
from proxy.domain.requests.chat import ChatRequest
from proxy.domain.requests.image import ImageRequest

PIXELS_1K: Mapping[str, tuple[int, int]] = {
    "1:1": (1024, 1024),
    "1:4": (512, 2048),
    "1:8": (384, 3072),
    "2:3": (848, 1264),
    "3:2": (1264, 848),
    "3:4": (896, 1200),
    "4:1": (2048, 512),
    "4:3": (1200, 896),
    "4:5": (928, 1152),
    "5:4": (1152, 928),
    "8:1": (3072, 384),
    "9:16": (768, 1376),
    "16:9": (1376, 768),
    "21:9": (1584, 672),
}
FACTORS: Mapping[str, int] = {"1K": 1, "2K": 2, "4K": 4}
HALF_SIZE = "512"
"""Half of 1K on each side, as a word."""

OPENAI_SIZES = ((1024, 1024), (1536, 1024), (1024, 1536))
"""What OpenAI's image models all make; of larger sizes each knows its own."""

SIZES_REMEMBERED = 1_024
_pixels = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})")
_ratio = re.compile(r"([1-9][0-9]{0,3}):([1-9][0-9]{0,3})")


def to_image_config(size: str, four_k_long_edge: int) -> dict[str, str]:
    """``aspect_ratio`` and ``image_size`` for a ``size``; empty where it says neither, as ``auto``.

    4K is asked for exactly where its price is charged: from the model's ``four_k_long_edge`` on, in pixels.
    """
    if size == HALF_SIZE or size in FACTORS:
        return {"image_size": size}
    pixels = _pixels.fullmatch(size)
    if pixels is None:
        return {}
    width, height = int(pixels[1]), int(pixels[2])
    if 0 < four_k_long_edge <= max(width, height):
        image_size = "4K"
    else:
        image_size = "2K" if width * height >= 2 * 1024 * 1024 else "1K"
    ratio = min(PIXELS_1K, key=lambda one: _distance(PIXELS_1K[one], (width, height)))
    return {"aspect_ratio": ratio, "image_size": image_size}


def to_size(aspect_ratio: str | None, image_size: str | None, four_k_long_edge: int) -> str | None:
    """``WIDTHxHEIGHT`` for an ``image_config``; None where it says nothing that is known.

    In 1K, one of the sizes that every model of OpenAI's knows. What is not charged as 4K stays below the model's
    ``four_k_long_edge``, in pixels.
    """
    word = image_size or "1K"
    ratio = _ratio.fullmatch(aspect_ratio or "1:1")
    if word not in FACTORS or ratio is None:
        return None
    shape = int(ratio[1]), int(ratio[2])
    for factor in range(FACTORS[word], 0, -1):
        sizes = OPENAI_SIZES if factor == 1 else PIXELS_1K.values()
        width, height = min(sizes, key=lambda one: _distance(one, shape))
        if word == "4K" or four_k_long_edge == 0 or max(width, height) * factor < four_k_long_edge:
            return f"{width * factor}x{height * factor}"
    return None


@record
class AskedSize:
    """The size that was asked for: at least so many pixels, and so long an edge."""

    pixels: int
    long_edge: int

    def is_larger_than(self, width: int, height: int) -> bool:
        """Whether an image of this size is smaller than asked."""
        return width * height < self.pixels or max(width, height) < self.long_edge


def agree_on_size(request: ImageRequest | ChatRequest, model: Model) -> ImageRequest | ChatRequest:
    """``request`` with a ``size`` and an ``image_config.image_size`` that say the same: the larger, which is charged.

    A ``size`` that is smaller, or ``auto``, tells no more than the aspect ratio.
    """
    if isinstance(request, ChatRequest) or request.size is None or request.image_size is None:
        return request
    edge = model.four_k_long_edge
    told = to_image_config(request.size, edge)
    by_size, by_config = _LEVELS.get(told.get("image_size", request.size)), _LEVELS.get(request.image_size)
    if by_size is None or by_config is None or by_size == by_config:
        return request
    config = dict(request.fields["image_config"])
    if by_size > by_config:
        config["image_size"] = told.get("image_size", request.size)
        fields = {**request.fields, "image_config": config}
        return replace(request, image_size=config["image_size"], fields=fields)
    if "aspect_ratio" in told:
        config.setdefault("aspect_ratio", told["aspect_ratio"])
    fields = {name: value for name, value in request.fields.items() if name != "size"}
    return replace(request, size=None, fields={**fields, "image_config": config})


_LEVELS = {"auto": 0, "0.5K": 1, "512": 1, "1K": 2, "2K": 3, "4K": 4}


@lru_cache(SIZES_REMEMBERED)
def asked_size(size: str | None, image_size: str | None) -> AskedSize | None:
    """What a request asks for; None where it leaves the size to the provider.

    A name is met by what is nearer to it than to the next smaller one.
    """
    pixels = _pixels.fullmatch(size or "")
    if pixels is not None:
        return AskedSize(int(pixels[1]) * int(pixels[2]), 0)
    return _NAMED.get(image_size or size or "")


_NAMED: Mapping[str, AskedSize] = {
    "1K": AskedSize(512 * 1024, 0),
    "2K": AskedSize(2 * 1024 * 1024, 0),
    "4K": AskedSize(0, DEFAULT_FOUR_K_LONG_EDGE),
}


def _distance(one: tuple[int, int], other: tuple[int, int]) -> float:
    return abs(math.log(one[0] / one[1]) - math.log(other[0] / other[1]))
