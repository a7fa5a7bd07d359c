"""Whether requests should be sent here: for ``/readyz``, and for load balancers that see the public listener only."""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from proxy.domain.errors import JournalUnavailable, ProxyError
from proxy.metering.meter import Meter
from proxy.metering.redis.runner import ScriptRunner
from proxy.web.server.connection import Connection
from proxy.web.server.lifecycle import Lifecycle
from proxy.web.server.strict_http import check_http

READING = frozenset({"GET", "HEAD"})
KEPT_S = 1.0
"""How long the store's word holds for strangers: however many of them ask, it is asked no more often than this."""


class Readiness:
    """What has to be well for a request to be served."""

    def __init__(self, lifecycle: Lifecycle, meter: Meter, runner: ScriptRunner) -> None:
        """Look at these."""
        self._lifecycle = lifecycle
        self._meter = meter
        self._runner = runner
        self._asking: asyncio.Task[bool] | None = None
        self._asked_at = 0.0

    async def why_not(self, *, asks_at_most_every_s: float = 0.0) -> str:
        """The reason why requests should not be sent here, empty where they should."""
        if self._lifecycle.draining or self._lifecycle.leaving:
            return "shutting_down"
        refusal = self._meter.refusal
        if isinstance(refusal, JournalUnavailable):
            return "journal_unavailable"
        if refusal is not None or not await self._store_answers(asks_at_most_every_s):
            return "store_unavailable"
        return ""

    async def _store_answers(self, at_most_every_s: float) -> bool:
        if not at_most_every_s:
            return await self._runner.ping()
        now = asyncio.get_running_loop().time()
        if self._asking is None or (self._asking.done() and now - self._asked_at >= at_most_every_s):
            self._asking, self._asked_at = asyncio.create_task(self._runner.ping()), now
        # Whoever asked first may leave; the others still want to know.
        return await asyncio.shield(self._asking)


def health(path: str, readiness: Readiness) -> Middleware:
    """The middleware that answers ``path`` to anybody: 200 where requests should be sent here, 503 where not.

    It stands before all others: it is asked every second by machines, and is neither metered nor logged.
    """

    @web.middleware
    async def answer_health(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.raw_path != path or not _is_plain(request):
            return await handler(request)
        is_ready = not await readiness.why_not(asks_at_most_every_s=KEPT_S)
        return web.Response(status=200 if is_ready else 503, headers={"Cache-Control": "no-store"})

    return answer_health


def _is_plain(request: web.Request) -> bool:
    """Whether nothing but the path is asked for; whatever is odd goes to where everything odd is answered."""
    connection = request.protocol
    if request.method not in READING or request.can_read_body:
        return False
    if isinstance(connection, Connection) and connection.has_refusal:
        return False
    try:
        check_http(request)
    except ProxyError:
        return False
    return True
