"""Chat at OpenRouter (https://openrouter.ai/docs/api-reference/overview): OpenAI's, with fields of its own.

Some of them choose who answers, and so what it costs. An image is charged the price of one model, so no field asks for
another one; what chooses among those who serve the model is the operator's to allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from proxy.domain.catalog import Model
from proxy.domain.requests.chat import ChatRequest
from proxy.domain.requests.kinds import ANYTHING, OBJECT, Kind
from proxy.upstream.dialects.openai import OpenAIChat

PASSED_ON = (
    "cache_control", "include_reasoning", "min_p", "reasoning", "repetition_penalty", "session_id",
    "stop_server_tools_when", "structured_outputs", "top_a", "top_k", "trace", "transforms", "usage",
)  # fmt: skip
IN_IMAGE_CONFIG = ("background_rgb_color", "rgb_colors", "strength", "style", "text_layout")
"""Members of ``image_config`` that single models have, and that change no price."""

OTHER_MODELS = ("models", "preset", "route")
"""What would have another model answer, at another price. Failing over is for the model's deployments."""

LEFT_OUT = (*OTHER_MODELS, "debug")
"""Understood, and never forwarded; "debug" would tell what the provider was sent."""

RESTRICTIONS = frozenset(
    {
        "allow_fallbacks", "data_collection", "enforce_distillable_text", "ignore", "max_price", "quantizations",
        "require_parameters", "zdr",
    }
)  # fmt: skip
"""Members of ``provider`` that say who may not answer. The others say who should, which changes the bill."""


class OpenRouterChat(OpenAIChat):
    """OpenAI's chat, with fields of its own."""

    own_fields: Mapping[str, Kind] = {
        **dict.fromkeys((*PASSED_ON, *LEFT_OUT, "plugins"), ANYTHING),
        **{f"image_config.{name}": ANYTHING for name in IN_IMAGE_CONFIG},
        "provider": OBJECT,
    }

    @override
    def fields(self, request: ChatRequest, model: Model) -> Mapping[str, Any]:
        given = request.fields
        left_out = [*LEFT_OUT, *(name for name in ("plugins", "provider") if name not in model.parameters)]
        fields = {name: value for name, value in given.items() if name not in left_out}
        if "provider" in given and "provider" not in fields:
            wishes = {name: value for name, value in given["provider"].items() if name in RESTRICTIONS}
            fields |= {"provider": wishes} if wishes else {}
        return fields
