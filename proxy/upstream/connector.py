"""Connections to a provider: lenient to how an answer is framed, strict about which of them are used again.

They are used again only where nothing came on them that nobody asked for.

Bytes on an idle connection would be read as the answer to the next request, which may be another client's. The library
hands such connections out (https://github.com/aio-libs/aiohttp/issues/13656), so each is looked at here: what comes
while it is idle ends it, and so does what the event loop has not read yet when it is handed out.
"""

from __future__ import annotations

import asyncio
import re
import select
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import TCPConnector
from aiohttp.client_proto import ResponseHandler

if TYPE_CHECKING:
    from aiohttp.connector import Connection

HEAD_BYTES_LIMIT = 4 * 65_536
"""Of an answer's headers together; past it, the library is left to refuse them."""

_LENGTH = b"\ncontent-length:"
_EMPTY_LINE = b"\n\r\n"
_head_end = re.compile(rb"\r?\n\r?\n")
_length = re.compile(rb"(?im)^content-length:[ \t]*([0-9]+(?:[ \t]*,[ \t]*[0-9]+)*)[ \t]*\r?\n")
_chunked = re.compile(rb"(?im)^transfer-encoding:[^\n]*\bchunked\b")
_blank_before_colon = re.compile(rb"(?m)^([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256})[ \t]{1,64}:")
_READABLE = select.POLLIN | select.POLLPRI | select.POLLHUP | select.POLLERR


def mend_head(head: bytes) -> bytes:
    """The head of an answer, its length said once (RFC 9110 section 8.6, RFC 9112 sections 5.1 and 6.3).

    A length that is repeated is one; beside chunks it is none; and a blank before a colon is left out. Lengths that
    differ stay, and are refused.
    """
    if b" :" in head or b"\t:" in head:
        head = _blank_before_colon.sub(rb"\1:", head)
    # Most heads need nothing, and each answer has one: they are told by what costs least.
    lowered = head.lower()
    at = lowered.find(_LENGTH)
    if at < 0:
        return head
    is_chunked = b"\ntransfer-encoding:" in lowered and _chunked.search(head) is not None
    if not is_chunked and lowered.find(_LENGTH, at + 1) < 0 and b"," not in head[at : head.find(b"\n", at + 1)]:
        return head
    found = _length.findall(head)
    if is_chunked:
        return _length.sub(b"", head)
    lengths = {length.strip() for each in found for length in each.split(b",")}
    if len(lengths) == 1:
        line, _, headers = _length.sub(b"", head).partition(b"\n")
        return b"%b\nContent-Length: %b\r\n%b" % (line, lengths.pop(), headers)
    return head


class WatchedHandler(ResponseHandler):
    """The library's protocol, which ends where anything comes while it is idle, and gets heads that it can read."""

    is_idle = False
    _awaits_head = True
    _head: bytes | bytearray = b""
    _poll: select.poll | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the socket."""
        super().connection_made(transport)
        connected = transport.get_extra_info("socket")
        if connected is not None:
            self._poll = select.poll()
            self._poll.register(connected.fileno(), _READABLE)

    def take(self) -> None:
        """A request is to be sent, and one answer to come."""
        self.is_idle, self._awaits_head = False, True

    @property
    def is_as_it_was_left(self) -> bool:
        """Whether it is open, and nothing has come that the event loop has not read yet."""
        transport = self.transport
        if transport is None or transport.is_closing() or self.should_close or self._poll is None:
            return False
        return not self._poll.poll(0)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Read on where reading was paused. The library asks for it with each piece that is taken out of a body."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)

    def data_received(self, data: bytes) -> None:
        """Read an answer, or end."""
        if self.is_idle and data:
            self.force_close()
            if self.transport is not None:
                self.transport.abort()
            return
        if self._awaits_head and data:
            data = self._read_head(data)
            if not data:
                return
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """What came of a head is the library's to refuse."""
        self._awaits_head = False
        if self._head:
            begun, self._head = bytes(self._head), b""
            super().data_received(begun)
        super().connection_lost(exc)

    def _read_head(self, data: bytes) -> bytes:
        """What may be read; nothing until a head is whole."""
        if not self._head:
            # Nearly all come whole and as they should be: what follows them, an image, is not copied.
            end = data.find(_EMPTY_LINE)
            if end >= 0 and data[8:10] != b" 1" and data.find(b"\n\n", 0, end) < 0:
                self._awaits_head = False
                return self._mend(data, end + len(_EMPTY_LINE))
            self._head = bytearray()
        looked_at = max(0, len(self._head) - 3)
        self._head += data
        found = _head_end.search(self._head, looked_at)
        if found is None and len(self._head) <= HEAD_BYTES_LIMIT and self._head.startswith(b"HTTP/1."):
            return b""
        data, self._head = bytes(self._head), b""
        if found is None:
            self._awaits_head = False
            return data
        # Another head follows one that is not final (RFC 9110 section 15.2).
        self._awaits_head = data[8:10] == b" 1" and data[8:12] != b" 101"
        if self._awaits_head and found.end() < len(data):
            data = data[: found.end()] + self._read_head(data[found.end() :])
        return self._mend(data, found.end())

    def _mend(self, data: bytes, head_bytes: int) -> bytes:
        head = data[:head_bytes]
        mended = mend_head(head)
        if mended == head:
            return data
        # Where this answer ends, and the next begins, is for whoever reads its framing otherwise another question.
        self.force_close()
        return mended + data[head_bytes:]


class WatchedConnector(TCPConnector):
    """Reuses connections that are as their last answer left them, and no others."""

    def __init__(self, **settings: Any) -> None:
        """As the library's; needs a running event loop."""
        super().__init__(**settings)
        # A later version might make its protocols elsewhere, and nothing here would be looked at any more.
        if getattr(self._factory, "func", None) is not ResponseHandler:
            raise RuntimeError("aiohttp makes its connections otherwise than is known here")
        make: partial[Any] = partial(WatchedHandler, loop=asyncio.get_running_loop())
        self._factory = make

    def _release(self, key: Any, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        if isinstance(protocol, WatchedHandler):
            protocol.is_idle = True
        super()._release(key, protocol, should_close=should_close)

    async def _get(self, key: Any, traces: list[Any]) -> Connection | None:
        # The first that is connected is taken, and those that are not are dropped.
        for protocol, _ in self._conns.get(key, ()):
            if isinstance(protocol, WatchedHandler) and protocol.is_as_it_was_left:
                break
            protocol.close()
        connection = await super()._get(key, traces)
        if connection is not None and isinstance(connection.protocol, WatchedHandler):
            connection.protocol.take()
        return connection
