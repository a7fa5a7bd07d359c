"""Opening a connection: by its name, by several addresses, by a proxy, by TLS, within one time for all of that."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from functools import cache
from traceback import clear_frames

import aiohappyeyeballs

from proxy.upstream.connection.faults import AnswerBroken, ConnectFailed
from proxy.upstream.connection.protocol import Connection
from proxy.upstream.connection.request import HttpProxy, Origin
from proxy.upstream.connection.resolver import Resolver

NEXT_ADDRESS_AFTER_S = 0.25
"""RFC 8305 section 5."""

KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""Address translators forget who says nothing, Azure's after 240 seconds, Amazon's after 350; images may take as long.

A probe after each silent 60 seconds keeps them, and tells of a machine that is gone after two minutes (tcp(7)).
"""

SOCKET_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    # Not every system has all of them.
    *((socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in KEEPALIVE.items() if hasattr(socket, name)),
)

PROTOCOLS = ["http/1.1"]
_SUCCESSES = range(200, 300)

Make = Callable[[], Connection]


@cache
def default_context() -> ssl.SSLContext:
    """Believes whom the system believes."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(PROTOCOLS)
    return context


class Opener:
    """Opens the connections of one pool."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connect_timeout_s: float,
        tls: ssl.SSLContext | None = None,
        proxy: HttpProxy | None = None,
    ) -> None:
        """Within ``connect_timeout_s`` each; ``tls`` None believes whom the system believes."""
        self._loop = loop
        self._connect_timeout_s = connect_timeout_s
        # Reading the system's authorities takes its time, which is none of a request's.
        self._tls = default_context() if tls is None else tls
        self._proxy = proxy
        self._resolver = Resolver(loop)

    def close(self) -> None:
        """Look nothing up any more."""
        self._resolver.close()

    async def open(self, origin: Origin, make: Make) -> Connection:
        """A connection to ``origin`` that ``make`` made. Raises ConnectFailed: nothing of a request was sent then."""
        place = f"{origin.host}:{origin.port}"
        failed: tuple[str, int] = ("it took too long", 0)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                return await self._open(origin, make)
        except TimeoutError:
            pass
        except ConnectFailed as error:
            failed = str(error), error.errno
        except (OSError, AnswerBroken, RuntimeError, ValueError) as error:
            # uvloop raises RuntimeError for a transport that has just ended; TLS, ValueError for a name that is none.
            failed = _words(error), getattr(error, "errno", None) or 0
        # A new one, after its causes are gone: their frames hold sockets, and lists of one another.
        message, errno = failed
        raise ConnectFailed(f"{place}: {message}", errno)

    async def _open(self, origin: Origin, make: Make) -> Connection:
        context = self._tls if origin.is_tls else None
        if self._proxy is None:
            return await self._connect(origin, make, context)
        if context is None:
            return await self._connect(self._proxy.origin, make, None)
        return await self._tunnel(self._proxy, origin, make, context)

    async def _connect(self, origin: Origin, make: Make, context: ssl.SSLContext | None) -> Connection:
        host, port = origin.host, origin.port
        addresses = await self._resolver.resolve(host, port)
        last: tuple[str, int] = ("it has no address", 0)
        while addresses:
            try:
                connected = await aiohappyeyeballs.start_connection(
                    addresses, happy_eyeballs_delay=NEXT_ADDRESS_AFTER_S, interleave=1, loop=self._loop
                )
            except OSError as error:
                last = _words(error), error.errno or 0
                # The library's frames hold lists of its errors, whose tracebacks hold these frames.
                clear_frames(error.__traceback__)
                break
            try:
                return await self._start(connected, make, context, host)
            except OSError as error:
                # Of several machines by one name, one may be sick.
                last = _words(error), error.errno or 0
                aiohappyeyeballs.pop_addr_infos_interleave(addresses, 1)
        self._resolver.forget(host, port)
        raise ConnectFailed(*last)

    async def _start(
        self, connected: socket.socket, make: Make, context: ssl.SSLContext | None, host: str
    ) -> Connection:
        try:
            for option in SOCKET_OPTIONS:
                connected.setsockopt(*option)
        except OSError:
            # One that has just been reset may refuse them.
            connected.close()
            raise
        name = host if context is not None else None
        # The socket is the loop's from here on, also where this fails.
        _, connection = await self._loop.create_connection(make, sock=connected, ssl=context, server_hostname=name)
        return connection

    async def _tunnel(self, proxy: HttpProxy, origin: Origin, make: Make, context: ssl.SSLContext) -> Connection:
        outer = await self._connect(proxy.origin, lambda: Connection(self._loop), None)
        try:
            response = outer.ask((proxy.tunnel_head(origin),), is_tunnel=True)
            await response.begin()
            if response.status not in _SUCCESSES:
                raise ConnectFailed(f"its proxy answers {response.status}")
            inner = make()
            if outer.transport is None or outer.transport.is_closing():
                raise ConnectFailed("its proxy closed the tunnel")
            transport = await self._loop.start_tls(outer.transport, inner, context, server_hostname=origin.host)
            if transport is None:
                raise ConnectFailed("its proxy closed the tunnel")
            inner.connection_made(transport)
        except BaseException:
            outer.abort()
            raise
        return inner


def _words(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
