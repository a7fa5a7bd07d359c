"""How one kind of provider speaks. A dialect is pure: it writes requests and reads answers, and does no I/O."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.upstream.dialects.bedrock import BedrockDialect
from proxy.upstream.dialects.gemini import GeminiDialect
from proxy.upstream.dialects.openai import OpenAIDialect
from proxy.upstream.dialects.openrouter import OpenRouterDialect
from proxy.upstream.dialects.polled import POLLED_DIALECTS
from proxy.upstream.dialects.protocol import Dialect
from proxy.upstream.dialects.stability import RawDialect, StabilityDialect

RAW_DIALECTS: Mapping[str, RawDialect] = {"stability": StabilityDialect()}

DIALECTS: Mapping[str, Dialect] = {
    "openai": OpenAIDialect(),
    "openrouter": OpenRouterDialect(),
    "gemini": GeminiDialect(),
    "bedrock": BedrockDialect(),
    **POLLED_DIALECTS,
    **RAW_DIALECTS,
}
