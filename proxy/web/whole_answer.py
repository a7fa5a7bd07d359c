"""An answer to a POST that is there as a whole, which is what most requests get."""

from __future__ import annotations

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import StreamWriter
from aiohttp.http_writer import _serialize_headers
from typing_extensions import override

STATUS_LINE = "HTTP/1.1 200 OK"


class WholeAnswer(web.StreamResponse):
    """A 200 with ``body``, sent in one write.

    ``web.Response`` writes the same bytes, but takes longer than the gateway's middleware to find out that it is to
    compress nothing, to set no cookies, and to read no body from a file.
    """

    def __init__(self, body: bytes, headers: dict[str, str]) -> None:
        """``headers`` have its Content-Type, and a Server before it is sent."""
        super().__init__(headers=headers)
        self.body = body

    async def send(self, request: web.Request) -> bool:
        """Send all of it by one write, as ``prepare`` and ``write_eof`` do by a dozen calls; whether there is a client.

        False where the client has left. None of it has been sent yet.
        """
        writer = request.writer
        try:
            if request.version is not HttpVersion11 or self.prepared or not isinstance(writer, StreamWriter):
                await self.prepare(request)
                await self.write_eof()
                return True
            await self._complete(request)
            body, self.body = self.body, b""
            transport = writer.transport
            if transport is None or transport.is_closing():
                return False
            answer = _serialize_headers(STATUS_LINE, self._headers) + body
            writer.output_size += len(answer)
            transport.write(answer)
            self._eof_sent = True
            await writer.drain()
        except ConnectionError:
            return False
        return True

    @override
    async def _start(self, request: web.BaseRequest) -> AbstractStreamWriter:
        if request.version is not HttpVersion11 or not isinstance(request, web.Request):
            self._headers[hdrs.CONTENT_LENGTH] = str(len(self.body))
            return await super()._start(request)
        self._req, writer = request, request.writer
        self._payload_writer = writer
        await self._complete(request)
        await writer.write_headers(STATUS_LINE, self._headers)
        return writer

    async def _complete(self, request: web.Request) -> None:
        headers = self._headers
        headers[hdrs.CONTENT_LENGTH] = str(len(self.body))
        headers[hdrs.DATE] = rfc822_formatted_time()
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        if not self._keep_alive:
            headers[hdrs.CONNECTION] = "close"
        hooks = request.app.on_response_prepare
        if hooks:
            await hooks.send(request, self)

    @override
    async def write_eof(self, data: bytes = b"") -> None:
        """Send it; again, nothing."""
        # aiohttp holds an answer until the connection's next one is there.
        body, self.body = self.body, b""
        await super().write_eof(body)
