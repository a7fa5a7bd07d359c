"""One connection to a provider: a request is written, its answer is read, and then maybe the next.

Bytes on an idle connection would be read as the answer to the next request, which may be another client's. So what
comes while nothing is asked ends the connection, and so does what the event loop has not read yet when it is taken.
"""

from __future__ import annotations

import asyncio
import re
import select
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import cast

from proxy.upstream.connection.chunks import Chunks
from proxy.upstream.connection.faults import AnswerBroken, ConnectFailed, NotHttp
from proxy.upstream.connection.head import Head
from proxy.upstream.connection.request import Origin
from proxy.upstream.connection.response import Response

HEAD_BYTES_LIMIT = 4 * 65_536
"""Of an answer's headers together."""

INTERIM_MOST = 64
"""Answers that announce another one (RFC 9110 section 15.2), to one request."""

_EMPTY_LINE = b"\r\n\r\n"
_head_end = re.compile(rb"\r?\n\r?\n")
_READABLE = select.POLLIN | select.POLLPRI | select.POLLHUP | select.POLLERR
_FINAL, _SWITCHING = 200, 101


class _Body(IntEnum):
    """How the end of what comes is known."""

    NOT_YET = 0
    BY_LENGTH = 1
    BY_CHUNKS = 2
    BY_CLOSE = 3


def _nothing(_connection: Connection) -> None:
    pass


