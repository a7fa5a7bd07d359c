"""How a request is made of what aiohttp has parsed, so that aiohttp does nothing on its own behind our back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.domain.errors import ExpectationFailed, InvalidRequest
from proxy.web.intake.request_body import EXPECTS_CONTINUE
from proxy.web.server.connection import Connection

ONLY_HTTP_1 = "Speak HTTP/1.1 or HTTP/1.0: a method, one blank, a path, one blank, and the version."
UNKNOWN = "UNKNOWN"
"""The method of what aiohttp makes of an error."""


RequestFactory = Callable[
    [RawRequestMessage, StreamReader, web.RequestHandler, AbstractStreamWriter, "asyncio.Task[None]"], web.BaseRequest
]


def request_factory(make: RequestFactory) -> RequestFactory:
    """Make requests by ``make``, of HTTP/1.1 or HTTP/1.0 and without ``Expect``.

    aiohttp would answer in the version that was asked in, and let a client go on before its key has been checked.
    """

    def make_request(
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        if message.version is HttpVersion11 and hdrs.EXPECT not in message.headers:
            return make(message, payload, protocol, writer, task)
        expects_continue = False
        if message.version not in (HttpVersion11, HttpVersion10) or message.method == UNKNOWN:
            if isinstance(protocol, Connection) and message.method != UNKNOWN:
                protocol.note_refusal(InvalidRequest(ONLY_HTTP_1))
            message = message._replace(version=HttpVersion11)
        if hdrs.EXPECT in message.headers:
            headers = CIMultiDict(message.headers)
            # HTTP/1.0 has no such thing (RFC 9110 section 10.1.1).
            expected = ",".join(headers.popall(hdrs.EXPECT)) if message.version == HttpVersion11 else ""
            expects_continue = expected.lower() == "100-continue"
            if expected and not expects_continue and isinstance(protocol, Connection):
                protocol.note_refusal(ExpectationFailed())
            headers.popall(hdrs.EXPECT, None)
            message = message._replace(headers=CIMultiDictProxy(headers))
        request = make(message, payload, protocol, writer, task)
        if expects_continue:
            request[EXPECTS_CONTINUE] = True
        return request

    return make_request
