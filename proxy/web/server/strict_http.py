"""What aiohttp's parser lets through although no other server may read it the same way."""

from __future__ import annotations

import contextlib
import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import BadHttpMethod, HttpProcessingError, InvalidURLError, LineTooLong
from aiohttp.streams import StreamReader

from proxy.domain.errors import HeadersTooLarge, InternalError, InvalidRequest, NotFound, ProxyError

HEAD_END = b"\r\n\r\n"
READ_AGAIN_LIMIT = 32
BESIDE_METHOD_AND_PATH = len("  HTTP/1.1")
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
    end = len(message.method) + len(message.path) + BESIDE_METHOD_AND_PATH
    if data.find(b"\r\n", 0, end + 2) == end and data.startswith(b"HTTP/1.", end - 8):
        return True
    method, path = message.method.encode(), message.path.encode("utf-8", "surrogateescape")
    return data.startswith(tuple(b"%b %b HTTP/1.%d\r\n" % (method, path, minor) for minor in (1, 0)))


def whole_requests(parser: HttpRequestParser, data: bytes) -> list[tuple[RawRequestMessage, StreamReader]]:
    """The whole requests before an error in the same segment, which aiohttp's parser forgets about.

    A client must not get for its good request the error of another one. ``data`` begins with a request, and
    ``parser`` is a new one.
    """
    found: list[tuple[RawRequestMessage, StreamReader]] = []
    with contextlib.suppress(HttpProcessingError):
        while (end := data.find(HEAD_END)) >= 0 and len(found) < READ_AGAIN_LIMIT:
            head, data = data[: end + len(HEAD_END)], data[end + len(HEAD_END) :]
            messages, upgraded, _ = parser.feed_data(head)
            if upgraded or not messages or not has_exact_line(messages[-1][0], head.lstrip(b"\r\n")):
                break
            message, payload = messages[-1]
            found.append((message, payload))
            if not payload.is_eof():
                body_bytes = len(data) if message.chunked else int(message.headers[hdrs.CONTENT_LENGTH])
                parser.feed_data(data[:body_bytes])
                data = data[body_bytes:]
    return [(message, payload) for message, payload in found if payload.is_eof()]


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
