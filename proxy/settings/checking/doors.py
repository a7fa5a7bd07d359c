"""Base URLs of well-known providers that lack the path below which their API is: each request would be a 404."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from yarl import URL

from proxy.upstream.provider import MODEL_PLACE

PATHS = {
    "api.openai.com": "/v1",
    "openrouter.ai": "/api/v1",
    "generativelanguage.googleapis.com": "/v1beta",
    "api.stability.ai": "/v2beta/stable-image",
    "api.bfl.ai": "/v1",
    "api.replicate.com": "/v1",
    "api.x.ai": "/v1",
    "api.together.ai": "/v1",
    "api.together.xyz": "/v1",
    "external.api.recraft.ai": "/v1",
    "api.deepinfra.com": "/v1/openai",
    "ark.ap-southeast.bytepluses.com": "/api/v3",
}
"""By host: what stands in the table of dialects, and in the recipes."""


def check_door(base_url: str, paths: Collection[str]) -> Iterator[str]:
    """What is wrong with ``base_url``, unless ``paths`` say where everything is."""
    url = URL(base_url.replace(MODEL_PLACE, "model"))
    needed = PATHS.get(url.host or "")
    if needed is not None and not url.path.strip("/") and not paths:
        yield f"base_url: {url.host} has its API below {needed}: write {str(url).rstrip('/')}{needed}"
