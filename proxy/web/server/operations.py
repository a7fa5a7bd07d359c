"""What the people and programs that run Lightmeter look at: health, readiness and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from proxy.domain.errors import JournalUnavailable
from proxy.metering.meter import Meter
from proxy.metering.redis.runner import ScriptRunner
from proxy.telemetry.metrics import Metrics
from proxy.web.admin.wire import StatusView
from proxy.web.public.models import json_response
from proxy.web.server.lifecycle import Lifecycle
from proxy.web.server.routes import Access, Route


class OperationRoutes:
    """Handlers that need no token."""

    def __init__(self, lifecycle: Lifecycle, meter: Meter, runner: ScriptRunner, metrics: Metrics) -> None:
        """Tell of these."""
        self._lifecycle = lifecycle
        self._meter = meter
        self._runner = runner
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
        if self._lifecycle.draining or self._lifecycle.leaving:
            return json_response({"status": "shutting_down"}, status=503)
        refusal = self._meter.refusal
        if isinstance(refusal, JournalUnavailable):
            return json_response({"status": "journal_unavailable"}, status=503)
        if refusal is not None or not await self._runner.ping():
            return json_response({"status": "store_unavailable"}, status=503)
        return json_response({"status": "ready"})

    async def metrics(self, _request: web.Request) -> web.Response:
        """Prometheus's text format."""
        self._metrics.open_requests(self._lifecycle.in_flight)
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})


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
