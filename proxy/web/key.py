"""``GET /v1/key``: the caller's own limits and what is left of them."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from proxy.domain.limits import KeyRecord, QuotaUsage
from proxy.metering.store import Store
from proxy.web.models import json_response, read_own_key
from proxy.web.times import iso_time


class KeyRoutes:
    """Handler of the caller's own key."""

    def __init__(self, store: Store) -> None:
        """Read keys from ``store``."""
        self._store = store

    async def show(self, request: web.Request) -> web.Response:
        """Limits, usage and remaining quota."""
        return json_response(own_view(await read_own_key(request, self._store)))


def own_view(key: KeyRecord) -> dict[str, Any]:
    """A key as its owner sees it."""
    return {
        "id": key.id,
        "team": key.team,
        "name": key.name,
        "limits": {"quota_units": quota_view(key.quota), "models": list(key.limits.models)},
        "images": key.images,
        "expires_at": iso_time(key.expires_ms),
    }


def quota_view(quota: QuotaUsage) -> dict[str, int | None]:
    """One limit and its counters."""
    return {
        "limit": quota.limit,
        "posted": quota.posted,
        "reserved": quota.reserved,
        "remaining": quota.remaining,
    }
