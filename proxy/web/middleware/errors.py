"""Turns every error into an answer in OpenAI's form, and refuses what aiohttp's parser lets through."""

from __future__ import annotations

import logging

import orjson
from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.typedefs import Handler, Middleware

from proxy.domain.errors import InternalError, InvalidRequest, MethodNotAllowed, NotFound, ProxyError, ShuttingDown
from proxy.telemetry.observation import OBSERVATION, OK, REJECTED
from proxy.web.lifecycle import Lifecycle

logger = logging.getLogger(__name__)

PATHS_WITH_ESCAPES = "/v1/models/"


def errors(lifecycle: Lifecycle) -> Middleware:
    """The middleware."""

    @web.middleware
    async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        observation = request[OBSERVATION]
        try:
            check_http(request)
            if lifecycle.draining:
                raise ShuttingDown
            return await handler(request)
        except ProxyError as error:
            failure = error
        except web.HTTPException as error:
            failure = _translate(request, error)
        except Exception:
            logger.exception("%s: unexpected error", observation.request_id)
            failure = InternalError(f"Lightmeter failed; its log tells why under {observation.request_id}.")
        observation.error = failure.code
        if observation.outcome == OK:
            observation.outcome = REJECTED
        return error_response(failure)

    return answer_errors


def error_response(error: ProxyError) -> web.Response:
    """The error on the wire."""
    return web.Response(
        status=error.wire_status,
        body=orjson.dumps(error.body()),
        content_type="application/json",
        headers=error.headers(),
    )


def check_http(request: web.Request) -> None:
    """Refuse requests of ambiguous framing (RFC 9112 section 6.1) or target, before anything is made of them."""
    if request.version not in (HttpVersion11, HttpVersion10):
        raise InvalidRequest("Speak HTTP/1.1 or HTTP/1.0.")
    coding = request.headers.get("Transfer-Encoding")
    if coding is not None and (coding.strip().lower() != "chunked" or request.version != HttpVersion11):
        raise InvalidRequest("The only Transfer-Encoding understood here is 'chunked', and only in HTTP/1.1.")
    target = request.message.path
    if not target.startswith("/"):
        raise InvalidRequest("The request's target should be a path that begins with '/'.")
    if "%" in target and not request.path.startswith(PATHS_WITH_ESCAPES) and "%" in target.partition("?")[0]:
        raise NotFound("No such route.")


def _translate(request: web.Request, error: web.HTTPException) -> ProxyError:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allow = ", ".join(sorted(error.allowed_methods))
        return MethodNotAllowed(f"{request.method} is not allowed here; {allow} is.", allow=allow)
    if isinstance(error, web.HTTPNotFound):
        return NotFound(f"No such route: {request.method} {request.path[:200]}")
    return InvalidRequest(error.reason)
