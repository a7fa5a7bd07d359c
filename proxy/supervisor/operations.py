"""Health and metrics of a gateway of several processes, and what its workers are doing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from proxy.web.admin.wire import StatusView
from proxy.web.public.models import json_response
from proxy.web.server.routes import Access, Route

READY = "ready"


class WorkersRoutes:
    """Handlers of the supervisor's own."""

    def __init__(self, status: Callable[[], Awaitable[str]], render: Callable[[], Awaitable[bytes]]) -> None:
        """``status`` says whether all workers are ready, ``render`` has the metrics of all of them."""
        self._status = status
        self._render = render

    def routes(self) -> Sequence[Route]:
        """Where each handler stands."""
        free = Access.FREE
        return (
            Route("GET", "/healthz", self.healthz, free, {200: StatusView}),
            Route("GET", "/readyz", self.readyz, free, {200: StatusView, 503: StatusView}),
            Route("GET", "/metrics", self.metrics, free, {200: None}, media_type="text/plain"),
        )

    async def healthz(self, _request: web.Request) -> web.Response:
        """200 for as long as the process can answer at all."""
        return json_response({"status": "ok"})

    async def readyz(self, _request: web.Request) -> web.Response:
        """200 where requests should be sent here; otherwise 503 and why not."""
        status = await self._status()
        return json_response({"status": status}, status=200 if status == READY else 503)

    async def metrics(self, _request: web.Request) -> web.Response:
        """Prometheus's text format."""
        return web.Response(body=await self._render(), headers={"Content-Type": CONTENT_TYPE_LATEST})
