"""Reading a JSON request body: of the right kind, not too large, and not for ever."""

from __future__ import annotations

import asyncio

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError

from proxy.domain.errors import InvalidRequest, PayloadTooLarge, RequestTimeout, UnsupportedMediaType

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


async def read_json_body(request: web.Request, *, limit_bytes: int, timeout_s: float) -> bytes:
    """The whole body of ``request``.

    Raises UnsupportedMediaType, PayloadTooLarge, RequestTimeout, or InvalidRequest where it breaks off.
    """
    _check_headers(request, limit_bytes)
    if request.headers.get("Expect") and request.version == HttpVersion11 and request.transport is not None:
        request.transport.write(CONTINUE)
    content = request.content
    if content.is_eof():
        body = content.read_nowait()
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
        return body
    try:
        async with asyncio.timeout(timeout_s):
            return await _read_parts(request, limit_bytes)
    except TimeoutError:
        raise RequestTimeout(f"The request's body did not arrive within {timeout_s:g} seconds.") from None
    except (web.RequestPayloadError, HttpProcessingError, ConnectionError):
        raise InvalidRequest("The request's body broke off before its end.") from None


def _check_headers(request: web.Request, limit_bytes: int) -> None:
    if request.content_type != "application/json":
        raise UnsupportedMediaType(
            f"The body is '{request.content_type}'; send JSON with the header 'Content-Type: application/json'."
        )
    if request.headers.get("Content-Encoding", "identity") != "identity":
        raise UnsupportedMediaType("The body is compressed; send it without Content-Encoding.")
    if (request.content_length or 0) > limit_bytes:
        raise _too_large(limit_bytes)


async def _read_parts(request: web.Request, limit_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
    return b"".join(parts)


async def no_early_continue(_request: web.Request) -> None:
    """Leave ``Expect: 100-continue`` to ``read_json_body``, so that the key is looked at before an upload."""


def _too_large(limit_bytes: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The request's body is larger than the {limit_bytes:,} bytes that this gateway reads.")
