"""What providers report of the tokens that an answer took, in any of their words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from proxy.domain.catalog import TOKENS_LIMIT

TOTALS = ("total_tokens", "totalTokenCount")
PARTS = (
    ("input_tokens", "prompt_tokens", "promptTokenCount"),
    ("output_tokens", "completion_tokens", "candidatesTokenCount"),
    ("thoughtsTokenCount",),
    ("toolUsePromptTokenCount",),
)
"""What a total is made of, each part in the words of OpenAI's two APIs and of Gemini's.

https://platform.openai.com/docs/api-reference/images/object, https://ai.google.dev/api/generate-content#UsageMetadata
"""


def total_tokens(usage: bytes | None) -> int:
    """All tokens of ``usage``, a JSON object: its total, or else the sum of its parts.

    0 where it reports neither, or a number that cannot be true.
    """
    reported = orjson.loads(usage or b"{}")
    total = _number(reported, TOTALS)
    if total is None:
        total = sum(_number(reported, names) or 0 for names in PARTS)
    return total if total <= TOKENS_LIMIT else 0


def add_usage(first: bytes | None, second: bytes | None) -> bytes | None:
    """Two reports as one: their numbers are added up, what else they say is the second's."""
    if first is None or second is None:
        return first or second
    return orjson.dumps(_sum(orjson.loads(first), orjson.loads(second)))


def _sum(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    added = {**first, **second}
    for name in first.keys() & second.keys():
        one, other = first[name], second[name]
        if isinstance(one, dict) and isinstance(other, dict):
            added[name] = _sum(one, other)
        elif type(one) in (int, float) and type(other) in (int, float):
            added[name] = one + other
    return added


def _number(reported: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """The first of ``names`` that has a number of tokens."""
    for name in names:
        value = reported.get(name)
        if type(value) is int and value >= 0:
            return value
    return None
