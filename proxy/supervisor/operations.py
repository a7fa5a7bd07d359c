"""Health and metrics of a gateway of several processes, what its workers are doing, and their replacement."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from proxy.domain.errors import Conflict
from proxy.web.admin.wire import RestartView, StatusView, WorkersView
from proxy.web.public.models import json_response
from proxy.web.server.routes import Access, Route

READY = "ready"


class WorkersRoutes:
    """Handlers of the supervisor's own."""

    def __init__(
        self,
        status: Callable[[], Awaitable[str]],
        render: Callable[[], Awaitable[bytes]],
        restart: Callable[[], Awaitable[int]],
        tell: Callable[[], dict[str, Any]],
    ) -> None:
        """``status`` says whether all workers are ready, ``render`` has the metrics of all of them.

        ``restart`` has them replaced, by those of a generation that it says; ``tell`` has what they are doing.
        """
        self._status = status
        self._render = render
        self._restart = restart
        self._tell = tell

    def routes(self) -> Sequence[Route]:
        """Where each handler stands."""
        free, where = Access.FREE, "/admin/v1/workers"
        return (
            Route("GET", "/healthz", self.healthz, free, {200: StatusView}),
            Route("GET", "/readyz", self.readyz, free, {200: StatusView, 503: StatusView}),
            Route("GET", "/metrics", self.metrics, free, {200: None}, media_type="text/plain"),
            Route("GET", where, self.show, Access.VIEWER, {200: WorkersView}),
            Route("POST", f"{where}/restart", self.restart, Access.ADMIN, {202: RestartView}, errors=(Conflict,)),
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

    async def vitals(self) -> tuple[str, bytes]:
        """What ``/readyz`` and ``/metrics`` say, for the console."""
        return await self._status(), await self._render()

    async def show(self, _request: web.Request) -> web.Response:
        """The workers, and how far a restart has come."""
        return json_response(self._tell())

    async def restart(self, _request: web.Request) -> web.Response:
        """Replace every process by one of the version that is installed now. No request notices.

        The admin listener answers again after a second or two. The restart is done when ``generation`` is what this
        answer says, and has failed where ``restarting`` is false before that.
        """
        return json_response({"generation": await self._restart()}, status=202)
