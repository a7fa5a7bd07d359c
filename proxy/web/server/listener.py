"""A listening port: how it is opened, and how it is given up so that a process that shares it loses no connection."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from typing import Any

from aiohttp import web

from proxy.web.server.certificate import HANDSHAKE_TIMEOUT_S, Certificate
from proxy.web.server.connection import Connection, ConnectionLimits, Refuse
from proxy.web.server.open_connections import OpenConnections
from proxy.web.server.request_factory import request_factory
from proxy.web.server.sockets.address import UNIX, ListenAddress
from proxy.web.server.sockets.opening import BACKLOG, SocketAccess, UnixSocketFile, ip_sockets, look_up

ACCEPT_LIMIT = 100_000


class Listener:
    """One aiohttp application on one address."""

    def __init__(
        self,
        app: web.Application,
        opened: OpenConnections,
        limits: ConnectionLimits,
        refuse: Refuse,
        certificate: Certificate | None = None,
    ) -> None:
        """Serve ``app`` on connections within ``limits``, which are counted in ``opened``.

        ``refuse`` answers what never becomes a request of ``app``. With a ``certificate``, TLS is spoken.
        """
        self._certificate = certificate
        self._tls: dict[str, Any] = {}
        if certificate is not None:
            self._tls = {"ssl": certificate.context, "ssl_handshake_timeout": HANDSHAKE_TIMEOUT_S}
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self._opened = opened
        self._limits = limits
        self._refuse = refuse
        self._servers: list[asyncio.Server] = []
        self._doors: list[socket.socket] = []
        self._file: UnixSocketFile | None = None

    async def listen(self, address: ListenAddress, access: SocketAccess, *, reuse_port: bool) -> str:
        """Listen at ``address``; the URL. ``access`` is to a Unix socket. Raises OSError.

        With ``reuse_port`` other processes may listen there as well; a Unix socket takes the place of theirs.
        """
        if not address.path:
            return await self.open(address.host, address.port, reuse_port=reuse_port)
        await self._set_up()
        self._file = UnixSocketFile(address.path)
        await self._serve(self._file.bind(access, replace=reuse_port), keeps_door=reuse_port)
        if self._certificate is not None:
            self._certificate.start()
        return f"{UNIX}{address.path}"

    async def open(self, host: str, port: int, *, reuse_port: bool) -> str:
        """Listen; the URL. With ``reuse_port`` other processes may listen there as well. Raises OSError."""
        await self._set_up()
        for listening in ip_sockets(await look_up(host, port), reuse_port=reuse_port):
            await self._serve(listening, keeps_door=reuse_port)
        if self._certificate is not None:
            self._certificate.start()
        bound_host, bound_port = self._servers[0].sockets[0].getsockname()[:2]
        return f"http{'s' if self._tls else ''}://{f'[{bound_host}]' if ':' in bound_host else bound_host}:{bound_port}"

    async def _set_up(self) -> None:
        await self._runner.setup()
        server = self._runner.server
        # A client that leaves must not cancel its request: the task is the application's own, and settles.
        if server is None or server.handler_cancellation:
            raise RuntimeError("aiohttp did not take the listener's settings")
        # Now, and not with the first client: aiohttp may have other settings one day.
        self._connect()
        server.request_factory = request_factory(server.request_factory)

    async def _serve(self, listening: socket.socket, *, keeps_door: bool) -> None:
        """Accept connections at ``listening``, which is bound."""
        if keeps_door:
            # The event loop closes what it is given before the last connections could be taken.
            self._doors.append(listening.dup())
        loop = asyncio.get_running_loop()
        create = loop.create_unix_server if listening.family == socket.AF_UNIX else loop.create_server
        # Known before it is waited for: an opening that is cancelled leaves nothing that ``close`` does not find.
        accepting = await create(self._connect, sock=listening, backlog=BACKLOG, start_serving=False, **self._tls)
        self._servers.append(accepting)
        await accepting.start_serving()

    async def close_door(self) -> None:
        """Listen no more, and serve every connection that has come until now.

        The kernel hands out new connections among all that listen, and drops those that a closed socket has not taken
        yet. So the last of them are taken here, and the socket is closed in the same breath.
        """
        loop = asyncio.get_running_loop()
        self._stop_listening()
        taken: deque[socket.socket] = deque()
        while self._doors:
            door = self._doors.pop()
            taken += _take_all(door)
            door.close()
        try:
            while taken:
                await loop.connect_accepted_socket(self._connect, taken.popleft(), **self._tls)
        finally:
            # Where this is cancelled: a client that is told so asks another process.
            for connection in taken:
                connection.close()

    async def close(self) -> None:
        """Close every connection."""
        self._stop_listening()
        if self._certificate is not None:
            await self._certificate.stop()
        for door in self._doors:
            door.close()
        await self._runner.cleanup()

    def _stop_listening(self) -> None:
        if self._file is not None:
            self._file.remove()
        for server in self._servers:
            server.close()
        self._servers.clear()

    def _connect(self) -> Connection:
        server = self._runner.server
        if server is None:
            raise RuntimeError("the listener is closed")
        return Connection(server, self._opened, self._limits, self._refuse)


def _take_all(door: socket.socket) -> list[socket.socket]:
    door.setblocking(False)
    taken: list[socket.socket] = []
    while len(taken) < ACCEPT_LIMIT:
        try:
            connection, _ = door.accept()
        except OSError:
            break
        connection.setblocking(False)
        taken.append(connection)
    return taken


def why_not(error: OSError, address: str, setting: str) -> str:
    """Why nothing can listen on ``address``, which is what ``setting`` says."""
    if error.errno == errno.EADDRINUSE:
        return f"{setting}: {address} is in use: stop what listens there, or " + (
            "choose another path" if address.startswith(UNIX) else "choose another port (port 0 takes a free one)"
        )
    why = error.strerror or str(error)
    if error.errno == errno.ENOENT and address.startswith(UNIX):
        why += ": make its folder, which this process may write to"
    elif error.errno == errno.EADDRNOTAVAIL:
        why += ": no interface of this machine has that address; 0.0.0.0 is all of IPv4, [::] all of IPv6 and IPv4"
    return f"{setting}: cannot listen on {address}: {why}"
