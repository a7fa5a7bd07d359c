"""The outermost middleware: gives a request its id, and writes down how it went."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from time import perf_counter

from aiohttp import ClientError, web
from aiohttp.typedefs import Handler, Middleware

from proxy.domain.errors import ProxyError
from proxy.telemetry.logs import RequestLog
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import OBSERVATION, Observation
from proxy.web.middleware.client_address import DIRECT, ClientAddresses
from proxy.web.middleware.common_headers import common_headers
from proxy.web.middleware.errors import error_response
from proxy.web.server.lifecycle import Lifecycle

OTHER = "other"


def observe(
    lifecycle: Lifecycle,
    metrics: Metrics,
    log: RequestLog,
    request_ids: Iterator[str],
    clients: ClientAddresses = DIRECT,
) -> Middleware:
    """The middleware."""

    @web.middleware
    async def observe_request(request: web.Request, handler: Handler) -> web.StreamResponse:
        observation = Observation(next(request_ids), _endpoint(request), clients.of(request))
        request[OBSERVATION] = observation
        task = lifecycle.begin()
        try:
            response = await handler(request)
            observation.status = response.status
            if response.prepared:
                # The end of a streamed answer is part of the request; aiohttp would send it when this has returned.
                with contextlib.suppress(ConnectionError, ClientError):
                    await response.write_eof()
            else:
                response.headers.update(common_headers(observation))
            return response
        finally:
            lifecycle.end(task)
            ended = perf_counter()
            metrics.observed(observation, ended)
            log.write(observation, ended)

    return observe_request


def number(request_ids: Iterator[str], clients: ClientAddresses = DIRECT) -> Middleware:
    """Only the id and the client: for a listener whose requests are not the product's."""

    @web.middleware
    async def number_request(request: web.Request, handler: Handler) -> web.StreamResponse:
        observation = request[OBSERVATION] = Observation(next(request_ids), OTHER, clients.of(request))
        response = await handler(request)
        response.headers.update(common_headers(observation))
        return response

    return number_request


class Refusals:
    """Answers what never becomes a request, for no middleware sees it."""

    def __init__(self, endpoint: str, metrics: Metrics, log: RequestLog, request_ids: Iterator[str]) -> None:
        """Metrics and log call it ``endpoint``."""
        self._endpoint = endpoint
        self._metrics = metrics
        self._log = log
        self._request_ids = request_ids

    def __call__(self, error: ProxyError) -> web.Response:
        """The answer, which has been written down."""
        observation = Observation(self.next_id(), self._endpoint, error=error.code, status=error.wire_status)
        ended = perf_counter()
        self._metrics.observed(observation, ended)
        self._log.write(observation, ended)
        response = error_response(error)
        response.headers.update(common_headers(observation))
        return response

    def next_id(self) -> str:
        """A new id."""
        return next(self._request_ids)


def _endpoint(request: web.Request) -> str:
    """The route as it is configured: what stands in a path's variable part makes no new name."""
    resource = request.match_info.route.resource
    return OTHER if resource is None else resource.canonical
