"""What images and chat have in common in Google's Gemini API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from proxy.domain.catalog import Model
from proxy.domain.errors import ProxyError
from proxy.upstream.errors.failures import error_in_answer
from proxy.upstream.errors.reports import read_report

_capital = re.compile(r"([A-Z])")
IMAGE_CONFIG_NAMES = {"aspect_ratio": "aspectRatio", "image_size": "imageSize"}
WRITTEN_HERE = ("contents", "generation_config", "system_instruction")
"""What Lightmeter writes itself, from what it has priced: no unknown field takes its place, in either spelling."""


def content_path(model: Model, *, stream: bool) -> str:
    """The model is part of the path."""
    name = quote(model.upstream_model, safe="/")
    name = name if "/" in name else f"models/{name}"
    return f"/{name}:streamGenerateContent?alt=sse" if stream else f"/{name}:generateContent"


def unknown_of(unknown: Mapping[str, Any]) -> dict[str, Any]:
    """What is forwarded of the fields that nobody here knows. Google reads each name as it is or in camel case."""
    return {name: value for name, value in unknown.items() if _snake(name) not in WRITTEN_HERE}


def image_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """``image_config`` in Google's names."""
    return {IMAGE_CONFIG_NAMES.get(name, name): value for name, value in given.items()}


def _snake(name: str) -> str:
    return _capital.sub(r"_\1", name).lower()


def read_error(text: bytes) -> ProxyError:
    """The error that stands within an answer, as the JSON of its ``error``."""
    return error_in_answer(read_report(b'{"error":%b}' % text))
