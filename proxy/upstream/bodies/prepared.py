"""A small body whose head was made before, with which it is written at once.

The library makes the headers of each request anew, and takes a task to write its body. Of a provider's requests only
the length differs, and a small body is written in no time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import ClientRequest
from aiohttp.http_writer import StreamWriter
from aiohttp.payload import BytesPayload
from yarl import URL

if TYPE_CHECKING:
    from aiohttp import ClientResponse
    from aiohttp.connector import Connection

PREPARED_BYTES = 65_536
"""What is larger would be copied for long, and may have to wait for the provider to read."""


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
    """The library's request, which sends a ``PreparedPost`` as it is, and any other data as ever.

    Of what the library sets for each request, it has what the connector and the response look at.
    """

    _prepared: PreparedPost | None = None

    def __init__(self, method: str, url: URL, *, data: Any = None, **settings: Any) -> None:
        """Without cookies, authentication and proxies of the library's, where ``data`` is a ``PreparedPost``."""
        if type(data) is not PreparedPost:
            super().__init__(method, url, data=data, **settings)
            return
        self._prepared = data
        self.method = method
        self.url = self.original_url = url
        self.headers = settings["headers"]
        self.loop = settings["loop"]
        self.response_class = settings["response_class"]
        self.proxy = self.proxy_auth = self.proxy_headers = self.server_hostname = None
        self._session = settings["session"]
        self._ssl = settings["ssl"]
        self._timer = settings["timer"]
        self._traces = settings["traces"]

    async def send(self, conn: Connection) -> ClientResponse:
        """Write it all. Raises ConnectionError where the connection is closing."""
        prepared, protocol = self._prepared, conn.protocol
        if prepared is None or protocol is None:
            return await super().send(conn)
        writer = StreamWriter(protocol, self.loop)
        await writer.write(prepared.text, drain=False)
        protocol.start_timeout()
        return self.response_class(
            self.method,
            self.original_url,
            writer=None,
            continue100=None,
            timer=self._timer,
            request_info=self.request_info,
            traces=self._traces,
            loop=self.loop,
            session=self._session,
            stream_writer=writer,
        )
