"""One client's connection: aiohttp's protocol, stricter where a client could take more than its share.

Four things are done here, for every answer and on every listener, because only the connection sees them: how much of a
chunked body may be framing, how long an answer may stay unread, whether a client that sends no more still listens, and
what is said of a request that is no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import HttpVersion, HttpVersion11, web
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import _ErrInfo

from proxy.domain.errors import InternalError, InvalidRequest, ProxyError
from proxy.web.intake.request_body import CONTINUE, EXPECTS_CONTINUE
from proxy.web.server.open_connections import UNREAD, OpenConnections
from proxy.web.server.strict_http import HEAD_END, error_of, has_exact_line, whole_requests
from proxy.web.whole_answer import WholeAnswer

logger = logging.getLogger(__name__)

READ_BUFFER_BYTES = 65_536
LINGERING_S = 1.0
"""How long a refused upload may go on before its connection is closed: time enough to read the refusal."""

FREE_FRAMING_BYTES = 8_192
"""What the framing of a chunked body may take, beside an eighth of the data: enough for chunks of 48 bytes.

The Go project bounds it as well, since CVE-2023-39326, but for chunks of one byte; each of those costs this process as
much as a chunk of 64 KiB.
"""

DATA_FOR_FRAMING = 8
DRAINED_BYTES = 65_536
"""An unread rest of this size is read, so that the connection can go on; a larger one ends it."""

READ_PROGRESS_BYTES = 65_536
"""What a client reads at least within the write timeout, where so much waits for it."""

HEADERS_LIMIT = 256
LINES_OF_A_HEAD = 4
"""All headers of a request together may take so many of the longest lines, or a stranger could have megabytes kept."""

NO_HTTP = HttpVersion(0, 0)
RESET_AT_CLOSE = struct.pack("ii", 1, 0)
FIRST_LOOK_S = 0.05
LONGEST_LOOK_S = 1.0

# Called for each request: to look them up by super() takes longer than what is done here.
_receive = web.RequestHandler.data_received
_finish = web.RequestHandler.finish_response

Refuse = Callable[[ProxyError], web.Response]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How long a connection may be silent, how long an answer may stay unread, and how large a header may be."""

    keepalive_s: float
    write_timeout_s: float
    header_line_bytes: int


