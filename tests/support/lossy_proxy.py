"""A TCP proxy that loses what it is told to lose, between Lightmeter and a real server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class LossyProxy:
    """Passes bytes on; the next ``lose_replies`` replies are lost, and their connections cut."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._connections: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.port = 0
        self.lose_replies = 0
        self.refuse = False

    def stall(self) -> None:
        """Pass nothing on until ``resume``."""
        self._flowing.clear()

    def resume(self) -> None:
        """Pass everything on again."""
        self._flowing.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            if not self.refuse:
                await self._connect(reader, writer)
        writer.transport.abort()

    async def close(self) -> None:
        """Cut every connection."""
        for task in list(self._connections):
            task.cancel()
            await asyncio.wait((task,))

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        ways = [
            asyncio.create_task(self._pass(reader, server_writer, downward=False)),
            asyncio.create_task(self._pass(server_reader, writer, downward=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            server_writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, downward: bool) -> None:
        while data := await reader.read(65_536):
            # Replies to the library's own greeting are short; those of scripts hold an id.
            if downward and self.lose_replies and b"req_" in data:
                self.lose_replies -= 1
                return
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def lossy_proxy(host: str, port: int) -> AsyncIterator[LossyProxy]:
    """A proxy to ``host:port`` on a port of its own."""
    proxy = LossyProxy(host, port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
