"""``POST /v1/images/generations``: to the provider and back, in pieces."""

from __future__ import annotations

from aiohttp import web

from proxy.domain.errors import ClientGone
from proxy.domain.images_answer import ImagesAnswer
from proxy.metering.middleware import METERED
from proxy.telemetry.observation import OBSERVATION
from proxy.upstream.pool import Pool
from proxy.web.relay import Relay


class ImageRoutes:
    """Handlers of the images API; the metering middleware has admitted what comes here."""

    def __init__(self, pool: Pool, *, write_timeout_s: float, finish_for_nobody: bool) -> None:
        """Forward to the providers of ``pool``; a client that reads nothing for ``write_timeout_s`` is let go.

        Where a client has left, its images are made to the end if ``finish_for_nobody``; else the provider is stopped.
        """
        self._finish_for_nobody = finish_for_nobody
        self._pool = pool
        self._write_timeout_s = write_timeout_s

    async def generate(self, request: web.Request) -> web.StreamResponse:
        """Forward a generation and pass its answer on while it arrives."""
        metered, observation = request[METERED], request[OBSERVATION]
        if request.transport is None:
            raise ClientGone
        client = self._pool.client_for(metered.model)
        exchange = client.generate(metered.image_request, metered.model, metered.delivery, observation)
        if not self._finish_for_nobody:
            exchange.watchdog.end_when(lambda: request.transport is None)
        async with exchange:
            relay = Relay(request, observation, exchange, self._write_timeout_s)
            return await relay.pass_on(ImagesAnswer(), metered.delivery)
