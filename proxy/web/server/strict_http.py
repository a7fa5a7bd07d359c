"""What aiohttp's parser lets through although no other server may read it the same way."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import BadHttpMethod, InvalidURLError, LineTooLong

from proxy.domain.errors import HeadersTooLarge, InternalError, InvalidRequest, NotFound, ProxyError

BESIDE_METHOD_AND_PATH = len("  HTTP/1.1")
HEAD_BYTES = 8_192
"""More than aiohttp takes of one line."""

PATHS_WITH_ESCAPES = "/v1/models/"
LAST_PORT = 65_535
HOSTS_REMEMBERED = 1_024
PLAIN_CONNECTIONS = frozenset({"keep-alive", "close", "Keep-Alive", "Close"})
NOT_BY_CONNECTION = frozenset(
    {
        "api-key", "authorization", "content-encoding", "content-length", "content-type", "cookie", "expect", "host",
        "idempotency-key", "transfer-encoding", "x-api-key",
    }
)  # fmt: skip
"""What ``Connection`` may not name (RFC 9110 section 7.6.1): a proxy on the way would take it out."""

_host = re.compile(r"(?P<name>[A-Za-z0-9._~-]{1,255}|\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\])(?::(?P<port>[0-9]{1,5}))?")


def check_http(request: web.Request) -> None:
    """Refuse requests of ambiguous framing, host or target, before anything is made of them.

    Raises InvalidRequest, and NotFound for a path that is another's with escapes.
    """
    headers = request.headers
    coding = headers.get(hdrs.TRANSFER_ENCODING)
    if coding is not None and (coding.strip().lower() != "chunked" or request.version != HttpVersion11):
        # RFC 9112 section 6.1
        raise InvalidRequest("The only Transfer-Encoding understood here is 'chunked', and only in HTTP/1.1.")
    host = headers.get(hdrs.HOST)
    if host is not None and not is_host(host):
        # RFC 9112 section 3.2
        raise InvalidRequest("The header 'Host' should be one name or address, with a port where it has one.")
    for options in headers.getall(hdrs.CONNECTION, ()):
        if options not in PLAIN_CONNECTIONS:
            _check_connection(options)
    if hdrs.CONTENT_ENCODING in headers and len(headers.getall(hdrs.CONTENT_ENCODING)) > 1:
        raise InvalidRequest("The header 'Content-Encoding' should stand once.")
    target = request.raw_path
    if not target.startswith("/"):
        raise InvalidRequest("The request's target should be a path that begins with '/'.")
    if "%" in target and not request.path.startswith(PATHS_WITH_ESCAPES) and "%" in target.partition("?")[0]:
        raise NotFound("No such route.")


@lru_cache(HOSTS_REMEMBERED)
def is_host(text: str) -> bool:
    """Whether ``text`` is a host and a port as RFC 3986 has them, without user, path, list or blank."""
    match = _host.fullmatch(text)
    if match is None or int(match["port"] or 0) > LAST_PORT:
        return False
    if match["ipv6"] is not None:
        try:
            IPv6Address(match["ipv6"])
        except AddressValueError:
            return False
    return True


def _check_connection(options: str) -> None:
    for option in options.split(","):
        if option.strip().lower() in NOT_BY_CONNECTION:
            raise InvalidRequest("The header 'Connection' names one that no proxy on the way may take out.")


def has_exact_line(message: RawRequestMessage, data: bytes) -> bool:
    """Whether ``data`` begins with the request line of ``message``, as RFC 9112 section 3 has it."""
    # The one way without a blank too many, in ASCII; looked at first, for it is nearly every request.
    end = data.find(b"\r\n", 0, 2 * HEAD_BYTES)
    if end == len(message.method) + len(message.path) + BESIDE_METHOD_AND_PATH and data.startswith(b"HTTP/1.", end - 8):
        return True
    method, path = message.method.encode(), message.path.encode("utf-8", "surrogateescape")
    return data.startswith(tuple(b"%b %b HTTP/1.%d\r\n" % (method, path, minor) for minor in (1, 0)))


def error_of(status: int, error: BaseException | None, message: str) -> ProxyError:
    """What to answer where aiohttp could not make a request of what was sent, which its own words would repeat."""
    if status >= InternalError.status:
        return InternalError("Lightmeter failed; its log says why.")
    if isinstance(error, LineTooLong) or message.startswith("Too many headers"):
        return HeadersTooLarge()
    if isinstance(error, BadHttpMethod):
        return InvalidRequest("This does not begin with a method of HTTP. TLS is not spoken here: use http://.")
    if isinstance(error, InvalidURLError):
        return InvalidRequest("The request's target should be a path that begins with '/'.")
    return InvalidRequest(
        "This is no request of HTTP/1.1 (RFC 9112): its first line, a header or its framing is malformed."
    )