class Connection(asyncio.Protocol):
    """Belongs to one request at a time, from ``ask`` until its answer has ended, and then to the pool again.

    ``on_free`` is called when all of an answer has come, nothing else has, and another request may follow; ``on_lost``
    when the connection has ended.
    """

    __slots__ = (
        "_begun", "_body", "_chunks", "_drained", "_expects_body", "_head", "_interim", "_is_odd",
        "_is_tunnel", "_is_writing_paused", "_left", "_loop", "_on_free", "_on_lost", "_poll", "_response",
        "is_paused", "is_uploading", "origin", "transport", "usable_until_s",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_free: Callable[[Connection], None] = _nothing,
        on_lost: Callable[[Connection], None] = _nothing,
        origin: Origin | None = None,
    ) -> None:
        """Not connected yet; ``origin`` is whom it is to lead to, for whoever looks for one."""
        self._loop = loop
        self._on_free = on_free
        self._on_lost = on_lost
        self.origin = origin
        self.transport: asyncio.Transport | None = None
        self._poll: select.poll | None = None
        self._response: Response | None = None
        self._head: Head | None = None
        self._begun = bytearray()
        self._body = _Body.NOT_YET
        self._left = self._interim = 0
        self._chunks: Chunks | None = None
        self._expects_body = True
        self._is_odd = self.is_paused = self._is_tunnel = self._is_writing_paused = False
        self._drained: asyncio.Future[None] | None = None
        self.is_uploading = False
        self.usable_until_s = 0.0

    # --- Being asked --------------------------------------------------------------------------------------------------

    @property
    def is_as_it_was_left(self) -> bool:
        """Whether it is open, and nothing has come that the event loop has not read yet."""
        transport = self.transport
        if transport is None or transport.is_closing() or self._response is not None or self._poll is None:
            return False
        return not self._poll.poll(0)

    def ask(self, request: Sequence[bytes], *, expects_body: bool = True, is_tunnel: bool = False) -> Response:
        """Write ``request``, whose answer comes as the response; one to a HEAD or for a tunnel has no body.

        What an answer for a tunnel says of its connection is not said of the tunnel.

        Raises ConnectFailed where the connection has ended before anything of it was written.
        """
        transport = self.transport
        if transport is None or transport.is_closing() or self._response is not None:
            raise ConnectFailed("the connection was closed before anything was sent")
        response = self._response = Response(self, self._loop)
        self._body = _Body.NOT_YET
        self._interim = 0
        self._is_odd = False
        self._expects_body = expects_body and not is_tunnel
        self._is_tunnel = is_tunnel
        if len(request) == 1:
            transport.write(request[0])
        else:
            transport.writelines(request)
        return response

    async def write_more(self, piece: bytes) -> None:
        """Write more of the request, as fast as it is taken. Raises AnswerBroken where the connection has ended."""
        transport = self.transport
        if transport is None or transport.is_closing():
            raise AnswerBroken("the connection was closed while the request was sent")
        transport.write(piece)
        if self._is_writing_paused:
            self._drained = self._loop.create_future()
            try:
                await self._drained
            finally:
                self._drained = None

    def give_up(self, response: Response) -> None:
        """Nobody reads the answer any more."""
        if self._response is response:
            self._response = None
            self.abort()

    def abort(self) -> None:
        """End at once. An answer that only the other end's leaving could complete is then none."""
        response, self._response = self._response, None
        if response is not None:
            response.end((AnswerBroken, "this gateway ended the connection"))
        if self.transport is not None:
            self.transport.abort()

    def pause(self) -> None:
        """Stop reading until ``resume``: what its reader has not taken yet has reached its bound."""
        transport = self.transport
        if not self.is_paused and transport is not None and not transport.is_closing():
            self.is_paused = True
            transport.pause_reading()

    def resume(self) -> None:
        """Read again after ``pause``."""
        if self.is_paused:
            self.is_paused = False
            transport = self.transport
            # One that is closing may refuse it, and has nothing more to read.
            if transport is not None and not transport.is_closing():
                transport.resume_reading()

    # --- The transport ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It can be used from now on."""
        self.transport = cast("asyncio.Transport", transport)
        connected = transport.get_extra_info("socket")
        if connected is not None:
            self._poll = select.poll()
            self._poll.register(connected.fileno(), _READABLE)

    def pause_writing(self) -> None:
        """The other end reads more slowly than is written."""
        self._is_writing_paused = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._is_writing_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Read an answer, or end."""
        response = self._response
        if response is None:
            self.abort()
            return
        if self._body is _Body.NOT_YET:
            self._feed_head(response, data)
        else:
            self._feed_body(response, data)

    def eof_received(self) -> None:
        """End without waiting until the rest of a request is written, which may never be: no answer to it can come."""
        if self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """What has not come does not come any more."""
        self.transport = self._poll = None
        response, self._response = self._response, None
        chunks, self._chunks = self._chunks, None
        if response is not None:
            is_whole = self._body is _Body.BY_CLOSE and exc is None
            if is_whole or (chunks is not None and chunks.has_all_data):
                response.end()
            else:
                told = (exc.strerror if isinstance(exc, OSError) else None) or str(exc or "") or "closed"
                where = "before its head" if self._body is _Body.NOT_YET else "within its body"
                response.end((AnswerBroken, f"the connection ended {where}: {told}"))
        self.resume_writing()
        self._on_lost(self)

    # --- Reading an answer --------------------------------------------------------------------------------------------

    def _feed_head(self, response: Response, data: bytes) -> None:
        """Most heads come whole; what follows them, an image, is then copied once."""
        begun = self._begun
        if not begun:
            end = data.find(_EMPTY_LINE)
            if end >= 0 and data.find(b"\n\n", 0, end) < 0 and data[0] not in b"\r\n":
                end += len(_EMPTY_LINE)
                self._take_head(response, data[:end], data[end:])
                return
        looked_at = max(0, len(begun) - 3)
        begun += data
        blanks = len(begun) - len(begun.lstrip(b"\r\n"))
        if blanks:
            # RFC 9112 section 2.2 has it of requests; where an answer does so, its connection is not used again.
            del begun[:blanks]
            self._is_odd, looked_at = True, 0
        found = _head_end.search(begun, looked_at)
        if found is None:
            if len(begun) > HEAD_BYTES_LIMIT or not (begun.startswith(b"HTTP/1.") or b"HTTP/1.".startswith(begun)):
                self._fail(response, NotHttp, "its head is not HTTP/1.1, or too long")
            return
        raw, rest = bytes(begun[: found.end()]), bytes(begun[found.end() :])
        begun.clear()
        self._take_head(response, raw, rest)

    def _take_head(self, response: Response, raw: bytes, rest: bytes) -> None:
        try:
            if len(raw) > HEAD_BYTES_LIMIT:
                raise NotHttp("its head is too long")
            head = Head(raw)
        except NotHttp as error:
            self._fail(response, NotHttp, str(error))
            return
        if head.status < _FINAL:
            self._interim += 1
            if head.status == _SWITCHING or self._interim > INTERIM_MOST:
                self._fail(response, NotHttp, "it announces an answer without an end, or another protocol")
            elif rest:
                self._feed_head(response, rest)
            return
        self._head = head
        response.feed_head(head)
        if head.has_no_body or not self._expects_body:
            self._finish(response, excess=bool(rest))
            return
        if head.is_chunked:
            self._body, self._chunks = _Body.BY_CHUNKS, Chunks()
        elif head.length is not None:
            self._body, self._left = _Body.BY_LENGTH, head.length
        else:
            self._body = _Body.BY_CLOSE
        if rest:
            self._feed_body(response, rest)

    def _feed_body(self, response: Response, data: bytes) -> None:
        body = self._body
        if body is _Body.BY_CHUNKS:
            self._feed_chunks(response, data)
            return
        if body is _Body.BY_CLOSE:
            response.feed(data)
            return
        left = self._left - len(data)
        if left > 0:
            self._left = left
            response.feed(data)
            return
        if left:
            data = data[:left]
        response.feed(data)
        self._finish(response, excess=left < 0)

    def _feed_chunks(self, response: Response, data: bytes) -> None:
        chunks = self._chunks
        if chunks is None:
            raise RuntimeError("a body in chunks has no reader")
        piece = chunks.feed(data)
        if piece:
            response.feed(piece)
        if chunks.fault:
            self._fail(response, NotHttp, chunks.fault)
        elif chunks.has_ended:
            self._finish(response, excess=not chunks.is_clean)

    def _finish(self, response: Response, *, excess: bool) -> None:
        """All of the answer has come. Where anything is odd about it, no other will come this way."""
        transport, head = self.transport, self._head
        self._response = self._chunks = self._head = None
        response.end()
        may_go_on = (
            head is not None
            and (head.may_go_on or self._is_tunnel)
            and not (excess or self._is_odd or self.is_uploading)
        )
        if transport is None:
            return
        # What has not been written of the request would stand before the next.
        if not may_go_on or head is None or transport.is_closing() or transport.get_write_buffer_size():
            transport.abort()
            return
        self.resume()
        self.usable_until_s = self._loop.time() + head.idle_s
        self._on_free(self)

    def _fail(self, response: Response, kind: type[AnswerBroken], message: str) -> None:
        self._response = self._chunks = self._head = None
        self._begun.clear()
        response.end((kind, message))
        self.abort()
