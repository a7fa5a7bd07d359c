"""A provider that takes requests and answers none, in a process of its own: ``python -m`` this module.

A ``GET`` is answered with how many requests it holds.
"""

from __future__ import annotations

import asyncio
import sys

from proxy.web.server.descriptors import raise_descriptor_limit

BACKLOG = 4_096


class Held:
    """How many requests wait."""

    def __init__(self) -> None:
        self.count = 0


class Waiting(asyncio.Protocol):
    """One connection of the gateway, which has at most one request on it."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._is_held = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The gateway has come."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, _exc: Exception | None) -> None:
        """It has gone."""
        self._transport = None
        self._held.count -= self._is_held

    def data_received(self, data: bytes) -> None:
        """Count a request that is whole."""
        if self._is_held or self._transport is None:
            return
        self._received += data
        head, end, body = bytes(self._received).partition(b"\r\n\r\n")
        if not end:
            return
        if head.startswith(b"GET "):
            told = b"%d" % self._held.count
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(told), told))
            self._received.clear()
        elif len(body) >= int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]):
            self._is_held = True
            self._held.count += 1
            self._received.clear()


async def serve() -> None:
    """Take requests until the process is stopped."""
    raise_descriptor_limit()
    held = Held()
    server = await asyncio.get_running_loop().create_server(lambda: Waiting(held), "127.0.0.1", 0, backlog=BACKLOG)
    async with server:
        sys.stdout.write(f"waiting provider on http://127.0.0.1:{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
