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
        self._writers: set[asyncio.StreamWriter] = set()
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
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError):
            if not self.refuse:
                await self._connect(reader, writer)
        await self._abort(writer)

    async def cut(self) -> None:
        """Cut every connection."""
        self._flowing.set()
        for writer in list(self._writers):
            writer.transport.abort()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        self._writers.add(server_writer)
        ways = [
            asyncio.create_task(self._pass(reader, server_writer, downward=False)),
            asyncio.create_task(self._pass(server_reader, writer, downward=True)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        await self._abort(writer)
        await self._abort(server_writer)
        await asyncio.gather(*ways, return_exceptions=True)

    async def _abort(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

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
        await proxy.cut()
