"""What the people and programs that run Lightmeter look at: health, readiness and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from proxy.telemetry.metrics import Metrics
from proxy.web.admin.wire import StatusView
from proxy.web.public.models import json_response
from proxy.web.server.lifecycle import Lifecycle
from proxy.web.server.readiness import Readiness
from proxy.web.server.routes import Access, Route


class Operations(Protocol):
    """What tells how a gateway of one process, or of several, does."""

    def routes(self) -> Sequence[Route]:
        """Where each handler stands."""

    async def vitals(self) -> tuple[str, bytes]:
        """What ``/readyz`` and ``/metrics`` say."""


class OperationRoutes:
    """Handlers that need no token."""

    def __init__(self, lifecycle: Lifecycle, readiness: Readiness, metrics: Metrics) -> None:
        """Tell of these."""
        self._lifecycle = lifecycle
        self._readiness = readiness
        self._metrics = metrics

    def routes(self) -> Sequence[Route]:
        """Where each handler stands."""
        free, text = Access.FREE, "text/plain"
        return (
            Route("GET", "/healthz", self.healthz, free, {200: StatusView}),
            Route("GET", "/readyz", self.readyz, free, {200: StatusView, 503: StatusView}),
            Route("GET", "/metrics", self.metrics, free, {200: None}, media_type=text),
        )

    async def healthz(self, _request: web.Request) -> web.Response:
        """200 for as long as the process can answer at all."""
        return json_response({"status": "ok"})

    async def readyz(self, _request: web.Request) -> web.Response:
        """200 where requests should be sent here; otherwise 503 and why not."""
        reason = await self._readiness.why_not()
        return json_response({"status": reason or "ready"}, status=503 if reason else 200)

    async def metrics(self, _request: web.Request) -> web.Response:
        """Prometheus's text format."""
        return web.Response(body=self._scrape(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def vitals(self) -> tuple[str, bytes]:
        """What ``/readyz`` and ``/metrics`` say, for the console."""
        return await self._readiness.why_not(asks_at_most_every_s=1) or "ready", self._scrape()

    def _scrape(self) -> bytes:
        self._metrics.open_requests(self._lifecycle.in_flight)
        return self._metrics.render()


class Description:
    """``GET /openapi.json``."""

    def __init__(self) -> None:
        """Nothing is described yet: the description has its own route in it."""
        self._document = b""

    def routes(self) -> Sequence[Route]:
        """Where the handler stands."""
        return (Route("GET", "/openapi.json", self.show, Access.FREE, {200: None}),)

    def tell(self, document: dict[str, Any]) -> None:
        """Answer with this from now on."""
        self._document = orjson.dumps(document)

    async def show(self, _request: web.Request) -> web.Response:
        """This document."""
        return web.Response(body=self._document, content_type="application/json")
