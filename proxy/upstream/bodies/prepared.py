"""A small body whose head was made before, with which it is written at once.

The library makes the headers of each request anew, looks for cookies, proxies and redirects, and takes a task to write
the body. Of a provider's requests only the length differs, and a small body is written in no time. Connections and
answers are the library's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import ClientRequest, ClientResponse, ClientSession, ConnectionTimeoutError
from aiohttp.helpers import TimerNoop
from aiohttp.http_writer import StreamWriter
from aiohttp.payload import BytesPayload
from yarl import URL

if TYPE_CHECKING:
    from aiohttp.connector import Connection

PREPARED_BYTES = 65_536
"""What is larger would be copied for long, and may have to wait for the provider to read."""

_NO_TIMER = TimerNoop()


@dataclass(frozen=True, slots=True)
class AnswerLimits:
    """How much of an answer is read at once, how long one of its headers may be, and how many of them there may be."""

    read_buffer_bytes: int
    header_bytes: int
    headers_most: int


class JsonPayload(BytesPayload):
    """A body that is let go when its request has ended: the library's request may wait for the garbage collector."""

    def forget(self) -> None:
        """It is not sent again."""
        self._value = b""


class PreparedPost:
    """All of a request: its head, from ``make_head``, and its body."""

    __slots__ = ("text",)

    def __init__(self, head: bytes, body: bytes) -> None:
        """The length goes between the two."""
        self.text = b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)

    def forget(self) -> None:
        """It is not sent again."""
        self.text = b""


def make_head(url: URL, headers: Mapping[str, str]) -> bytes:
    """The head of a POST to ``url``, up to its length. Raises ValueError for what cannot be in a header."""
    lines = [f"POST {url.raw_path_qs} HTTP/1.1", f"Host: {url.host_port_subcomponent}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header holds a line's end")
    return "".join(f"{line}\r\n" for line in lines).encode()


class PreparedRequest(ClientRequest):
    """The library's request for a ``PreparedPost``: of what that sets, what its connector and its response look at."""

    def __init__(self, session: ClientSession, url: URL, prepared: PreparedPost) -> None:
        """``session`` has the headers that ``prepared`` begins with."""
        self._session = session
        self._prepared = prepared
        self.method = "POST"
        self.url = self.original_url = url
        self.headers = session.headers
        self.loop = asyncio.get_running_loop()
        self.proxy = self.proxy_auth = self.proxy_headers = self.server_hostname = None
        self._ssl = True

    async def send(self, conn: Connection) -> ClientResponse:
        """Write it all. Raises ConnectionError where the connection is closing."""
        protocol = conn.protocol
        if protocol is None:
            raise ConnectionResetError("the connection was closed before it was used")
        writer = StreamWriter(protocol, self.loop)
        await writer.write(self._prepared.text, drain=False)
        return ClientResponse(
            self.method,
            self.url,
            writer=None,
            continue100=None,
            timer=_NO_TIMER,
            request_info=self.request_info,
            traces=[],
            loop=self.loop,
            session=self._session,
            stream_writer=writer,
        )


async def send_prepared(
    session: ClientSession, url: URL, prepared: PreparedPost, limits: AnswerLimits
) -> ClientResponse:
    """Send it, and wait until its answer begins: what ``session.post`` does beside cookies, redirects and traces.

    Raises what that does.
    """
    connector, timeout = session.connector, session.timeout
    if connector is None:
        raise RuntimeError("the session is closed")
    request = PreparedRequest(session, url, prepared)
    try:
        connection = await connector.connect(request, traces=[], timeout=timeout)
    except TimeoutError as error:
        raise ConnectionTimeoutError(f"Connection timeout to host {url}") from error
    try:
        if connection.protocol is not None:
            connection.protocol.set_response_params(
                timer=_NO_TIMER,
                read_until_eof=True,
                auto_decompress=False,
                read_timeout=timeout.sock_read,
                read_bufsize=limits.read_buffer_bytes,
                max_line_size=limits.header_bytes,
                max_field_size=limits.header_bytes,
                max_headers=limits.headers_most,
            )
        response = await request.send(connection)
        try:
            return await response.start(connection)
        except BaseException:
            response.close()
            raise
    except BaseException:
        connection.close()
        raise
