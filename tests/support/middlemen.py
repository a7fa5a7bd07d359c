"""What stands between a gateway and its provider in some places: a TLS front that asks for certificates, a proxy."""

from __future__ import annotations

import asyncio
import base64
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PIECE_BYTES = 65_536


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, ssl.SSLError):
        while piece := await reader.read(PIECE_BYTES):
            writer.write(piece)
            await writer.drain()
    writer.close()


async def _join(one: Streams, other: Streams) -> None:
    await asyncio.gather(_pump(one[0], other[1]), _pump(other[0], one[1]))


@contextmanager
def _serving(serve: Serve, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of a server in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)

    async def stop(server: asyncio.Server) -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    try:
        server = asyncio.run_coroutine_threadsafe(start(), loop).result()
        yield server.sockets[0].getsockname()[1]
        asyncio.run_coroutine_threadsafe(stop(server), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@dataclass
class TlsFront:
    """Ends TLS for what listens at ``port``; ``clients`` are the names on the certificates that it was shown."""

    url: str = ""
    clients: list[str] = field(default_factory=list)


@contextmanager
def tls_front(port: int, context: ssl.SSLContext) -> Iterator[TlsFront]:
    """A front for ``localhost``."""
    front = TlsFront()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown = writer.get_extra_info("peercert") or {}
        front.clients += [value for part in shown.get("subject", ()) for name, value in part if name == "commonName"]
        await _join((reader, writer), await asyncio.open_connection("127.0.0.1", port))

    with _serving(serve, context) as listening:
        front.url = f"https://localhost:{listening}"
        yield front


@dataclass
class HttpProxy:
    """A forward proxy; ``asked`` are the first lines of what came with the right password."""

    port: int = 0
    asked: list[str] = field(default_factory=list)


@contextmanager
def http_proxy(user: str, password: str) -> Iterator[HttpProxy]:
    """A proxy that tunnels by CONNECT, and passes on what is asked for by a whole address."""
    proxy = HttpProxy()
    right = b"Basic " + base64.b64encode(f"{user}:{password}".encode())

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line = head.partition(b"\r\n")[0].decode()
        if right not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        proxy.asked.append(line)
        method, target, _ = line.split()
        place = target if method == "CONNECT" else target.partition("://")[2].partition("/")[0]
        host, _, port = place.rpartition(":")
        there = await asyncio.open_connection(host, int(port))
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            there[1].write(head.replace(f"http://{place}".encode(), b"", 1))
        await _join((reader, writer), there)

    with _serving(serve) as proxy.port:
        yield proxy
