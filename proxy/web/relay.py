"""Passing a provider's answer on to the client, piece by piece, through the scanner."""

from __future__ import annotations

import asyncio
import logging
from time import perf_counter

from aiohttp import ClientError, web

from proxy.domain.errors import ProxyError, UpstreamError, UpstreamTruncated
from proxy.domain.response_scanner import MalformedResponse, ResponseScanner
from proxy.domain.settlement import Delivery
from proxy.telemetry.observation import Observation
from proxy.upstream.pool import Exchange
from proxy.upstream.watchdog import Watchdog
from proxy.web.common_headers import common_headers

logger = logging.getLogger(__name__)

WHOLE_BYTES_LIMIT = 65_536
"""Answers up to this size are sent whole, with their length, and with a proper error where they break off."""

JSON = "application/json"


class Relay:
    """One answer on its way to one client, who may leave; the provider's answer is read to its end all the same."""

    def __init__(
        self, request: web.Request, observation: Observation, watchdog: Watchdog, write_timeout_s: float
    ) -> None:
        """Answer ``request``; a client that reads nothing for ``write_timeout_s`` seconds is let go."""
        self._request = request
        self._observation = observation
        self._watchdog = watchdog
        self._write_timeout_s = write_timeout_s
        self._response: web.StreamResponse | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._client_gone = False

    async def pass_on(self, exchange: Exchange, scanner: ResponseScanner, delivery: Delivery) -> web.StreamResponse:
        """Send what the scanner lets through, and write down in ``delivery`` what came.

        The end of the answer is sent by whoever called, after the settlement: an answer that is whole has been charged.
        """
        try:
            while piece := await exchange.read():
                passed = scanner.feed(piece)
                if passed:
                    await self._send(passed)
            scanner.finish()
        except (MalformedResponse, ProxyError) as error:
            self._note(scanner, delivery)
            delivery.end(complete=scanner.complete, client_gone=self._client_gone)
            return self._break_off(error, delivery)
        except asyncio.CancelledError:
            # By the watchdog or at the end of the process; either way these images have been made.
            self._note(scanner, delivery)
            delivery.end(complete=scanner.complete, client_gone=self._client_gone)
            if self._response is not None:
                self._abort()
            raise
        self._note(scanner, delivery)
        self._client_gone = self._client_gone or self._request.transport is None
        delivery.end(complete=True, client_gone=self._client_gone)
        return self._response or self._whole()

    async def _send(self, piece: bytes) -> None:
        if self._client_gone:
            return
        if self._response is None:
            self._held.append(piece)
            self._held_bytes += len(piece)
            if self._held_bytes <= WHOLE_BYTES_LIMIT:
                return
            piece, self._held = b"".join(self._held), []
        began = perf_counter()
        self._watchdog.phase(self._write_timeout_s, self._abort)
        try:
            if self._response is None:
                self._response = self._begin()
                await self._response.prepare(self._request)
            await self._response.write(piece)
            self._observation.response_bytes += len(piece)
        except (ConnectionError, ClientError):
            self._client_gone = True
        finally:
            self._observation.client_s += perf_counter() - began

    def _begin(self) -> web.StreamResponse:
        return web.StreamResponse(headers={"Content-Type": JSON, **common_headers(self._observation)})

    def _whole(self) -> web.Response:
        body = b"".join(self._held)
        self._observation.response_bytes = len(body)
        return web.Response(body=body, content_type=JSON)

    def _break_off(self, error: Exception, delivery: Delivery) -> web.StreamResponse:
        """Never end a body that is not whole as if it were: an error where there is still time, else a cut."""
        logger.warning("%s: the answer of provider %s: %s", self._observation.request_id, delivery.provider, error)
        if self._response is None:
            if delivery.images:
                raise UpstreamTruncated(
                    f"The provider's answer broke off after {delivery.images} complete image(s), which are charged."
                ) from error
            if isinstance(error, ProxyError):
                raise error
            raise UpstreamError("The provider's answer is not an images response; nothing was charged.") from error
        self._abort()
        return self._response

    def _note(self, scanner: ResponseScanner, delivery: Delivery) -> None:
        delivery.images = scanner.images
        delivery.provider_usage = scanner.usage

    def _abort(self) -> None:
        self._client_gone = True
        if self._request.transport is not None:
            self._request.transport.abort()
