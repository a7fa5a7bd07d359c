"""Reading a request body: of the right kind, not too large, and not for ever."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from proxy.domain.errors import InvalidRequest, PayloadTooLarge, RequestTimeout, UnsupportedMediaType

JSON = "application/json"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPECTS_CONTINUE = web.RequestKey("expects_continue", bool)
"""Its client waits with its body for a 100. aiohttp does not see the header, or it would send that at once."""


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How much of a request is read (bytes) and for how long (seconds)."""

    max_body_bytes: int
    body_timeout_s: float


async def read_json_body(request: web.Request, *, limit_bytes: int, timeout_s: float) -> bytes:
    """The whole body of ``request``.

    Raises UnsupportedMediaType, PayloadTooLarge, RequestTimeout, or InvalidRequest where it breaks off.
    """
    check_is_json(request)
    check_body(request, limit_bytes)
    content = request.content
    if content.is_eof():
        body = content.read_nowait()
        if len(body) > limit_bytes:
            raise body_too_large(limit_bytes)
        return body
    accept_body(request)
    try:
        async with asyncio.timeout(timeout_s):
            return await _read_parts(request, limit_bytes)
    except TimeoutError:
        raise RequestTimeout(f"The request's body did not arrive within {timeout_s:g} seconds.") from None
    except (web.RequestPayloadError, HttpProcessingError, ConnectionError):
        raise InvalidRequest("The request's body broke off before its end.") from None


def check_is_json(request: web.Request) -> None:
    """Refuse, by its header, what is no JSON (UnsupportedMediaType)."""
    if request.content_type != JSON:
        raise UnsupportedMediaType(
            f"The body is '{request.content_type}'; send JSON with the header 'Content-Type: application/json'."
        )


def check_body(request: web.Request, limit_bytes: int) -> None:
    """Refuse, by its headers, a body that is compressed or too large. Raises UnsupportedMediaType, PayloadTooLarge."""
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise UnsupportedMediaType("The body is compressed; send it without Content-Encoding.")
    if (request.content_length or 0) > limit_bytes:
        raise body_too_large(limit_bytes)


def accept_body(request: web.Request) -> None:
    """Tell a client that asked before sending its body (RFC 9110 section 10.1.1) to go on."""
    if not request.content.is_eof() and EXPECTS_CONTINUE in request and request.transport is not None:
        del request[EXPECTS_CONTINUE]
        request.transport.write(CONTINUE)


async def _read_parts(request: web.Request, limit_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > limit_bytes:
            raise body_too_large(limit_bytes)
    return b"".join(parts)


def body_too_large(limit_bytes: int) -> PayloadTooLarge:
    """The refusal of a body of more than ``limit_bytes``."""
    return PayloadTooLarge(f"The request's body is larger than the {limit_bytes:,} bytes that this gateway reads.")
