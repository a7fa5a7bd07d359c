"""Turns every error into an answer in OpenAI's form, and refuses what aiohttp's parser lets through."""

from __future__ import annotations

import logging

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from proxy.domain.errors import InternalError, InvalidRequest, MethodNotAllowed, NotFound, ProxyError, ShuttingDown
from proxy.domain.parsing.json_text import lasting_json
from proxy.telemetry.observation import OBSERVATION, OK, REJECTED
from proxy.web.server.connection import Connection
from proxy.web.server.lifecycle import Lifecycle
from proxy.web.server.strict_http import check_http

logger = logging.getLogger(__name__)


def errors(lifecycle: Lifecycle) -> Middleware:
    """The middleware."""

    @web.middleware
    async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        observation = request[OBSERVATION]
        is_http = False
        try:
            connection = request.protocol
            if isinstance(connection, Connection) and (refusal := connection.take_refusal()) is not None:
                raise refusal
            check_http(request)
            is_http = True
            if lifecycle.draining:
                raise ShuttingDown
            return await handler(request)
        except ProxyError as error:
            # It would hold this frame, which holds it, and all that the request has read until the collector comes.
            failure = error.with_traceback(None)
        except web.HTTPException as error:
            failure = _translate(request, error)
        except Exception:
            logger.exception("%s: unexpected error", observation.request_id)
            failure = InternalError(f"Lightmeter failed; its log says why under {observation.request_id}.")
        observation.error = failure.code
        if observation.outcome == OK:
            observation.outcome = REJECTED
        if request.writer.output_size > 0 and request.transport is not None:
            # A second status line would be read as a part of the answer that has begun.
            request.transport.abort()
        response = error_response(failure)
        if not is_http:
            # Where this request ends is not certain, so there is no next one (RFC 9112 section 6.1).
            response.force_close()
        return response

    return answer_errors


def error_response(error: ProxyError) -> web.Response:
    """The error on the wire."""
    return web.Response(
        status=error.wire_status,
        body=lasting_json(error.body()),
        content_type="application/json",
        headers=error.headers(),
    )


def _translate(request: web.Request, error: web.HTTPException) -> ProxyError:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allow = ", ".join(sorted(error.allowed_methods))
        return MethodNotAllowed(f"{request.method} is not allowed here; {allow} is.", allow=allow)
    if isinstance(error, web.HTTPNotFound):
        return NotFound(f"No such route: {request.method} {request.path[:200]}")
    return InvalidRequest(error.reason)
