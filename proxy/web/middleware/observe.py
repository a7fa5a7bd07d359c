"""The outermost middleware: gives a request its id, and writes down how it went."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from proxy.telemetry.logs import RequestLog
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.observation import OBSERVATION, Observation
from proxy.web.lifecycle import Lifecycle

OTHER = "other"


def observe(
    lifecycle: Lifecycle, metrics: Metrics, log: RequestLog, request_ids: Iterator[str], endpoints: frozenset[str]
) -> Middleware:
    """The middleware. Paths that are not among ``endpoints`` are counted as one."""

    @web.middleware
    async def observe_request(request: web.Request, handler: Handler) -> web.StreamResponse:
        path = request.path
        observation = Observation(next(request_ids), path if path in endpoints else OTHER)
        request[OBSERVATION] = observation
        lifecycle.in_flight += 1
        try:
            response = await handler(request)
            observation.status = response.status
            if not response.prepared:
                response.headers["x-request-id"] = observation.request_id
            return response
        finally:
            lifecycle.ended_one()
            ended = perf_counter()
            metrics.observed(observation, ended)
            log.write(observation, ended)

    return observe_request


def number(request_ids: Iterator[str]) -> Middleware:
    """Only the id: for a listener whose requests are not the product's."""

    @web.middleware
    async def number_request(request: web.Request, handler: Handler) -> web.StreamResponse:
        observation = request[OBSERVATION] = Observation(next(request_ids), OTHER)
        response = await handler(request)
        response.headers["x-request-id"] = observation.request_id
        return response

    return number_request
