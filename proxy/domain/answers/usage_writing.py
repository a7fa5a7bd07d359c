"""A provider's token counts as clients know them; its costs stay inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from proxy.domain.usage import total_tokens

_INPUT = ("input_tokens", "prompt_tokens", "promptTokenCount")
_OUTPUT = ("output_tokens", "completion_tokens", "candidatesTokenCount")
_DETAILS = ("input_tokens_details", "prompt_tokens_details")


def image_tokens(usage: bytes | None) -> bytes:
    """``usage`` of OpenAI's images API (https://platform.openai.com/docs/api-reference/images/object), as JSON.

    Zeros where the provider reported none, or where clients are not shown any.
    """
    reported: Mapping[str, Any] = orjson.loads(usage or b"{}")
    details: Mapping[str, Any] = next((reported[name] for name in _DETAILS if isinstance(reported.get(name), dict)), {})
    input_tokens = _first(reported, _INPUT)
    image = _first(details, ("image_tokens",))
    return orjson.dumps(
        {
            "total_tokens": total_tokens(usage),
            "input_tokens": input_tokens,
            "output_tokens": _first(reported, _OUTPUT),
            "input_tokens_details": {
                "text_tokens": _first(details, ("text_tokens",)) or max(0, input_tokens - image),
                "image_tokens": image,
            },
        }
    )


def _first(reported: Mapping[str, Any], names: tuple[str, ...]) -> int:
    for name in names:
        value = reported.get(name)
        if type(value) is int and value >= 0:
            return value
    return 0
