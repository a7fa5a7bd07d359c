"""The keys of LiteLLM in the comparison, as its ``custom_auth``: this file is copied beside its configuration.

Keys of its own need PostgreSQL through Prisma's engine, which is no package: it is downloaded from a host of Prisma's.
A key that ``custom_auth`` answers with is checked the same way, and its spending is counted in the Redis.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from litellm.proxy._types import UserAPIKeyAuth

KEYS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("keys.json").read_text())


async def check(request: object, api_key: str) -> UserAPIKeyAuth:
    """The key with its budget. Raises ValueError for one that is unknown, which LiteLLM answers with 401."""
    if api_key not in KEYS:
        raise ValueError("unknown key")
    return UserAPIKeyAuth(api_key=api_key, spend=0.0, **KEYS[api_key])
