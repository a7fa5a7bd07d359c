"""An answer to a POST that is there as a whole, which is what most requests get."""

from __future__ import annotations

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from typing_extensions import override


class WholeAnswer(web.StreamResponse):
    """A 200 with ``body``, sent in one write.

    ``web.Response`` writes the same bytes, but takes longer than the gateway's middleware to find out that it is to
    compress nothing, to set no cookies, and to read no body from a file.
    """

    def __init__(self, body: bytes, headers: dict[str, str]) -> None:
        """``headers`` have its Content-Type, and a Server before it is sent."""
        super().__init__(headers=headers)
        self.body = body

    @override
    async def _start(self, request: web.BaseRequest) -> AbstractStreamWriter:
        headers = self._headers
        headers[hdrs.CONTENT_LENGTH] = str(len(self.body))
        if request.version is not HttpVersion11 or not isinstance(request, web.Request):
            return await super()._start(request)
        self._req, writer = request, request.writer
        self._payload_writer = writer
        headers[hdrs.DATE] = rfc822_formatted_time()
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        if not self._keep_alive:
            headers[hdrs.CONNECTION] = "close"
        hooks = request.app.on_response_prepare
        if hooks:
            await hooks.send(request, self)
        await writer.write_headers("HTTP/1.1 200 OK", headers)
        return writer

    @override
    async def write_eof(self, data: bytes = b"") -> None:
        """Send it; again, nothing."""
        # aiohttp holds an answer until the connection's next one is there.
        body, self.body = self.body, b""
        await super().write_eof(body)
