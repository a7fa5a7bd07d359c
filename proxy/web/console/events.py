"""Server-sent events of the admin API."""

from __future__ import annotations

from aiohttp import web

from proxy.telemetry.observation import OBSERVATION
from proxy.web.middleware.common_headers import common_headers


async def begin_events(request: web.Request) -> web.StreamResponse:
    """An answer of events that has begun; no proxy on the way is to keep any of it back."""
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
            **common_headers(request[OBSERVATION]),
        }
    )
    await response.prepare(request)
    return response