class Connection(web.RequestHandler):
    """Serves one client, for as long as it speaks HTTP/1.1 and reads its answers."""

    __slots__ = (
        "_body",
        "_body_is_chunked",
        "_deadline",
        "_discards",
        "_half_closed",
        "_head",
        "_head_limit_bytes",
        "_is_between",
        "_look_delay_s",
        "_marked_bytes",
        "_open",
        "_raw_bytes",
        "_refusal",
        "_refuse",
        "_unread_bytes",
        "_unread_since",
        "_version",
        "_wire",
        "_write_timeout_s",
    )

    def __init__(self, server: web.Server, opened: OpenConnections, limits: ConnectionLimits, refuse: Refuse) -> None:
        """One of the connections in ``opened``. ``refuse`` answers what never becomes a request."""
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]
            keepalive_timeout=limits.keepalive_s,
            max_line_size=limits.header_line_bytes,
            max_field_size=limits.header_line_bytes,
            max_headers=HEADERS_LIMIT,
            read_bufsize=READ_BUFFER_BYTES,
            auto_decompress=False,
            lingering_time=LINGERING_S,
        )
        self._open = opened
        self._refuse = refuse
        self._write_timeout_s = limits.write_timeout_s
        self._refusal: ProxyError | None = None
        # aiohttp forgets its own reference to the transport before the last bytes are sent.
        self._wire: asyncio.Transport | None = None
        self._discards = False
        self._head = bytearray()
        self._head_limit_bytes = LINES_OF_A_HEAD * limits.header_line_bytes
        self._is_between = True
        self._body: StreamReader | None = None
        self._body_is_chunked = False
        self._raw_bytes = self._marked_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._unread_since: float | None = None
        self._unread_bytes = 0
        self._half_closed = False
        self._version: HttpVersion | None = None
        self._look_delay_s = FIRST_LOOK_S

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request."""
        return self._waiter is not None and not self._waiter.done()

    def evict(self) -> None:
        """Close an idle connection, for another client to take its place."""
        self.force_close()

    # --- Its beginning and its end ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve the client, or answer that there is no room."""
        wire = cast("asyncio.Transport", transport)
        if not self._open.admit(self):
            # Nothing of it has been given to aiohttp's server, which would learn of the end otherwise.
            self._force_close, self._manager, self._parser = True, None, None
            wire.write(self._open.full_answer())
            wire.close()
            return
        self._wire = wire
        super().connection_made(transport)
        if self._task_handler is not None:
            self._task_handler.add_done_callback(self._expect_end)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the client."""
        self._open.remove(self)
        self._wire = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        super().connection_lost(exc)

    # --- Reading: how much framing a body may have --------------------------------------------------------------------

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Read on where reading was paused. aiohttp asks for it with each piece that is taken out of a body."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, unless nothing of this client is wanted any more."""
        if self._discards:
            return
        queue, body = self._messages, self._body
        known = len(queue)
        if body is not None:
            was_paused = self._reading_paused
            _receive(self, data)
            self._raw_bytes += len(data)
            if not body.is_eof():
                self._go_on(body, is_broken=len(queue) > known, was_paused=was_paused)
                return
            self._body = None
            self._is_between = data.endswith(HEAD_END) or self._raw_bytes == body.total_bytes
            if len(queue) > known:
                self._begin(known, data, at_start=False)
            return
        _receive(self, data)
        if len(queue) > known:
            self._begin(known, data, at_start=self._is_between)
            return
        self._head += data
        if len(self._head) > self._head_limit_bytes:
            self._refuse_head()

    def _refuse_head(self) -> None:
        """The request that would be the next in the queue has more headers than anybody needs."""
        self._discards = True
        self._head.clear()
        error = LineTooLong(b"", self._head_limit_bytes)
        self._messages.append((_ErrInfo(status=error.code, exc=error, message=error.message), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _begin(self, first: int, data: bytes, *, at_start: bool) -> None:
        """Look at the requests from the ``first`` in the queue on, which have come in ``data``.

        Where that is certain, ``at_start``, the first of them begins where what has come of its head does, and ``data``
        after that.
        """
        queue = self._messages
        message, payload = queue[first]
        if self._head:
            data = bytes(self._head) + data
            self._head.clear()
        if at_start and len(data) > self._head_limit_bytes and data.find(HEAD_END) > self._head_limit_bytes:
            while len(queue) > first:
                queue.pop()
            self._refuse_head()
            return
        if not isinstance(message, RawRequestMessage):
            # Of what is behind an error, nothing can be read. It holds the frame that holds it, and the connection.
            self._discards, message.exc.__traceback__ = True, None
            if at_start:
                error = queue.pop()
                parser = self._parser = self._new_parser()
                queue.extend((*whole_requests(parser, data), error))
            return
        if at_start and not has_exact_line(message, data) and not has_exact_line(message, data.lstrip(b"\r\n")):
            # llhttp takes RTSP for HTTP, and any number of blanks.
            queue[first] = message._replace(version=NO_HTTP), payload
        self._version = message.version
        is_one = first == len(queue) - 1
        payload = queue[-1][1]
        if not payload.is_eof():
            self._begin_body(payload, data if is_one else None)
            return
        # What ends so has nothing behind it that could be a part of the next request.
        self._is_between = data.endswith(HEAD_END) or (
            at_start and is_one and data.find(HEAD_END) + len(HEAD_END) + payload.total_bytes == len(data)
        )

    def _begin_body(self, body: StreamReader, data: bytes | None) -> None:
        """The last request has a body that is not whole yet; ``data`` begins with that request, unless it is None."""
        self._body, self._body_is_chunked = body, bool(getattr(self._messages[-1][0], "chunked", False))
        self._marked_bytes = 0
        self._raw_bytes = body.total_bytes
        if data is not None and self._body_is_chunked:
            self._raw_bytes = len(data) - (data.find(HEAD_END) + len(HEAD_END))
        self._go_on(body, is_broken=False, was_paused=False)

    def _new_parser(self) -> HttpRequestParser:
        return HttpRequestParser(
            self,
            self._loop,
            READ_BUFFER_BYTES,
            max_line_size=self.max_line_size,
            max_headers=self.max_headers,
            max_field_size=self.max_field_size,
            payload_exception=web.RequestPayloadError,
            auto_decompress=False,
        )

    def _go_on(self, body: StreamReader, *, is_broken: bool, was_paused: bool) -> None:
        """Refuse a chunked body that is no such thing, or has more framing than its data is worth."""
        if is_broken:
            # aiohttp would answer the request twice, the second time for the error, and not report it to its reader.
            error, _ = self._messages.pop()
            if not isinstance(error, RawRequestMessage):
                error.exc.__traceback__ = None
            self._break_off(body, "its chunks are malformed")
        elif self._body_is_chunked and self._is_mostly_framing(body, was_paused=was_paused):
            self._break_off(body, "its chunks are too small, for their framing outweighs their data")

    def _is_mostly_framing(self, body: StreamReader, *, was_paused: bool) -> bool:
        if self._reading_paused:
            # What the parser holds back looks like framing. aiohttp pauses it for two reasons: more than twice
            # READ_BUFFER_BYTES that nobody has read, or thousands of chunks with less in them.
            grown_bytes, self._marked_bytes = body.total_bytes - self._marked_bytes, body.total_bytes
            return not was_paused and grown_bytes <= READ_BUFFER_BYTES
        framing_bytes = self._raw_bytes - body.total_bytes
        return framing_bytes > FREE_FRAMING_BYTES + body.total_bytes // DATA_FOR_FRAMING

    def _break_off(self, body: StreamReader, why: str) -> None:
        self._discards = True
        body.set_exception(InvalidRequest(f"The request's body cannot be read: {why}."))

    # --- Answering: how long that may take ----------------------------------------------------------------------------

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Send ``resp``, and close the connection behind it where no other request can follow."""
        if self._body is not None or self._discards or self._half_closed or self._upgraded:
            self._choose_end(request, resp)
        elif isinstance(resp, WholeAnswer) and isinstance(request, web.Request):
            return _send_whole(request, resp)
        return _finish(self, request, resp, start_time)

    def _choose_end(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        body = request.content
        if not body.is_eof() and not self._discards:
            unread_bytes = (request.content_length or 0) - body.total_bytes
            # To parse what nobody reads is work that a stranger can ask for, most of all in chunks.
            # And a client that was never asked to go on may send its next request in place of its body.
            self._discards = self._body_is_chunked or unread_bytes > DRAINED_BYTES or EXPECTS_CONTINUE in request
        if self._upgraded:
            # Nothing is spoken here but HTTP, and what aiohttp has put aside would come past this connection's checks.
            self._discards, self._message_tail = True, b""
        if not self._messages:
            response.force_close()

    def pause_writing(self) -> None:
        """More waits for the client than is good: from now on, time runs."""
        super().pause_writing()
        self._start_deadline()

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        self._unread_since = None

    def _expect_end(self, _task: asyncio.Task[None]) -> None:
        """Nothing more is served here: what is still on its way has a deadline as well."""
        body, self._body = self._body, None
        broken_off = None if body is None else body.exception()
        if broken_off is not None:
            # It holds the frames that read the body, which hold all that came of it, and the exception.
            broken_off.__traceback__ = None
        if self._wire is not None and self._wire.get_write_buffer_size():
            self._start_deadline()

    def _start_deadline(self) -> None:
        wire = self._wire
        if wire is None:
            return
        self._unread_since, self._unread_bytes = self._loop.time(), wire.get_write_buffer_size()
        # One timer at most, which looks when it was last started: a large answer starts it for each 64 KiB.
        if self._deadline is None:
            self._deadline = self._loop.call_later(self._write_timeout_s, self._check_deadline)

    def _check_deadline(self) -> None:
        self._deadline = None
        wire, since = self._wire, self._unread_since
        if wire is None or since is None:
            return
        unread_bytes, now = wire.get_write_buffer_size(), self._loop.time()
        if unread_bytes <= self._unread_bytes - READ_PROGRESS_BYTES:
            self._unread_bytes, since = unread_bytes, now
            self._unread_since = now
        due = since + self._write_timeout_s
        if now < due:
            self._deadline = self._loop.call_at(due, self._check_deadline)
        elif unread_bytes:
            self._open.closed(UNREAD)
            connection = wire.get_extra_info("socket")
            if connection is not None:
                # Or the kernel would keep what it has for the client, megabytes of it, for minutes more.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
            wire.abort()

    # --- A client that has sent its last ------------------------------------------------------------------------------

    def eof_received(self) -> bool | None:  # type: ignore[override] # asyncio.Protocol has it so
        """The client sends no more: it has left, or has only closed its side (RFC 9112 section 9.6).

        Both look the same. But one that has left answers whatever it is sent with a reset; so it is sent an interim
        answer, which every client of HTTP/1.1 has to put up with (RFC 9110 section 15.2), and is let go when that comes
        back. Where its answer has begun, or its request has not ended, it has left.
        """
        if self._half_closed:
            return True
        wire = self._wire
        if wire is None or self._body is not None or not self._waits_for_answer():
            return None
        if wire.get_extra_info("sslcontext") is not None:
            # TLS is closed by both at once.
            return None
        self._half_closed = True
        wire.write(CONTINUE)
        self._loop.call_later(self._look_delay_s, self._look_for_reset)
        return True

    def _waits_for_answer(self) -> bool:
        """Whether a client of HTTP/1.1 has sent a whole request, and nothing of the answer has been sent."""
        if self._version != HttpVersion11:
            return False
        request = self._current_request
        if request is not None:
            return not request.writer.output_size
        # Between being parsed and being served, a request may be in nobody's hands.
        return not self._request_in_progress and not self.is_idle and (bool(self._messages) or self._request_count > 0)

    def _look_for_reset(self) -> None:
        wire = self._wire
        if wire is None:
            return
        # Nothing reports a reset while nothing is read: the kernel has to be asked.
        connection = wire.get_extra_info("socket")
        if connection is None or connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            wire.abort()
            return
        self._look_delay_s = min(2 * self._look_delay_s, LONGEST_LOOK_S)
        self._loop.call_later(self._look_delay_s, self._look_for_reset)

    # --- What is no request -------------------------------------------------------------------------------------------

    @property
    def has_refusal(self) -> bool:
        """Whether the request that is served now has to be refused."""
        return self._refusal is not None

    def take_refusal(self) -> ProxyError | None:
        """Why the request that is served now has to be refused, where only its connection could see that; once."""
        refusal, self._refusal = self._refusal, None
        return refusal

    def note_refusal(self, refusal: ProxyError) -> None:
        """The request that is about to be served is to be refused."""
        self._refusal = refusal

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be parsed, or failed outside of everything that answers errors, as all else is.

        Nothing that was sent is sent again, neither to the client nor to the log. Raises ConnectionError where an
        answer has begun.
        """
        if status >= InternalError.status:
            logger.error("a request failed outside of its middleware", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        self._discards = True
        response = self._refuse(error_of(status, exc, message or ""))
        response.force_close()
        return response


async def _send_whole(request: web.Request, response: WholeAnswer) -> tuple[web.StreamResponse, bool]:
    return response, not await response.send(request)
